//! Membership, slot map, step commit and the checkpoint catalogue of one run.
//!
//! The heart is [`Machine`]: a pure state machine that turns events (a worker joined, reported, vanished; time passed;
//! an object was stored) into actions (send, store, finish). It knows no clock, no network and no store, so that a
//! simulation drives the very code that runs in production. [`run`] is its shell: a gRPC server, a ticking clock and
//! the run's folder in the object store.
//!
//! What is decided is decided by create-if-absent writes alone: a membership epoch ([`Epochs`]), which fences an older
//! coordinator of the same run, and a checkpoint's `COMMIT` ([`Catalogue`]). Everything else is soft state that a
//! restarted coordinator gathers again.

mod actor;
mod catalogue;
mod epochs;
mod error;
mod machine;
mod server;
mod settings;
mod spec;

pub use catalogue::{Catalogue, CheckpointRecord, Damaged, Listing, PartRecord};
pub use epochs::{EpochMember, EpochRecord, Epochs};
pub use error::{CoordinatorError, Result};
pub use machine::{Action, CommittedStep, Event, Machine, Outcome, SessionId, StoreFailure};
pub use server::run;
pub use settings::{CheckpointSettings, CoordinatorSettings};
pub use spec::{RunSpec, Schedule};
