//! Committed steps as they are kept: one line for every step of a run, in `metrics.jsonl` where the run lies
//! on this machine, else in segments in its store; beside them the same for TensorBoard, and the faults that
//! were noticed.
//!
//! [`MetricsLog`] takes the steps in as a coordinator commits them and says which are kept for good;
//! [`read`], [`read_all`] and [`read_newest`] give them back. Whoever led, there is one line a step.
//!
//! | module | holds |
//! |---|---|
//! | `keeping` | who keeps the steps of a run that is led here |
//! | `record`, [`values`] | a step as a line, its values by name |
//! | `spent`, `spent_before` | what a run's time was spent on, which the next coordinator goes on counting |
//! | `file`, `segments` | lines in a file; lines in objects of a store, written by who leads alone |
//! | `segment_objects` | what both kinds of segments are in a store: their order, a write that has an end |
//! | `event_file`, `tensorboard` | the same as TensorBoard reads it |
//! | `faults`, `fault_record`, `fault_segments` | faults as lines, in a file or in objects of a store |
//!
//! It knows no page, no command line and no model.

mod error;
mod event_file;
mod fault_record;
mod fault_segments;
mod faults;
mod file;
mod keeping;
mod record;
mod segment_objects;
mod segments;
mod spent;
mod spent_before;
mod tensorboard;
pub mod values;

pub use error::{RecordsError, Result};
pub use fault_record::FaultRecord;
pub use faults::{FaultLog, newest_fault, read_faults};
pub use file::read;
pub use keeping::MetricsLog;
pub use record::StepRecord;
pub use segments::{are_there, read_all, read_newest};
pub use spent::SpentSeconds;
pub use spent_before::spent_before;
