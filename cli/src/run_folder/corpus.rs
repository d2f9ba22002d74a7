//! The corpus of a run, and its held-out rows.

use std::time::{Duration, Instant};

use blip2_dataset::corpus::ingest::{ArchiveConversion, Converted};
use blip2_dataset::corpus::manifest::Manifest;
use blip2_run::layout;
use blip2_store::Location;

use super::stored::stored_manifest;
use crate::config::RunConfig;
use crate::error::CliError;

/// Between two words on how far archives are converted.
const CONVERTING_SAYS_EVERY: Duration = Duration::from_secs(5);
/// Footers read between two words on how far it has got.
const FILES_PER_WORD: usize = 1000;

/// The corpus as it is now, with the Parquet of its archives in their place. Of a run that has pinned such
/// Parquet, what it has pinned: the archives are needed no more.
pub(super) async fn corpus(root: &Location, config: &RunConfig, pinned: bool) -> Result<Manifest, CliError> {
    let folder = match config.run.converted.as_str() {
        "" => root.join(layout::CONVERTED),
        named => Location::parse(named.trim_end_matches('/'))?,
    };
    let below = format!("{folder}/");
    if pinned && root.join(layout::MANIFEST).head().await?.is_some() {
        let manifest = stored_manifest(root).await?;
        if manifest.files.iter().any(|file| file.location.starts_with(&below)) {
            return Ok(manifest);
        }
    }
    let conversion = ArchiveConversion {
        folder: folder.clone(),
        max_pixels: config.data.max_pixels,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        max_rejected_share: config.data.max_quarantined_share,
    };
    let mut said = None::<Instant>;
    let told = |done: &Converted, total: u64| {
        if done.archives == 0 {
            eprintln!("archives are trained on as Parquet: each of {total} is converted once, in {folder}");
            said = Some(Instant::now());
        } else if done.archives == total {
            eprintln!("converted: {done} ({} of them before this start)", done.known);
        } else if said.is_some_and(|said| said.elapsed() >= CONVERTING_SAYS_EVERY) {
            eprintln!("converting: {} of {total} archives, {} rows", done.archives, done.rows);
            said = Some(Instant::now());
        }
    };
    let (sources, _) = conversion.apply(&config.data.corpus(), told).await?;
    let opened = |done: usize, total: usize| {
        if done.is_multiple_of(FILES_PER_WORD) || done == total {
            tracing::info!(done, total, "footers read");
        }
    };
    Ok(Manifest::open_sources(&sources, &config.columns(), &opened).await?)
}

/// Whether the held-out rows are there, if the run is evaluated on any.
pub(super) async fn check_held_out(config: &RunConfig) -> Result<(), CliError> {
    if config.eval.while_training.every_steps == 0 {
        return Ok(());
    }
    let named =
        |error: CliError| CliError::Reported { exit: error.exit(), message: format!("eval.data: {error}") };
    let manifest = Manifest::open(&config.eval.while_training.data, &config.columns()).await;
    let manifest = manifest.map_err(|error| named(error.into()))?;
    let rows: u64 =
        manifest.files.iter().flat_map(|file| &file.row_groups).map(|rows| u64::from(*rows)).sum();
    match rows {
        0 | 1 => Err(named(CliError::BadInput(format!("{rows} rows; two are needed to tell them apart")))),
        _ => Ok(()),
    }
}

/// What is to be said of a corpus that is smaller than a batch: the batch holds images more than once, and a
/// contrastive loss pushes an image away from its own caption.
pub(super) fn smaller_than_a_batch(config: &RunConfig, rows: u64) -> Vec<String> {
    let small = config.trained_stages().filter(|stage| rows < u64::from(stage.settings.batch));
    let said = small.map(|stage| {
        let harm = match stage.settings.task.contrasts() {
            true => ", which the contrastive loss takes for one that does not belong to its own caption",
            false => "",
        };
        let (number, batch, key) = (stage.number, stage.settings.batch, RunConfig::key_of_stage(stage.name()));
        format!(
            "the corpus has {rows} rows, fewer than a batch of stage {number} has samples ({batch}): a batch holds a picture \
             more than once{harm}; add data to data.train, or lower {key}.batch and train.slots"
        )
    });
    said.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corpus_smaller_than_a_batch_is_said() {
        let mut config = RunConfig::default();
        config.stages.iter_mut().for_each(|stage| stage.steps = 1);
        (config.stages[0].batch, config.stages[1].batch) = (64, 32);
        assert!(smaller_than_a_batch(&config, 64).is_empty());
        let said = smaller_than_a_batch(&config, 63);
        assert!(
            said.len() == 1 && said[0].contains("63 rows") && said[0].contains("stage1.batch"),
            "{said:?}"
        );
        assert_eq!(smaller_than_a_batch(&config, 31).len(), 2);
        config.stages[0].steps = 0;
        assert!(smaller_than_a_batch(&config, 31)[0].contains("stage2.batch"));
    }
}
