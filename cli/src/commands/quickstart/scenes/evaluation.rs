//! A finished run of scenes on held-out ones: captions by what is exported on the way, retrieval by the first
//! stage, and where the queries look.

use std::path::{Path, PathBuf};

use blip2_dataset::corpus::samples::Sample;
use blip2_evaluation::captioning::Captioner;
use blip2_images::RgbImage;
use blip2_model::language::generation::GenerateOptions;
use blip2_pages::quickstart_page::{CaptionLosses, RetrievalScores};
use blip2_pages::scenes_page::{AttendedScene, CaptionShares};
use blip2_scenes::files::table_path;
use blip2_scenes::split::Split;
use blip2_tensors::device::DeviceError;
use blip2_worker::evaluate::{Evaluator, Scores};
use blip2_worker::export::{ExportOptions, Layout, Precision, export as write_layout};

use super::attended::spotlight;
use super::judge::{Judged, Shown, shares, shares_by_kind};
use crate::commands::eval::held_out::{self, retrieval_scores};
use crate::commands::quickstart::ends::{StageEnd, caption_losses, ends_of, evenly, png};
use crate::config::RunConfig;
use crate::error::CliError;

/// Captions that are told apart.
const CAPTIONS: usize = 500;
/// Scenes of each other split that are captioned.
const OTHERS: usize = 200;
/// Images of which the page shows where the queries look.
const ATTENDED: usize = 4;

/// What the page shows of it.
#[derive(Debug, Clone, Default)]
pub(super) struct RunEvaluation {
    pub(super) retrieval: RetrievalScores,
    pub(super) caption_losses: Option<CaptionLosses>,
    /// Captions of held-out combinations.
    pub(super) captions: Vec<Judged>,
    pub(super) shares: Vec<CaptionShares>,
    pub(super) attention: Vec<AttendedScene>,
    /// BLAKE3 of the newest checkpoint's parameters.
    pub(super) digest: String,
}

/// Scenes to be measured on.
struct HeldOut {
    combinations: Vec<Shown>,
    validation: Vec<Shown>,
    drawings: Vec<Shown>,
}

impl HeldOut {
    async fn read(config: &RunConfig, data: &Path) -> Result<Self, CliError> {
        let of = async |file: String, most: usize| -> Result<Vec<Shown>, CliError> {
            let samples = held_out::samples(&[file], &config.data.columns, config.data.max_pixels).await?;
            let mut shown = Shown::distinct(samples)?;
            shown.truncate(most);
            Ok(shown)
        };
        let file = |split| table_path(data, split).display().to_string();
        Ok(Self {
            combinations: of(file(Split::Combinations), CAPTIONS).await?,
            validation: of(file(Split::Validation), OTHERS).await?,
            drawings: of(file(Split::Drawings), OTHERS).await?,
        })
    }
}

/// Exports the run's end to `export` and that of its first stage to `text_half`, and measures both on the
/// held-out scenes in `data`.
pub(super) async fn evaluate(
    config: &RunConfig,
    data: &Path,
    export: PathBuf,
    text_half: PathBuf,
) -> Result<RunEvaluation, CliError> {
    let scenes = HeldOut::read(config, data).await?;
    let ends = ends_of(config).await?;
    let mut config = config.clone();
    config.model = config.worker().with_models_here().await?.model;
    tokio::task::spawn_blocking(move || compute(&config, &ends, scenes, &export, &text_half))
        .await
        .map_err(|error| CliError::failed(format!("the evaluation thread failed: {error}")))?
}

fn compute(
    config: &RunConfig,
    ends: &[StageEnd],
    scenes: HeldOut,
    export: &Path,
    text_half: &Path,
) -> Result<RunEvaluation, CliError> {
    let worker = config.worker();
    let mut evaluation = RunEvaluation::default();
    let samples: Vec<Sample> = scenes.combinations.iter().map(|shown| shown.sample.clone()).collect();
    for (stage, state) in ends {
        match Evaluator::open(&worker)?.scores(stage, state, &samples)? {
            Scores::Retrieval(scores) => {
                evaluation.retrieval = retrieval_scores(scores);
                let exact = ExportOptions { precision: Precision::F32, ..ExportOptions::default() };
                write_layout(&worker, stage, state, Layout::Lavis, &exact, text_half)?;
            }
            Scores::Captions(losses) => evaluation.caption_losses = Some(caption_losses(losses)),
            // Questions are a run of their own.
            Scores::Answers(_) => {}
        }
    }
    // What writes captions is what others load.
    let writes = |(stage, _): &&StageEnd| stage.settings.task.layouts().contains(&Layout::HuggingFace);
    if let Some((stage, state)) = ends.iter().rev().find(writes) {
        write_layout(&worker, stage, state, Layout::HuggingFace, &ExportOptions::default(), export)?;
        let wrong = |error: DeviceError| CliError::config(error.to_string());
        let captioner = Captioner::open(export, config.train.device.parse().map_err(wrong)?, None)?;
        let prompt = stage.settings.task.prompt();
        let judged = |shown| captioned(config, prompt, shown, &captioner);
        let captions = judged(scenes.combinations)?;
        evaluation.shares = shares_by_kind("held-out combinations", &captions);
        evaluation.shares.push(shares("combinations that training shows", judged(scenes.validation)?.iter()));
        evaluation.shares.push(shares("drawings that training never shows", judged(scenes.drawings)?.iter()));
        evaluation.attention = attended(&captions, &captioner)?;
        evaluation.captions = captions;
    }
    evaluation.digest = ends.last().map(|(_, state)| state.digest()).unwrap_or_default();
    Ok(evaluation)
}

/// Captions by the exported folder, so that the page shows what others will load.
fn captioned(
    config: &RunConfig,
    prompt: &str,
    shown: Vec<Shown>,
    captioner: &Captioner,
) -> Result<Vec<Judged>, CliError> {
    let images: Vec<RgbImage> = shown.iter().map(|shown| shown.image().clone()).collect();
    let options = GenerateOptions {
        beams: config.eval.beams,
        max_new_tokens: config.eval.max_new_tokens,
        ..GenerateOptions::default()
    };
    let captions = captioner.captions(&images, prompt, &options)?;
    Ok(shown
        .into_iter()
        .zip(captions)
        .map(|(shown, caption)| Judged { shown, written: caption.text })
        .collect())
}

fn attended(captions: &[Judged], captioner: &Captioner) -> Result<Vec<AttendedScene>, CliError> {
    let chosen = evenly(captions, ATTENDED);
    let images: Vec<RgbImage> = chosen.iter().map(|judged| judged.shown.image().clone()).collect();
    let attention = captioner.attention(&images)?;
    let lit = |image: &RgbImage, queries: &[Vec<f32>]| -> Result<Vec<Vec<u8>>, CliError> {
        queries.iter().map(|patches| png(&spotlight(image, patches))).collect()
    };
    chosen
        .into_iter()
        .zip(&attention)
        .map(|(judged, queries)| {
            let (caption, image) = (judged.shown.caption().to_owned(), judged.shown.image());
            Ok(AttendedScene { caption, png: png(image)?, queries: lit(image, queries)? })
        })
        .collect()
}
