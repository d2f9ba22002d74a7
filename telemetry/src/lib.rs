//! What a process measures of itself, and the plain HTTP port that shows it.
//!
//! | module | holds |
//! |---|---|
//! | [`metric`] | what a metric is, and [`metric::ALL`] of them: name, kind, labels and meaning, each once |
//! | [`recorder`] | [`Telemetry`]: the numbers of this process, recorded from wherever they are decided |
//! | [`readiness`] | whether this process can do its part, and if not, why |
//! | [`trace`] | what this process did when, of the last steps |
//! | [`trace_id()`] | what the traces and log lines of one step are found by |
//! | [`endpoint`] | `/livez`, `/readyz` and `/metrics` on a port of their own |
//! | [`process`] | what the system says of this process |
//!
//! Nothing here is read by what trains: a number that is recorded goes out of the process and nowhere else.
//! Nothing shown is secret, and nothing can be changed through the port. It knows no run, no store and no
//! model: whoever records names the metric and says the number.

pub mod endpoint;
pub mod metric;
pub mod process;
pub mod readiness;
pub mod recorder;
pub mod trace;
mod trace_id;

pub use recorder::Telemetry;
pub use trace_id::trace_id;
