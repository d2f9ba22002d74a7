//! Where things are kept: folders of this machine, buckets of a cloud, plain HTTP servers, all spoken to
//! alike.
//!
//! A [`Location`] is a path or URL resolved to a store; it never shows a credential ([`secret_url`]).
//! [`put_create`] is the one write that decides anything: at most one of several writers creates an object.
//! [`record`] writes JSON that way. Reads that must meet the pinned object, patterns over names, retries and
//! clients are this module's own.

mod around;
mod braces;
#[cfg(test)]
mod conformance;
mod connect;
mod credentials;
#[cfg(test)]
mod every_store;
mod exclusive;
mod expand;
mod listing;
mod local_walk;
mod location;
#[cfg(test)]
mod names;
mod pattern;
mod pinned;
mod pool;
mod put_create;
pub mod record;
mod regular;
pub(crate) mod retry;
pub mod secret_url;
mod signed;

pub(crate) use connect::{Access, Bearer};
pub use location::{Location, StoredObject};
pub(crate) use pinned::PinnedObject;
pub(crate) use pool::StorePool;
pub use put_create::put_create;
