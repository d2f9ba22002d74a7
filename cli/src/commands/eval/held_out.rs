//! Held-out rows, and what is measured over them.

use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::samples::{Sample, read_all};
use blip2_evaluation::retrieval::Retrieval;
use blip2_pages::quickstart_page::RetrievalScores;
use blip2_worker::evaluate;
use blip2_worker::settings::train::StepSettings;

use crate::error::CliError;

/// The usable rows of evaluation files; what is not usable is said and left out.
pub(crate) async fn samples(
    sources: &[String],
    columns: &ColumnNames,
    max_pixels: u64,
) -> Result<Vec<Sample>, CliError> {
    let set = read_all(sources, columns, max_pixels).await?;
    if let Some(first) = set.quarantined.first() {
        eprintln!(
            "warning: {} rows are left out; the first is row {} of row group {} of {}: {}",
            set.quarantined.len(),
            first.row,
            first.row_group,
            first.file,
            first.reason
        );
    }
    if set.not_downloaded > 0 {
        eprintln!("{} rows were not downloaded and are passed over", set.not_downloaded);
    }
    Ok(set.samples)
}

/// Retrieval, without a CLIP to compare with.
pub(crate) fn retrieval_scores(measured: Retrieval) -> RetrievalScores {
    RetrievalScores {
        ours: measured.recall,
        clip: None,
        chance: measured.chance,
        names: measured.texts,
        pictures: measured.images,
    }
}

/// Retrieval by the frozen CLIP in a folder.
pub(crate) fn clip_recall(
    folder: &str,
    train: &StepSettings,
    samples: &[Sample],
) -> Result<[f64; 3], CliError> {
    Ok(evaluate::clip_retrieval(folder.as_ref(), train, samples)?.recall)
}
