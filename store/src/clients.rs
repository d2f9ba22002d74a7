//! Who speaks to a store: the local disk, a cloud's bucket, a plain server, each by its own client with the
//! same patience.

mod around;
mod connect;
mod counted;
mod credentials;
mod regular;
mod signed;
mod tries;

#[cfg(test)]
pub(crate) use around::{Around, Otherwise};
pub(crate) use connect::{Access, Bearer, check, connect, scheme};
pub(crate) use regular::{NotAFile, RegularFiles};
