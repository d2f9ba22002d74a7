//! The rows that a run could not use, with small pictures of them, for those who look at its page.

use blip2_dataset::quarantine::QuarantineRecord;
use blip2_pages::run_page::{Picture, Pictures};
use bytes::Bytes;

/// The newest of these rows, as far as they were looked at.
#[derive(Debug, Default)]
pub(crate) struct LeftOut(Vec<Row>);

#[derive(Debug, Clone)]
struct Row {
    record: QuarantineRecord,
    /// A small JPEG, or why there is none; `None`: nobody has looked yet.
    look: Option<Result<Bytes, String>>,
}

impl LeftOut {
    /// These rows are the newest now; what is known of them stays.
    pub(crate) fn follow(&mut self, newest: &[QuarantineRecord]) {
        let known = std::mem::take(&mut self.0);
        let row = |record: &QuarantineRecord| {
            let look = known.iter().find(|row| row.record == *record).and_then(|row| row.look.clone());
            Row { record: record.clone(), look }
        };
        self.0 = newest.iter().map(row).collect();
    }

    /// The first row that nobody has looked at.
    pub(crate) fn unseen(&self) -> Option<QuarantineRecord> {
        self.0.iter().find(|row| row.look.is_none()).map(|row| row.record.clone())
    }

    /// Takes in what a row looks like.
    pub(crate) fn seen(&mut self, record: &QuarantineRecord, look: Result<Bytes, String>) {
        if let Some(row) = self.0.iter_mut().find(|row| row.record == *record) {
            row.look = Some(look);
        }
    }

    /// The section of the page.
    pub(crate) fn section(&self) -> Pictures {
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
        Pictures {
            id: "left-out",
            title: "Rows left out last".into(),
            pictures: self.0.iter().map(picture).collect(),
        }
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
        let mut rows = LeftOut::default();
        assert!(rows.unseen().is_none() && rows.section().pictures.is_empty());
        rows.follow(&[record(2), record(1)]);
        assert_eq!(rows.unseen(), Some(record(2)));
        rows.seen(&record(2), Ok(Bytes::from_static(&[1, 2])));
        rows.seen(&record(1), Err("it ends early".into()));
        rows.seen(&record(9), Err("it is not there any more".into()));
        rows.follow(&[record(3), record(2)]);
        assert_eq!(rows.unseen(), Some(record(3)));
        let section = rows.section();
        assert_eq!(section.pictures[1].jpeg.as_deref(), Some(&[1, 2][..]));
        assert_eq!(section.pictures[1].place, "file:///a.parquet, row group 0, row 3");
        assert!(section.pictures[0].jpeg.is_none() && section.pictures[0].instead.contains("being read"));
    }
}
