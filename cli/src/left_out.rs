//! The rows that could not be used last, with small pictures of them, for those who look at a page.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use blip2_dataset::quarantine::QuarantineRecord;
use blip2_pages::run_page::{Picture, Pictures};
use bytes::Bytes;

/// Somebody looks at the page who has asked for it so short a time ago; it is read anew every ten seconds.
const LOOKED_AT: Duration = Duration::from_secs(60);

/// The newest of these rows, as far as they were looked at; clones are the same ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeftOut(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    rows: Vec<Row>,
    /// When they were shown last.
    shown: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Row {
    record: QuarantineRecord,
    /// A small JPEG, or why there is none; `None`: nobody has looked yet.
    look: Option<Result<Bytes, String>>,
}

impl LeftOut {
    /// These rows are the newest now; what is known of them stays.
    pub(crate) fn follow(&self, newest: &[QuarantineRecord]) {
        let rows = &mut self.known().rows;
        let before = std::mem::take(rows);
        let row = |record: &QuarantineRecord| {
            let look = before.iter().find(|row| row.record == *record).and_then(|row| row.look.clone());
            Row { record: record.clone(), look }
        };
        *rows = newest.iter().map(row).collect();
    }

    /// The first row that nobody has looked at.
    pub(crate) fn unseen(&self) -> Option<QuarantineRecord> {
        self.known().rows.iter().find(|row| row.look.is_none()).map(|row| row.record.clone())
    }

    /// Takes in what a row looks like.
    pub(crate) fn seen(&self, record: &QuarantineRecord, look: Result<Bytes, String>) {
        if let Some(row) = self.known().rows.iter_mut().find(|row| row.record == *record) {
            row.look = Some(look);
        }
    }

    /// Whether anybody has the page open.
    pub(crate) fn is_looked_at(&self) -> bool {
        self.known().shown.is_some_and(|shown| shown.elapsed() < LOOKED_AT)
    }

    /// The section of the page, for somebody who looks at it; `None` where no row was left out.
    pub(crate) fn section(&self) -> Option<Pictures> {
        let mut known = self.known();
        known.shown = Some(Instant::now());
        let picture = |row: &Row| {
            let QuarantineRecord { key, file, row_group, row: number, reason, .. } = &row.record;
            let (jpeg, instead) = match &row.look {
                Some(Ok(jpeg)) => (Some(jpeg.to_vec()), String::new()),
                Some(Err(why)) => (None, format!("no picture: {why}")),
                None => (None, "its picture is being read".into()),
            };
            let name = if key.is_empty() { format!("row {number}") } else { key.clone() };
            let place = format!("{file}, row group {row_group}, row {number}");
            Picture { name, about: reason.clone(), place, jpeg, instead }
        };
        let pictures: Vec<Picture> = known.rows.iter().map(picture).collect();
        let title = "Rows left out last".into();
        (!pictures.is_empty()).then_some(Pictures { id: "left-out", title, pictures })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(sample: u64) -> QuarantineRecord {
        QuarantineRecord {
            key: format!("key-{sample}"),
            file: "file:///a.parquet".into(),
            row_group: 0,
            row: 3,
            reason: "it has no text".into(),
            sample,
            stage: 1,
        }
    }

    #[test]
    fn what_was_seen_stays_as_long_as_the_row_is_among_the_newest() {
        let rows = LeftOut::default();
        assert!(rows.unseen().is_none() && !rows.is_looked_at());
        assert!(rows.section().is_none() && rows.is_looked_at());
        rows.follow(&[record(2), record(1)]);
        assert_eq!(rows.unseen(), Some(record(2)));
        rows.seen(&record(2), Ok(Bytes::from_static(&[1, 2])));
        rows.seen(&record(1), Err("it ends early".into()));
        rows.seen(&record(9), Err("it is not there any more".into()));
        rows.follow(&[record(3), record(2)]);
        assert_eq!(rows.unseen(), Some(record(3)));
        let section = rows.section().unwrap();
        assert_eq!(section.pictures[1].jpeg.as_deref(), Some(&[1, 2][..]));
        assert_eq!(section.pictures[1].place, "file:///a.parquet, row group 0, row 3");
        assert!(section.pictures[0].jpeg.is_none() && section.pictures[0].instead.contains("being read"));
    }
}
