//! Work in numbered tasks that any number of processes do for each other, handed out on leases.
//!
//! - [`tasks`] says whose a task is, a state machine without a clock
//! - [`server`] hands leases out over gRPC, [`client`] asks for them and keeps them
//! - [`error`] is what ends either
//!
//! All of this is soft state: a task is done when its record is in the store, where the server looks, and a
//! server that is started again begins with those. A lease only keeps two processes from doing the same at
//! the same time; one that is lost costs time and nothing else.
//!
//! It knows no store, no corpus and no model: what a task is, and where its record lies, is the business of
//! whoever hands it out ([`server::LeasedWork`]) and of those who do it.

pub mod client;
pub mod error;
pub mod server;
pub mod tasks;
