//! From the data sets that the field publishes to the layout that training reads.
//!
//! A job is cut into *units*: an archive, or so many rows of a list. A unit is read in order, its images are
//! decoded and checked on one pool of threads, and what can be used is written to files of its own. So the
//! bytes of every file depend on the sources and the settings alone, a job that was killed is run again and
//! skips what is done, and several machines may each take a [`Share`] of the units.
//!
//! ```text
//! OUT/ingest.json                  what is ingested and how: written first, compared by every later run
//! OUT/part-000003-0001.parquet     file 1 of unit 3
//! OUT/rejected/000003.parquet      its rows that cannot be used, with the reason
//! OUT/done/000003.json             written last: the unit's files with lengths and BLAKE3, its counts
//! OUT/summary.json                 written when all units are done
//! ```

mod archives;
mod done;
mod execute;
mod fetch;
mod folder;
mod job;
mod json;
mod kind;
mod layout;
mod part;
mod prepare;
mod row;
mod settings;
mod sources;
#[cfg(test)]
mod tests;
mod unit;
mod yields;

pub use archives::{ArchiveConversion, Converted};
pub use done::{DamagedSource, IngestSummary, PartRecord};
pub(crate) use done::{DoneRecord, done_name};
pub use execute::ingest;
pub(crate) use job::{JOB_FILE, Job};
pub use kind::SourceKind;
pub use prepare::{MAX_CAPTION_BYTES, readable};
pub use row::RejectReason;
pub use settings::{IngestSettings, Share};
