//! What the coordinators before had spent, of a run that goes on.

use std::collections::BTreeMap;
use std::path::Path;

use blip2_proto::v1::Spent;
use blip2_run::layout;
use blip2_store::Location;

use crate::error::Result;
use crate::file::read;
use crate::record::StepRecord;
use crate::segments::read_newest;

/// What coordinators of the run in `root`, with its file in `folder`, had spent when they committed the last
/// of the first `committed` steps and when they committed the newest one; none of lines that do not say it.
///
/// # Errors
/// The store fails, or the lines cannot be read.
pub async fn spent_before(root: &Location, folder: &Path, committed: u64) -> Result<BTreeMap<u64, Spent>> {
    let file = folder.join(layout::METRICS);
    let records = match root.is_local() {
        true if file.is_file() => read(&file)?,
        true => Vec::new(),
        false => read_newest(root, |record| record.step < committed).await?,
    };
    let at = records.iter().rev().find(|record| record.step + 1 == committed);
    let known = at.into_iter().chain(records.last());
    let spent = |record: &StepRecord| Some((record.step, record.spent?.into()));
    Ok(known.filter_map(spent).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::line_of;
    use crate::record::tests::record;
    use crate::spent::SpentSeconds;

    fn spent(useful: f64) -> Option<SpentSeconds> {
        Some(SpentSeconds { useful, wasted: 0.25, ..SpentSeconds::default() })
    }

    #[tokio::test]
    async fn the_step_to_go_on_from_and_the_newest_say_what_was_spent() {
        let folder = tempfile::tempdir().unwrap();
        let root = Location::parse(folder.path().to_str().unwrap()).unwrap();
        assert!(spent_before(&root, folder.path(), 0).await.unwrap().is_empty());
        let text = |spent: fn(f64) -> Option<SpentSeconds>| -> String {
            let with = |step: u64| StepRecord { spent: spent(2.0 * step as f64), ..record(step, 1.0) };
            (0..6).map(|step| line_of(&with(step)).unwrap()).collect()
        };
        std::fs::write(folder.path().join(layout::METRICS), text(spent)).unwrap();
        let before = spent_before(&root, folder.path(), 4).await.unwrap();
        let useful: Vec<(u64, f64)> = before.iter().map(|(step, spent)| (*step, spent.useful)).collect();
        assert_eq!(useful, [(3, 6.0), (5, 10.0)]);
        assert_eq!(before[&5].wasted, 0.25);
        assert_eq!(spent_before(&root, folder.path(), 0).await.unwrap().len(), 1);
        std::fs::write(folder.path().join(layout::METRICS), text(|_| None)).unwrap();
        assert!(spent_before(&root, folder.path(), 4).await.unwrap().is_empty(), "lines of older programs");
    }
}
