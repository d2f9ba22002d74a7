//! The calls of the `Bulk` service, on the wire the gRPC that its `.proto` says, in memory without its
//! copies.

mod call;
mod frame;
mod messages;
mod service;

pub(crate) use call::{Call, open, state};
#[doc(hidden)]
pub use frame::read_bulk_messages;
pub(crate) use frame::{MAX_HEAD, put_head};
pub(crate) use service::BulkService;
