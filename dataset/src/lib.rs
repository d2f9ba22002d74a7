//! From Parquet in an object store to batches of images, as bytes of pixels, and tokens.
//!
//! The corpus of a run is pinned once by its [`Manifest`](corpus::manifest::Manifest): the files, their
//! lengths and the rows of their row groups. From then on, everything is *computed*: the [`Plan`](plan::Plan)
//! says which row every position of every slot is, and a [`KeyedRng`](blip2_random::KeyedRng) says how it is
//! cropped and which of its captions is read. No iterator is saved, no shuffle buffer is filled. A batch
//! depends on the seed, the stage, the slot and the step, and not on threads, memory, or on which worker
//! asks; a run can be resumed, or a slot moved to another worker, at any step.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//! use blip2_dataset::corpus::columns::ColumnNames;
//! use blip2_dataset::corpus::manifest::Manifest;
//! use blip2_dataset::error::{DatasetError, Result};
//! use blip2_images::transform::TrainTransform;
//! use blip2_dataset::loader::{Loader, LoaderSettings, LoaderSpec};
//! use blip2_dataset::plan::{Plan, PlanKey};
//! use blip2_dataset::text::{TextEncoder, TextEncoding};
//!
//! # fn main() -> Result<()> {
//! # let runtime = tokio::runtime::Runtime::new().map_err(|error| DatasetError::Thread { reason: error.to_string() })?;
//! let columns = ColumnNames::default();
//! let sources = ["s3://bucket/corpus/*.parquet".to_owned()];
//! let manifest = Arc::new(runtime.block_on(Manifest::open(&sources, &columns))?);
//! let plan = Arc::new(Plan::new(&manifest, PlanKey { seed: 42, stage: 1 }, 16, 4)?);
//! let text = Arc::new(TextEncoder::open("qformer-tokenizer".as_ref(), TextEncoding::new(32, 0))?);
//! let loader = Loader::start(
//!     runtime.handle().clone(),
//!     LoaderSpec {
//!         manifest,
//!         plan,
//!         columns,
//!         slots: 0..8, // this worker's half
//!         batch_per_slot: 4,
//!         slots_total: 16,
//!         first_step: 0,
//!         last_step: 1000,
//!         seed: 42,
//!         stage: 1,
//!         image: TrainTransform::new(224, [0.5, 1.0], true),
//!         text,
//!         max_pixels: 200_000_000,
//!         settings: LoaderSettings::default(),
//!     },
//! )?;
//! let batch = loader.next(Duration::from_secs(60))?;
//! assert_eq!(batch.slots.len(), 8);
//! # Ok(())
//! # }
//! ```
//!
//! # The map
//! | module | holds |
//! |---|---|
//! | [`corpus`] | Parquet files of images and captions: columns, manifest, ingestion, survey, verification |
//! | [`text`] | captions to tokens |
//! | [`plan`] | which row every position of every slot is; its quality, and its audit |
//! | [`loader`] | all of it ahead of the training step, in bounded memory |
//! | [`coverage`], [`quarantine`] | which samples were used with which rows, and which rows could not be |
//! | [`error`] | the one error type |
//!
//! Places, images and draws are rooms of their own below it: [`blip2_store`], [`blip2_images`],
//! [`blip2_random`]. It knows nothing of models, of processes that talk to each other, or of what a run is.
//!
//! # Bad rows
//! A row that does not decode, has no text, is too large, is marked as failed or does not have its recorded
//! hash is not an error: it becomes a [`QuarantineRecord`](quarantine::QuarantineRecord), and a substitute is
//! drawn by the key from the same share of the plan, so that nothing else shifts. Only a share without any
//! usable row, or a file that cannot be read, ends loading.
//!
//! # Why no shuffle buffer
//! A buffer's order depends on what was in it, so a resumed or re-dealt run would see other batches; and a
//! good shuffle needs a buffer that is large. A permutation computed by a key needs neither state nor memory,
//! and reading whole row groups of a window keeps requests large.

pub mod corpus;
pub mod coverage;
pub mod error;
#[cfg(test)]
mod hostile;
pub mod loader;
pub mod parquet_bytes;
pub mod plan;
#[cfg(test)]
mod published;
pub mod quarantine;
#[cfg(test)]
mod test_assets;
pub mod text;
