//! The one error type of this crate.

use blip2_images::ImageError;
use blip2_store::error::StoreError;

/// `Result` of this crate.
pub type Result<T, E = DatasetError> = std::result::Result<T, E>;

/// What can go wrong between a location and a batch: what, where, and what to do about it.
///
/// Causes are kept as text so that one failed read can be reported to everyone who waits for it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DatasetError {
    /// A place cannot be read or written, or a name stands for nothing.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// An ingestion came to its end without a row of some source.
    #[error("{sources}; {kept}. Rows that cannot be used are listed in the output's `rejected/`")]
    NothingKept {
        /// Which sources, and why.
        sources: String,
        /// What is written all the same.
        kept: String,
    },
    /// A file is not Parquet or its footer is damaged.
    #[error("`{file}` is not a readable Parquet file: {reason}")]
    NotParquet {
        /// The file.
        file: String,
        /// What the reader said.
        reason: String,
    },
    /// An archive stands where Parquet is read.
    #[error(
        "`{file}` is an archive, and this reads Parquet: convert it with `blip2 corpus ingest --from webdataset --source \
         '{file}' --out FOLDER` and name `FOLDER/part-*.parquet` (`data.train` takes archives as they are)"
    )]
    Archive {
        /// The archive.
        file: String,
    },
    /// An archive of a corpus is damaged, or has no row that can be used.
    #[error(
        "`{file}` cannot be trained on: {reason}; write it again, or leave it out of `data.train` (the {rows} rows that \
         could be read are below `{kept}`)"
    )]
    DamagedArchive {
        /// The archive.
        file: String,
        /// What is wrong, and at which byte.
        reason: String,
        /// Where its rows are.
        kept: String,
        /// How many.
        rows: u64,
    },
    /// The corpus has no row.
    #[error(
        "the corpus has no rows: {files} file(s), the first `{first}`{}; point `data.train` at files with rows",
        if *.failed > 0 { format!(", of whose rows all {failed} have a `status` other than success") } else { String::new() }
    )]
    NoRows {
        /// How many files were opened.
        files: usize,
        /// The first of them.
        first: String,
        /// Rows whose download failed.
        failed: u64,
    },
    /// A column is missing.
    #[error("`{file}` has no {wanted} column; {remedy}; it has: {found}")]
    MissingColumn {
        /// The file.
        file: String,
        /// What was looked for.
        wanted: String,
        /// All columns of the file.
        found: String,
        /// The column that comes nearest, and the key to set.
        remedy: String,
    },
    /// Two columns have one name, so that nobody can say which is meant.
    #[error(
        "`{file}` has two columns named `{column}`; write it with one, or name another under `data.columns`"
    )]
    RepeatedColumn {
        /// The file.
        file: String,
        /// The name.
        column: String,
    },
    /// A column has a type that cannot be used.
    #[error("column `{column}` of `{file}` is {found}, expected {wanted}")]
    ColumnType {
        /// The file.
        file: String,
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// What can be used.
        wanted: &'static str,
    },
    /// A row group cannot be read from the store, after its retries.
    #[error("cannot read row group {row_group} of `{file}`: {reason}")]
    ReadRowGroup {
        /// The file.
        file: String,
        /// Index within the file.
        row_group: u32,
        /// What the store said.
        reason: String,
    },
    /// A row group's bytes are damaged.
    #[error("row group {row_group} of `{file}` is damaged: {reason}; write the file again")]
    DamagedRowGroup {
        /// The file.
        file: String,
        /// Index within the file.
        row_group: u32,
        /// What the Parquet reader said.
        reason: String,
    },
    /// A Parquet list of this crate (manifest, quarantine) is malformed.
    #[error("cannot read the {what}: {reason}")]
    Malformed {
        /// `manifest` or `quarantine list`.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A tokenizer cannot be loaded or used.
    #[error("tokenizer `{path}`: {reason}")]
    Tokenizer {
        /// Its file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A setting is out of range.
    #[error("{0}")]
    Setting(String),
    /// Every row tried in place of a bad one was bad too.
    #[error(
        "no usable row for sample {sample} after {tries} tries around row {row} of row group {row_group} of `{file}` \
         (last reason: {reason}); clean the corpus or raise `data.window_row_groups`"
    )]
    NoUsableRow {
        /// Global index of the sample.
        sample: u64,
        /// How many substitutes were tried.
        tries: u32,
        /// The file of the planned row.
        file: String,
        /// Its row group.
        row_group: u32,
        /// The row within the row group.
        row: u32,
        /// Why the last substitute was refused.
        reason: String,
    },
    /// A batch was not ready in time.
    #[error("the batch of step {step} was not ready within {seconds:.1} s; storage or decoding is too slow")]
    Deadline {
        /// The step waited for.
        step: u64,
        /// How long.
        seconds: f64,
    },
    /// A loader was asked for a step beyond its last.
    #[error("the loader ended before step {step}")]
    Ended {
        /// The step asked for.
        step: u64,
    },
    /// A bug: a loader's thread panicked or could not be started.
    #[error("a loader thread failed: {reason}")]
    Thread {
        /// What is known.
        reason: String,
    },
}

impl DatasetError {
    /// Whether the data or a setting is at fault (the same call fails again) and not storage, time or the
    /// machine.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Store(error) => error.is_bad_input(),
            Self::ReadRowGroup { .. } | Self::Deadline { .. } | Self::Ended { .. } | Self::Thread { .. } => {
                false
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_errors_are_told_from_storage_errors() {
        assert!(DatasetError::Setting("a".into()).is_bad_input());
        let missing = StoreError::NotFound { location: "a".into() };
        assert!(DatasetError::from(missing).is_bad_input());
        let failed = StoreError::Failed { location: "a".into(), action: "read", reason: "timeout".into() };
        assert!(!DatasetError::from(failed).is_bad_input());
    }
}
