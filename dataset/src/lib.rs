//! From Parquet in an object store to batches of normalised pictures and tokens.
//!
//! The corpus of a run is pinned once by its [`Manifest`]: the files, their lengths and the rows of their row groups.
//! From then on, everything is *computed*: the [`Plan`] says which row every position of every slot is, and a
//! [`KeyedRng`] says how it is cropped and which of its captions is read. No iterator is saved, no shuffle buffer is
//! filled. A batch depends on the seed, the stage, the slot and the step, and not on threads, memory, or on which
//! worker asks; a run can be resumed, or a slot moved to another worker, at any step.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//! use blip2_dataset::*;
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
//! # The parts
//! - [`Location`] resolves a path or URL to a store; [`put_create`] is the one write that decides anything.
//! - [`ingest()`] makes a corpus of what the field publishes; [`survey()`] shows one, [`verify_corpus`] checks one.
//! - [`Manifest`] and [`ColumnNames`] describe what is in the files.
//! - [`Plan`] orders the rows: row groups permuted each epoch, sources merged by weight, windows dealt to slots, parts
//!   permuted.
//! - [`decode_image`], [`TrainTransform`], [`EvalTransform`], [`ShortestEdgeTransform`] make tensors of pictures;
//!   [`clean_caption`] and [`TextEncoder`] make tokens of captions.
//! - [`Coverage`] says which samples were used with which rows; [`audit_stage`] recomputes it from the plan.
//! - [`Loader`] does it all ahead of the training step, in bounded memory; [`read_all`] does it once, for evaluation.
//!
//! # Bad rows
//! A row that does not decode, has no text, is too large, is marked as failed or does not have its recorded hash is not
//! an error: it becomes a [`QuarantineRecord`], and a substitute is drawn by the key from the same part of the plan, so
//! that nothing else shifts. Only a part without any usable row, or a file that cannot be read, ends loading.
//!
//! # Why no shuffle buffer
//! A buffer's order depends on what was in it, so a resumed or re-dealt run would see other batches; and a good shuffle
//! needs a buffer that is large. A permutation computed by a key needs neither state nor memory, and reading whole row
//! groups of a window keeps requests large.

mod audit;
mod columns;
mod coverage;
mod error;
mod fetch;
#[cfg(test)]
mod hostile;
mod image_decode;
mod ingest;
mod jpeg;
mod loader;
mod manifest;
pub mod parquet_file;
mod plan;
#[cfg(test)]
mod published;
mod quarantine;
mod random;
mod reads;
pub mod record;
mod retry;
pub mod row_group_file;
mod row_group_hash;
mod samples;
mod secret_url;
mod simulated_corpus;
mod store;
mod survey;
#[cfg(test)]
mod test_corpus;
#[cfg(test)]
mod test_server;
mod text;
mod transform;
mod verify;

pub use audit::{AuditSpec, RowUses, StageAudit, Substitution, audit_stage};
pub use columns::{ColumnNames, HashOf, RowGroup};
pub use coverage::Coverage;
pub use error::{DatasetError, Result};
pub use fetch::{
    CACHE_BYTES_VARIABLE, CACHE_VARIABLE, Fetched, FileDone, Hub, HubError, HubFile, HubModel, download_into,
    fetch_folder, fetch_model, is_url, is_weight_file, model_exists, wanted_files,
};
pub use image::RgbImage;
pub use image_decode::{decode_image, image_dimensions};
pub use ingest::{
    ArchiveConversion, Converted, DamagedSource, IngestSettings, IngestSummary, MAX_CAPTION_BYTES,
    PartRecord, RejectReason, Share, SourceKind, ingest, is_archive, readable,
};
pub use loader::{Loader, LoaderSettings, LoaderSpec, LoaderStatistics, SlotBatch, StepBatch};
pub use manifest::{CorpusSource, Manifest, ManifestFile, ManifestSource, read_parquet, write_parquet};
pub use plan::quality::{PlanQuality, QualitySpec, plan_quality};
pub use plan::{PartId, Plan, PlanKey, RowAddress, RowGroupId};
pub use quarantine::{QuarantineList, QuarantineRecord};
pub use random::{KeyedPermutation, KeyedRng};
pub use row_group_file::IngestedRowGroup;
pub use samples::{EvaluationSet, Sample, read_all, read_first};
pub use secret_url::{has_credentials, redacted, redacted_text, remember_credentials};
pub use simulated_corpus::SimulatedCorpus;
pub use store::{Location, StoredObject, put_create};
pub use survey::{Survey, SurveySpec, SurveyedPicture, UnusableRow, survey, thumbnail};
pub use text::{MAX_CAPTION_WORDS, TextEncoder, TextEncoding, Tokens, clean_caption, is_visible};
pub use transform::{
    CLIP_MEAN, CLIP_STD, EvalTransform, PictureScratch, PictureTimes, Resampling, ShortestEdgeTransform,
    TrainTransform, normalised,
};
pub use verify::{Finding, FindingKind, VerifySpec, VerifySummary, verify_corpus};
