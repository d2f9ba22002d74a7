//! The quick start's finished run on held-out images; what is exported on the way writes the captions.

use std::path::{Path, PathBuf};

use blip2_dataset::corpus::samples::Sample;
use blip2_evaluation::captioning::Captioner;
use blip2_images::RgbImage;
use blip2_model::language::generation::GenerateOptions;
use blip2_pages::quickstart_page::{CaptionLosses, CaptionedPicture, RetrievalScores};
use blip2_tensors::device::DeviceError;
use blip2_worker::evaluate::{Evaluator, Scores};
use blip2_worker::export::{ExportOptions, Layout, export as write_layout};
use blip2_worker::model_here;

use crate::commands::eval::held_out::{self, clip_recall, retrieval_scores};
use crate::commands::quickstart::ends::{StageEnd, caption_losses, ends_of, evenly, png};
use crate::config::RunConfig;
use crate::error::CliError;

/// What the report shows of it.
#[derive(Debug, Default)]
pub(super) struct RunEvaluation {
    pub(super) retrieval: RetrievalScores,
    pub(super) caption_losses: Option<CaptionLosses>,
    pub(super) images: Vec<CaptionedPicture>,
    /// BLAKE3 of the newest checkpoint's parameters.
    pub(super) digest: String,
}

/// Exports the run's end to `export` and measures all stages on the held-out files of the configuration.
pub(super) async fn evaluate(config: &RunConfig, export: PathBuf) -> Result<RunEvaluation, CliError> {
    let samples = held_out::samples(&config.eval.test, &config.data.columns, config.data.max_pixels).await?;
    let ends = ends_of(config).await?;
    let mut config = config.clone();
    config.model = config.worker().with_models_here().await?.model;
    config.eval.clip = model_here("eval.clip", &config.eval.clip).await?;
    tokio::task::spawn_blocking(move || compute(&config, &ends, &samples, &export))
        .await
        .map_err(|error| CliError::failed(format!("the evaluation thread failed: {error}")))?
}

fn compute(
    config: &RunConfig,
    ends: &[StageEnd],
    samples: &[Sample],
    export: &Path,
) -> Result<RunEvaluation, CliError> {
    let worker = config.worker();
    let mut evaluation = RunEvaluation::default();
    for (stage, state) in ends {
        match Evaluator::open(&worker)?.scores(stage, state, samples)? {
            Scores::Retrieval(scores) => {
                evaluation.retrieval = retrieval_scores(scores);
                if !config.eval.clip.is_empty() {
                    evaluation.retrieval.clip = Some(clip_recall(&config.eval.clip, &config.train, samples)?);
                }
            }
            Scores::Captions(losses) => evaluation.caption_losses = Some(caption_losses(losses)),
            // The quick start trains no such stage.
            Scores::Answers(_) => {}
        }
    }
    // What writes captions is what others load.
    let writes = |(stage, _): &&StageEnd| stage.settings.task.layouts().contains(&Layout::HuggingFace);
    if let Some((stage, state)) = ends.iter().rev().find(writes) {
        write_layout(&worker, stage, state, Layout::HuggingFace, &ExportOptions::default(), export)?;
        evaluation.images = captioned(config, stage.settings.task.prompt(), samples, export)?;
    }
    evaluation.digest = ends.last().map(|(_, state)| state.digest()).unwrap_or_default();
    Ok(evaluation)
}

/// Captions by the exported folder, so that the report shows what others will load.
fn captioned(
    config: &RunConfig,
    prompt: &str,
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
    let captions = Captioner::open(export, device, None)?.captions(&images, prompt, &options)?;
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
