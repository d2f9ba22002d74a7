//! Looking at the rows that could not be used, as long as somebody looks at the page that shows them.

use std::time::Duration;

use blip2_coordinator::Figures;
use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::manifest::Manifest;
use blip2_dataset::corpus::one_row::{RowPlace, row_thumbnail};
use blip2_dataset::quarantine::QuarantineRecord;
use blip2_store::Location;
use bytes::Bytes;
use tokio::sync::{OnceCell, watch};

use crate::left_out::LeftOut;
use crate::run_folder::stored_manifest;

/// Between two looks at a row: a row group is read for each.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a look may take.
const LOOK_WITHIN: Duration = Duration::from_secs(60);

/// Rows that could not be used, and how to look at them.
#[tonic::async_trait]
pub(crate) trait LeftOutRows: Send + Sync {
    /// A few of them, newest first.
    fn newest(&self) -> Vec<QuarantineRecord>;

    /// A small JPEG of a row, or why there is none.
    async fn look(&self, record: &QuarantineRecord) -> Result<Bytes, String>;
}

/// Looks at the newest rows, one after the other and as long as somebody looks at the page, until `over`.
pub(crate) async fn look_at_left_out(shown: LeftOut, rows: &dyn LeftOutRows, over: impl Future<Output = ()>) {
    tokio::select! {
        () = keep_looking(&shown, rows) => {}
        () = over => {}
    }
}

async fn keep_looking(shown: &LeftOut, rows: &dyn LeftOutRows) {
    loop {
        shown.follow(&rows.newest());
        let next = if shown.is_looked_at() { shown.unseen() } else { None };
        if let Some(record) = next {
            let looked = tokio::time::timeout(LOOK_WITHIN, rows.look(&record)).await;
            shown.seen(&record, looked.unwrap_or_else(|_| Err("it cannot be read in time".into())));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The rows of a run that is led here.
#[derive(Debug)]
pub(crate) struct RowsOfRun {
    figures: watch::Receiver<Figures>,
    /// The run's folder, which has the pinned manifest.
    root: Location,
    columns: ColumnNames,
    /// Images of more pixels are not decoded.
    max_pixels: u64,
    manifest: OnceCell<Manifest>,
}

impl RowsOfRun {
    /// Those that `figures` tell of, of the corpus that the run in `root` has pinned.
    pub(crate) fn new(
        figures: watch::Receiver<Figures>,
        root: Location,
        columns: ColumnNames,
        max_pixels: u64,
    ) -> Self {
        Self { figures, root, columns, max_pixels, manifest: OnceCell::new() }
    }
}

#[tonic::async_trait]
impl LeftOutRows for RowsOfRun {
    fn newest(&self) -> Vec<QuarantineRecord> {
        self.figures.borrow().left_out.clone()
    }

    async fn look(&self, record: &QuarantineRecord) -> Result<Bytes, String> {
        let manifest = self.manifest.get_or_try_init(|| stored_manifest(&self.root)).await;
        let manifest = manifest.map_err(|error| error.to_string())?;
        let place = RowPlace { file: &record.file, row_group: record.row_group, row: record.row };
        row_thumbnail(&manifest.files, &self.columns, place, self.max_pixels).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gone::gone;
    use crate::left_out::tests::record;

    #[tokio::test]
    async fn nothing_is_read_unless_somebody_looks_and_it_ends_with_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let root = Location::parse(folder.path().to_str().unwrap()).unwrap();
        let (sender, figures) = watch::channel(Figures { left_out: vec![record(1)], ..Figures::default() });
        let rows = RowsOfRun::new(figures.clone(), root, ColumnNames::default(), 1 << 20);
        let shown = LeftOut::default();
        let looking = look_at_left_out(shown.clone(), &rows, gone(figures));
        let play = async {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            assert_eq!(shown.unseen(), Some(record(1)), "nobody looks");
            assert!(shown.section().unwrap().pictures[0].instead.contains("is being read"));
            let deadline = tokio::time::Instant::now() + 10 * LOOK_EVERY;
            while shown.unseen().is_some() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(LOOK_EVERY / 10).await;
            }
            let instead = shown.section().unwrap().pictures[0].instead.clone();
            assert!(instead.contains("no picture: ") && instead.contains("manifest.parquet"), "{instead}");
            drop(sender);
        };
        tokio::join!(looking, play);
    }
}
