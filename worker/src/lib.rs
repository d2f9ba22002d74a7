//! The worker: the step loop of all stages, checkpoints, evaluation and export.
//!
//! A worker joins a run by asking its coordinator, takes the run's configuration from it, and does steps on a
//! thread of its own: [`run()`] is the whole life. What a stage does is its [`task`]; what its steps share is
//! in [`step`]. What a step computes is a function of the configuration, the corpus manifest, the parameters
//! and the step's index, and of nothing else.
//!
//! # The map
//! | module | holds |
//! |---|---|
//! | [`member`], `session` | a worker's life: what is decided, without clock or network, and the shell that does it |
//! | `compute` | the thread that does one order at a time: enters an epoch, reduces a step, applies a commit |
//! | [`step`], [`task`], `sum` | a step: what all tasks share, what each computes, how its slots are summed and land |
//! | `state`, `text_half`, `checkpoint`, `upload` | what a member holds between steps, what it begins with, its way to the store |
//! | `batches`, `pixels`, [`language`] | what a stage reads of the corpus, and its way to the device |
//! | [`frozen_models`], `frozen_images`, [`open`], `warm_up`, `own_device` | what a run computes with |
//! | [`config`], [`settings`], `places` | what a run is told |
//! | `check`, `model_check`, `image_sizes`, `published_sizes` | what can be known before a run is begun |
//! | [`demand`] | what stages ask of a device and its host, by formula |
//! | [`evaluate`], `answering`, [`mod@import`], [`mod@export`] | a checkpoint measured; published weights in and out |

mod answering;
mod batches;
mod check;
mod checkpoint;
mod compute;
pub mod config;
pub mod demand;
mod error;
pub mod evaluate;
pub mod export;
mod frozen_images;
pub mod frozen_models;
mod image_processor;
mod image_sizes;
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
mod text_half;
mod upload;
mod warm_up;
mod wire_values;

pub use answering::Answerer;
pub use batches::{BatchRange, start_loader};
pub use check::{Place, check};
pub use checkpoint::{NamedState, read_checkpoint};
pub use config::WorkerConfig;
pub use config::hash::config_hash;
pub use error::{Result, WorkerError};
pub use model_check::{ModelCheck, Precision, TrainedReport, check_models};
pub use places::model_here;
pub use session::{WorkerEnd, WorkerOptions, WorkerStanding, run};
pub use state::TrainState;
