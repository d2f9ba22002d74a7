//! CapFilt in one room: which texts of an image are worth training on.
//!
//! A job is cut into *tasks*, runs of row groups of its input. A task is done in two steps:
//!
//! 1. Its images are captioned, and all texts scored. That is the expensive step, and its result may depend
//!    on the device; so it becomes one object, created once, that everything after reads.
//! 2. Texts are kept or dropped, and the rows that keep one are written in the layout of training. That is a
//!    function of the input, the scores and the selection alone, so that whoever does it writes the same
//!    bytes, and a selection may be changed later without a model ([`reselect::reselect`]).
//!
//! ```text
//! OUT/curate.json               what is curated and how: written first, compared by every later run
//! OUT/scored/000003.parquet     every text of task 3 with its scores, without images: created once
//! OUT/part-000003.parquet       its rows that keep a text
//! OUT/rejected/000003.parquet   its rows that cannot be used, with the reason
//! OUT/done/000003.json          written last: the task's file with length and BLAKE3, its counts
//! OUT/summary.json              written when all tasks are done
//! OUT/runs/TIME-PROCESS.json    how long a run took
//! ```
//!
//! # The parts
//! - [`job`] is the record that pins a job and its tasks; [`task`] reads a task's rows; [`finish`] writes
//!   what follows from scores, [`runs`] what it cost.
//! - [`scoring`] has the traits of what captions and scores; [`models`] opens published folders behind them,
//!   as [`settings`] name them, and [`model_check`] looks at those folders. [`task_runner`] does tasks with
//!   models.
//! - [`rules`], [`select`] and [`dedup`] decide: functions of texts, scores and hashes, without a store or a
//!   model.
//! - [`coordinator`] hands tasks out on leases ([`blip2_leases`]): a task is done when its done-record is in
//!   the store; [`counted`] says what those come to. [`worker`] asks for tasks until there are none.
//! - [`config`] is the section `curation` of a configuration, [`report`] what became of a pool.
//!
//! The room knows stores, corpora and models. It knows nothing of training: no run, no step, no membership.

pub mod config;
pub mod coordinator;
pub mod counted;
pub mod dedup;
mod error;
pub mod finish;
pub mod job;
pub mod model_check;
pub mod models;
mod part;
pub mod report;
pub mod reselect;
pub mod rules;
pub mod runs;
pub mod scored;
pub mod scoring;
pub mod select;
pub mod settings;
pub mod task;
pub mod task_runner;
#[cfg(test)]
mod tests;
pub mod worker;

pub use error::{CurationError, Result};
