//! Membership, slot map, step commit and checkpoints of one run.
//!
//! The heart is [`Machine`]: a pure state machine that turns events (a worker joined, reported, vanished;
//! time passed; an object was stored) into actions (send, store, finish). It knows no clock, no network and
//! no store, so that a simulation drives the very code that runs in production. [`run`] is its shell: a gRPC
//! server, a ticking clock and the run's folder in the object store.
//!
//! What is decided is decided by create-if-absent writes alone: a membership epoch
//! ([`Epochs`](blip2_run::epoch::Epochs)), which fences an older coordinator of the same run, and a
//! checkpoint's `COMMIT` ([`Catalogue`](blip2_run::catalogue::Catalogue)). Everything else is soft state that
//! a restarted coordinator gathers again.

mod actor;
mod error;
mod introduction;
mod keeping;
mod machine;
mod server;
mod settings;
mod spec;
mod standby;

pub use error::{CoordinatorError, Result};
pub use keeping::{Keeper, Keeping};
#[cfg(feature = "planted-bugs")]
pub use machine::PlantedBug;
pub use machine::invariants::check;
pub use machine::{Action, Event, Figures, Machine, Outcome, SessionId, Start, StoreFailure};
pub use server::{CoordinatorOptions, run};
pub use settings::{Cadence, CheckpointSettings, CoordinatorSettings};
pub use spec::{LossRise, NonFinitePolicy, RunSpec};
pub use standby::{StandByEnd, StandByOptions, Stranded, is_led, stand_by};
