//! What each source came to: one of which no row is kept is no success.

use std::collections::BTreeMap;

use crate::corpus::ingest::done::{DoneRecord, IngestSummary};
use crate::corpus::ingest::job::Job;
use crate::corpus::ingest::row::RejectReason;
use crate::corpus::ingest::unit::Unit;
use crate::error::{DatasetError, Result};

/// Sources that are named in an error.
const SHOWN: usize = 3;

/// Rows of a source, as far as its units are done.
#[derive(Debug, Default)]
struct Yield {
    units_left: u64,
    rows_read: u64,
    rows: u64,
    rejected: BTreeMap<String, u64>,
    first_refusal: Option<String>,
}

/// Rows of every source.
#[derive(Debug)]
pub(super) struct Yields {
    names: Vec<String>,
    sources: Vec<Yield>,
}

impl Yields {
    pub(super) fn of(job: &Job) -> Self {
        let names = job.source_names();
        let mut sources: Vec<Yield> = names.iter().map(|_| Yield::default()).collect();
        job.units.iter().for_each(|unit| sources[unit.source].units_left += 1);
        Self { names, sources }
    }

    pub(super) fn add(&mut self, unit: &Unit, done: &DoneRecord, first_refusal: Option<String>) {
        let found = &mut self.sources[unit.source];
        found.units_left -= 1;
        found.rows_read += done.rows_read;
        found.rows += done.rows;
        for (reason, count) in &done.rejected {
            *found.rejected.entry(reason.clone()).or_insert(0) += count;
        }
        found.first_refusal = found.first_refusal.take().or(first_refusal);
    }

    /// Whether rows are kept of every source that is done; one whose downloads all failed is none that is at
    /// fault, as long as others have some.
    ///
    /// # Errors
    /// [`DatasetError::NothingKept`].
    pub(super) fn check(&self, summary: &IngestSummary) -> Result<()> {
        let whole = summary.units_done == summary.units;
        let is_lawful = |found: &Yield| {
            let failed = found.rejected.get(RejectReason::NotDownloaded.name()).copied().unwrap_or_default();
            failed > 0 && failed == found.rows_read && summary.rows > 0
        };
        let is_fault = |found: &Yield| found.units_left == 0 && found.rows == 0 && !is_lawful(found);
        let empty: Vec<_> =
            self.names.iter().zip(&self.sources).filter(|(_, found)| is_fault(found)).collect();
        if empty.is_empty() {
            return Ok(());
        }
        let shown: Vec<_> = empty.iter().take(SHOWN).map(|(name, found)| found.in_words(name)).collect();
        let others = match empty.len() - shown.len() {
            0 => String::new(),
            others => format!("; and {others} sources more"),
        };
        let kept = match (summary.rows, whole) {
            (0, true) => "nothing was written".to_owned(),
            (rows, _) => format!("of the other sources {rows} rows are written"),
        };
        Err(DatasetError::NothingKept { sources: format!("{}{others}", shown.join("; ")), kept })
    }
}

impl Yield {
    fn in_words(&self, name: &str) -> String {
        if self.rows_read == 0 {
            return format!("`{name}` has no rows");
        }
        let reasons: Vec<_> =
            self.rejected.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let first = self.first_refusal.as_ref().map_or(String::new(), |first| format!(", first {first}"));
        format!("none of the {} rows of `{name}` can be used ({}{first})", self.rows_read, reasons.join(", "))
    }
}
