//! Where things are kept: folders of this machine, buckets of a cloud, plain HTTP servers, all spoken to
//! alike.
//!
//! A [`Location`] is a path or URL resolved to a store; it never shows a credential ([`secret_url`]).
//! [`put_create`] is the one write that decides anything: at most one of several writers creates an object.
//! A [`PinnedObject`] is read as it was when it was looked up, or not at all. A [`StorePool`] finds what
//! patterns and folders stand for, with one client for each bucket.
//!
//! | module | holds |
//! |---|---|
//! | [`record`] | JSON that is written once |
//! | [`fetch`] | models from elsewhere: a URL becomes a path on this machine, kept in a cache |
//! | [`requests`] | how often remote stores were asked, and how that ended |
//! | [`retry`] | requests that are made again |
//! | [`secret_url`] | URLs with credentials, as they are shown and as they are meant |
//! | [`error`] | the one error type |
//!
//! It knows bytes and names. It knows no format but its own records, and nothing of corpora, runs or models.

mod clients;
#[cfg(test)]
mod conformance;
pub mod error;
#[cfg(test)]
mod every_store;
mod exclusive;
pub mod fetch;
mod listing;
mod location;
mod names;
mod pinned;
mod pool;
mod put_create;
pub mod record;
pub mod requests;
pub mod retry;
pub mod secret_url;

pub use location::{Location, StoredObject};
pub use pinned::PinnedObject;
pub use pool::StorePool;
pub use put_create::put_create;
