//! The quick start's finished run on held-out images; what is exported on the way writes the captions.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use blip2_dataset::corpus::samples::Sample;
use blip2_dataset::image::RgbImage;
use blip2_evaluation::captioning::Captioner;
use blip2_model::device::DeviceError;
use blip2_model::language::generation::GenerateOptions;
use blip2_worker::export::{ExportOptions, Layout, export as write_layout};
use blip2_worker::{NamedState, model_here};
use image::ImageFormat;

use crate::commands::checkpoint::{Target, read_state};
use crate::commands::eval::{
    CAPTION_STAGE, RETRIEVAL_STAGE, caption_losses, clip_recall, held_out, retrieval_scores,
};
use crate::config::RunConfig;
use crate::error::CliError;
use crate::report::{CaptionLosses, CaptionedPicture, RetrievalScores};

/// What the report shows of it.
#[derive(Debug, Default)]
pub(super) struct RunEvaluation {
    pub(super) retrieval: RetrievalScores,
    pub(super) caption_losses: Option<CaptionLosses>,
    pub(super) images: Vec<CaptionedPicture>,
    /// BLAKE3 of the newest checkpoint's parameters.
    pub(super) digest: String,
}

/// The ends of the stages that were trained.
struct StageEnds {
    stage1: Option<NamedState>,
    stage2: Option<NamedState>,
}

/// Exports the run's end to `export` and measures both stages on the held-out files of the configuration.
pub(super) async fn evaluate(config: &RunConfig, export: PathBuf) -> Result<RunEvaluation, CliError> {
    let samples = held_out(&config.eval.test, &config.data.columns, config.data.max_pixels).await?;
    let ends = StageEnds {
        stage1: end_of(config, RETRIEVAL_STAGE, config.stage1.steps).await?,
        stage2: end_of(config, CAPTION_STAGE, config.stage2.steps).await?,
    };
    let mut config = config.clone();
    config.model = config.worker().with_models_here().await?.model;
    config.eval.clip = model_here("eval.clip", &config.eval.clip).await?;
    tokio::task::spawn_blocking(move || compute(&config, &ends, &samples, &export))
        .await
        .map_err(|error| CliError::failed(format!("the evaluation thread failed: {error}")))?
}

async fn end_of(config: &RunConfig, stage: u32, steps: u64) -> Result<Option<NamedState>, CliError> {
    if steps == 0 {
        return Ok(None);
    }
    let target = Target::resolve(&config.run.root).await?;
    let record = target.record_of_stage(stage).await?;
    Ok(Some(read_state(&target.root, &record).await?))
}

fn compute(
    config: &RunConfig,
    ends: &StageEnds,
    samples: &[Sample],
    export: &Path,
) -> Result<RunEvaluation, CliError> {
    let worker = config.worker();
    let mut evaluation = RunEvaluation::default();
    if let Some(state) = &ends.stage1 {
        evaluation.retrieval = retrieval_scores(&worker, state, samples)?;
        if !config.eval.clip.is_empty() {
            evaluation.retrieval.clip = Some(clip_recall(&config.eval.clip, &config.train, samples)?);
        }
    }
    if let Some(state) = &ends.stage2 {
        evaluation.caption_losses = Some(caption_losses(&worker, state, samples)?);
        write_layout(&worker, state, Layout::HuggingFace, &ExportOptions::default(), export)?;
        evaluation.images = captioned(config, samples, export)?;
    }
    evaluation.digest =
        ends.stage2.as_ref().or(ends.stage1.as_ref()).map(NamedState::digest).unwrap_or_default();
    Ok(evaluation)
}

/// Captions by the exported folder, so that the report shows what others will load.
fn captioned(
    config: &RunConfig,
    samples: &[Sample],
    export: &Path,
) -> Result<Vec<CaptionedPicture>, CliError> {
    let shown = evenly(samples, config.eval.captions);
    let images: Vec<RgbImage> = shown.iter().map(|sample| sample.image.clone()).collect();
    let options = GenerateOptions {
        beams: config.eval.beams,
        max_new_tokens: config.eval.max_new_tokens,
        ..GenerateOptions::default()
    };
    let device =
        config.train.device.parse().map_err(|error: DeviceError| CliError::config(error.to_string()))?;
    let captions = Captioner::open(export, device)?.captions(&images, &config.stage2.prompt, &options)?;
    shown
        .into_iter()
        .zip(captions)
        .map(|(sample, caption)| {
            Ok(CaptionedPicture {
                bytes: png(&sample.image)?,
                media_type: "image/png",
                name: sample.captions.first().cloned().unwrap_or_default(),
                written: caption.text,
            })
        })
        .collect()
}

/// So many of the items, evenly spaced: neighbours show the same concept.
fn evenly<T>(items: &[T], count: usize) -> Vec<&T> {
    let count = count.min(items.len());
    (0..count).map(|index| &items[index * items.len() / count]).collect()
}

fn png(image: &RgbImage) -> Result<Vec<u8>, CliError> {
    let mut bytes = Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|error| CliError::failed(format!("a picture of the report cannot be encoded: {error}")))?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_taken_evenly() {
        let items: Vec<usize> = (0..540).collect();
        let taken = evenly(&items, 40);
        assert_eq!((taken.len(), *taken[0], *taken[1], *taken[39]), (40, 0, 13, 526));
        assert_eq!(evenly(&items[..3], 40).len(), 3);
        assert!(evenly(&items[..0], 40).is_empty());
    }

    #[test]
    fn images_become_png() {
        let image = RgbImage::from_pixel(4, 4, image::Rgb([1, 2, 3]));
        assert_eq!(&png(&image).unwrap()[1..4], b"PNG");
    }
}
