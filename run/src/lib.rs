//! What a run *is* in its store, written down once.
//!
//! - [`layout`] names every object and folder of a run.
//! - [`epoch`] and [`commit`] are the two objects that decide anything, by create-if-absent writes alone: a
//!   membership epoch, which fences an older coordinator of the same run, and a checkpoint's COMMIT.
//!   [`catalogue`] lists, verifies and retires checkpoints.
//! - [`schedule`] says which step belongs to which stage, [`coverage`] which samples the steps so far have
//!   used, [`quarantine`] which rows they could not use.
//! - [`history`] says whether epochs and checkpoints can have followed each other.
//! - [`exit`] is the one table of exit codes, and says which of them an error is.
//!
//! It knows stores and messages. It knows no model, no network and no clock: who trains, who leads and when a
//! checkpoint is written is decided elsewhere.

pub mod catalogue;
pub mod commit;
pub mod coverage;
pub mod epoch;
mod error;
pub mod exit;
pub mod history;
pub mod layout;
pub mod quarantine;
pub mod schedule;

pub use error::{Result, RunError};
