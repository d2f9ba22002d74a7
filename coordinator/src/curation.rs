//! The coordinator of a curation: tasks on leases.
//!
//! All of it is soft state. A task is done when its done-record is in the store; a coordinator that is started again
//! begins with those, and whatever was leased is leased anew. So a lease that is lost costs time and nothing else.

mod leases;
mod server;

pub use leases::{Leases, Offer};
pub use server::{CurationEnd, CurationOptions, coordinate_curation};
