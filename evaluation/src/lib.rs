//! Evaluation: how good a model is on images that it was not trained on.
//!
//! - [`metrics`]: numbers from scores, texts and answers alone; no model and no image is known there
//! - [`caption_tools`]: the user's own Java programs that find words and score captions
//! - [`answers`]: answers of a model against those of people; [`answer_files`] and [`similarity_files`] read
//!   what anybody's model wrote, [`row_id`] is how rows are named in them, [`file_error`] what is wrong with
//!   a file
//! - [`held_out`]: rows that are held out of training, as they are kept between evaluations
//! - [`captioning`]: text for images, by an exported folder
//! - [`retrieval`] and [`caption_loss`]: an opened model over a set of samples
//! - [`sets`]: what a model is evaluated on, read in the data sets' own forms; [`presets`]: how texts are
//!   written where published numbers come from
//! - [`writing`] and [`pair_scorer`]: what a model writes about a unit of a set, and how it scores pairs;
//!   [`reranking`]: which pairs are scored anew
//! - [`job`]: an evaluation in units that any number of processes compute, [`job_error`] what keeps one from
//!   being done; [`result_files`]: what comes of it
//! - [`fault`]: whose fault it is that a model cannot be opened or computed
//! - [`image_transform`] and [`tokenizer`]: images and texts as a model's folder says that they are prepared;
//!   [`model_folder`]: what lies there, for whoever asks before it is opened
//!
//! This room takes models that are open. It knows no run, no worker and no configuration of theirs: whoever
//! has a checkpoint makes the model of it and hands it in. What is computed is a function of the model, the
//! samples and a seed.

pub mod answer_files;
pub mod answers;
pub mod caption_loss;
pub mod caption_tools;
pub mod captioning;
pub mod captions;
pub mod error;
pub mod fault;
pub mod file_error;
pub mod held_out;
pub mod image_transform;
pub mod job;
pub mod job_error;
pub mod metrics;
pub mod model_folder;
pub mod pair_scorer;
pub mod presets;
pub mod reranking;
pub mod result_files;
pub mod retrieval;
pub mod row_id;
pub mod sample_encoder;
pub mod sets;
pub mod similarity_files;
pub mod tokenizer;
pub mod writing;

pub use error::{EvaluationError, Result};
