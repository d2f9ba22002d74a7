//! Looking at the rows that a run could not use, as long as somebody looks at its page.

use std::time::Duration;

use blip2_coordinator::Figures;
use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::manifest::Manifest;
use blip2_dataset::corpus::one_row::{RowPlace, row_thumbnail};
use blip2_dataset::quarantine::QuarantineRecord;
use blip2_store::Location;
use bytes::Bytes;
use tokio::sync::watch;

use crate::live_page::LivePage;
use crate::run_folder::stored_manifest;

/// Between two looks at a row: a row group is read for each.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a look may take.
const LOOK_WITHIN: Duration = Duration::from_secs(60);

/// The corpus that the rows are of.
#[derive(Debug, Clone)]
pub(crate) struct Corpus {
    /// The run's folder, which has the pinned manifest.
    pub(crate) root: Location,
    pub(crate) columns: ColumnNames,
    /// Images of more pixels are not decoded.
    pub(crate) max_pixels: u64,
}

/// Looks at the newest rows that the run could not use, one after the other and as long as somebody looks at
/// the page, until the sender of the figures is gone.
pub(crate) async fn look_at_left_out(page: LivePage, mut figures: watch::Receiver<Figures>, corpus: Corpus) {
    let mut manifest = None;
    loop {
        let newest = figures.borrow_and_update().left_out.clone();
        page.left_out(|rows| rows.follow(&newest));
        let next = if page.is_looked_at() { page.left_out(|rows| rows.unseen()) } else { None };
        let look = async {
            if let Some(record) = next {
                let looked = tokio::time::timeout(LOOK_WITHIN, look(&corpus, &mut manifest, &record)).await;
                let looked = looked.unwrap_or_else(|_| Err("it cannot be read in time".into()));
                page.left_out(|rows| rows.seen(&record, looked));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        tokio::select! {
            () = look => {}
            () = gone(figures.clone()) => return,
        }
    }
}

async fn gone(mut figures: watch::Receiver<Figures>) {
    while figures.changed().await.is_ok() {}
}

async fn look(
    corpus: &Corpus,
    manifest: &mut Option<Manifest>,
    record: &QuarantineRecord,
) -> Result<Bytes, String> {
    let manifest = match manifest {
        Some(manifest) => manifest,
        None => manifest.insert(stored_manifest(&corpus.root).await.map_err(|error| error.to_string())?),
    };
    let place = RowPlace { file: &record.file, row_group: record.row_group, row: record.row };
    row_thumbnail(manifest, &corpus.columns, place, corpus.max_pixels).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::left_out::tests::record;

    #[tokio::test]
    async fn nothing_is_read_unless_somebody_looks_and_it_ends_with_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let root = Location::parse(folder.path().to_str().unwrap()).unwrap();
        let corpus = Corpus { root, columns: ColumnNames::default(), max_pixels: 1 << 20 };
        let page = LivePage::default();
        let (sender, figures) = watch::channel(Figures { left_out: vec![record(1)], ..Figures::default() });
        let looking = look_at_left_out(page.clone(), figures, corpus);
        let play = async {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            assert_eq!(page.left_out(|rows| rows.unseen()), Some(record(1)), "nobody looks");
            assert!(page.html().contains("its picture is being read"));
            let deadline = tokio::time::Instant::now() + 10 * LOOK_EVERY;
            while page.left_out(|rows| rows.unseen()).is_some() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(LOOK_EVERY / 10).await;
            }
            let html = page.html();
            assert!(html.contains("no picture: ") && html.contains("manifest.parquet"), "{html}");
            drop(sender);
        };
        tokio::join!(looking, play);
    }
}
