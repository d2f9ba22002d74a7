//! The worker: the step loop of all stages, checkpoints, evaluation and export.
//!
//! A worker joins a run by asking its coordinator, takes the run's configuration from it, and does steps on a
//! thread of its own: [`run()`] is the whole life. What a stage does is its [`task`]; what its steps share is
//! in [`step`]. What a step computes is a function of the configuration, the corpus manifest, the parameters
//! and the step's index, and of nothing else.

mod batches;
mod check;
mod checkpoint;
mod compute;
pub mod config;
mod error;
pub mod evaluate;
pub mod export;
pub mod frozen_models;
mod image_processor;
pub mod import;
pub mod language;
pub mod member;
mod model_check;
pub mod open;
mod own_device;
mod pixels;
mod places;
mod published_sizes;
mod session;
pub mod settings;
mod state;
pub mod step;
mod sum;
pub mod task;
mod upload;
mod warm_up;
mod wire_values;

pub use batches::{BatchRange, start_loader};
pub use check::{Place, check};
pub use checkpoint::{NamedState, read_checkpoint};
pub use config::WorkerConfig;
pub use config::hash::config_hash;
pub use error::{Result, WorkerError};
pub use model_check::{ModelCheck, Precision, TrainedReport, check_models};
pub use places::model_here;
pub use session::{WorkerEnd, WorkerOptions, run};
pub use state::TrainState;
