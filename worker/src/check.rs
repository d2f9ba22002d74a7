//! What can be known of a run before it is begun: whether its parts fit together and its corpus can be read.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use blip2_dataset::corpus::manifest::Manifest;
use blip2_dataset::loader::{Loader, LoaderSpec};
use blip2_dataset::plan::{Plan, PlanKey};
use blip2_evaluation::fault::Fault as _;
use blip2_images::transform::TrainTransform;
use blip2_model::vision::{EncoderSizes, ImageEncoder};
use blip2_model_files::weights::WeightSource;
use blip2_tensors::device::placement::Placement;
use blip2_tensors::device::{DeviceName, Present};
use blip2_tensors::train::flat::{FlatLayout, FlatTensor};

use crate::config::WorkerConfig;
use crate::config::stage::NumberedStage;
use crate::config::valid::ValidConfig;
use crate::error::{Result, WorkerError};
use crate::frozen_models::FrozenModels;
use crate::state::{empty_model, is_of_encoder};
use crate::task::TaskSettings;
use crate::task::export::Layout;
use crate::text_half::{TextHalf, not_named};

/// Side of the pictures that are read to see whether they can be.
const TRIAL_PIXELS: usize = 32;

/// Which of the run's device and models this is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The workers are on this machine.
    Here,
    /// They are elsewhere, and so are their devices.
    Elsewhere,
}

/// Whether a run of this configuration on this corpus can begin: device, model folders, tokenizers and shapes
/// fit, and a row can be read. No weights are read, and nothing is written; it takes a moment. Blocks;
/// `runtime` reads the corpus.
///
/// # Errors
/// [`WorkerError::Configuration`] names the key; otherwise the corpus' error.
pub fn check(
    config: &ValidConfig,
    manifest: Arc<Manifest>,
    runtime: tokio::runtime::Handle,
    place: Place,
    within: Duration,
) -> Result<()> {
    if place == Place::Here {
        check_device(&config.train.device)?;
    }
    // What lies elsewhere is looked at where it is fetched.
    let text_halves = config.text_halves().map(|(_, place)| place);
    if config.model.folders().chain(text_halves).any(|folder| folder.contains("://")) {
        return Ok(());
    }
    let frozen = check_models(config)?;
    if let Some(told) = exported_alone(config) {
        tracing::warn!("{told}");
    }
    check_row(config, &frozen, manifest, runtime, within)
}

/// What a run cannot be exported as, since no folder of `transformers` has a place for its image encoder.
pub(crate) fn exported_alone(config: &WorkerConfig) -> Option<String> {
    let folder = config.model.image_encoder.as_str();
    let sizes = ImageEncoder::sizes_of(Path::new(folder)).ok()?;
    let without = |task: &TaskSettings| task.layouts().iter().any(|layout| *layout != Layout::Lavis);
    let stage = config.trained_stages().find(|stage| without(&stage.settings.task))?;
    matches!(sizes, EncoderSizes::Clip(_)).then(|| {
        format!(
            "model.image_encoder = \"{folder}\" has CLIP's layout, which `transformers`' BLIP-2 cannot express: what stage \
             `{}` trains can be exported with `--layout lavis` and as no folder; for one train with an encoder in the EVA \
             layout",
            stage.name()
        )
    })
}

/// Whether the device is there; it is not opened.
fn check_device(name: &str) -> Result<()> {
    let refused = |error| WorkerError::Configuration(format!("train.device = {error}"));
    let name: DeviceName = name.parse().map_err(refused)?;
    if name != DeviceName::Cpu {
        name.decide(&Present::probe()).map_err(refused)?;
    }
    Ok(())
}

/// Whether the model folders hold what the configuration makes of them.
fn check_models(config: &WorkerConfig) -> Result<FrozenModels> {
    let frozen = config.frozen_models_at(&Placement::nowhere())?;
    let device = frozen.device.clone().autodiff();
    let (bert, init) = (config.model.qformer_init.as_str(), config.model.init_checkpoint.as_str());
    if !bert.is_empty() {
        WeightSource::open_bert(Path::new(bert))
            .map_err(|error| WorkerError::of_model("model.qformer_init", bert, error))?;
    }
    let mut beginning = None;
    if !init.is_empty() {
        let source = WeightSource::open_published(Path::new(init));
        beginning =
            Some(source.map_err(|error| WorkerError::of_model("model.init_checkpoint", init, error))?);
    }
    let mut before: Option<FlatLayout> = None;
    for stage in config.trained_stages() {
        let layout = empty_model(&stage, config, frozen.sizes, &device)?.tensors().layout()?;
        match (&before, &beginning) {
            (Some(before), _) => {
                let origin = "the stage before";
                check_text_half(&stage, &layout, origin, |tensor| before.get(tensor).is_some())?;
            }
            (None, Some(init)) => {
                check_text_half(&stage, &layout, "model.init_checkpoint", |tensor| init.contains(tensor))?;
            }
            (None, None) => {}
        }
        before = Some(layout);
    }
    Ok(frozen)
}

/// Whether the parts for texts that a stage continues with are there, in what comes before it or in its text
/// half.
fn check_text_half(
    stage: &NumberedStage,
    layout: &FlatLayout,
    origin: &str,
    is_before: impl Fn(&str) -> bool,
) -> Result<()> {
    if stage.settings.task.trained().text_half().is_none() {
        return Ok(());
    }
    // Adapters begin as nothing; an image encoder that no weights have is that of its own file.
    let names = stage.settings.task.trained().weight_names();
    let begins_anew = |tensor: &str| is_of_encoder(tensor) || names.may_begin_anew(tensor);
    let is_missing = |tensor: &&FlatTensor| !is_before(&tensor.name) && !begins_anew(&tensor.name);
    let missing: Vec<&FlatTensor> = layout.tensors().iter().filter(is_missing).collect();
    let [first, ..] = &missing[..] else { return Ok(()) };
    match TextHalf::open(stage)? {
        Some(text_half) => missing.iter().try_for_each(|tensor| text_half.expect(tensor)),
        None => Err(not_named(stage, origin, missing.len(), layout.tensors().len(), &first.name)),
    }
}

/// Whether a row of the corpus can be read, decoded and cut into tokens, by the very code that reads it in
/// training: one that cannot be used is replaced like any other.
pub(crate) fn check_row(
    config: &WorkerConfig,
    frozen: &FrozenModels,
    manifest: Arc<Manifest>,
    runtime: tokio::runtime::Handle,
    within: Duration,
) -> Result<()> {
    let stage = config.first_stage()?;
    let key = PlanKey { seed: config.train.seed, stage: stage.number };
    let plan = Plan::new(&manifest, key, config.train.slots, config.data.window_row_groups)?;
    let spec = LoaderSpec {
        manifest,
        plan: Arc::new(plan),
        columns: stage.settings.task.columns(&config.data.columns),
        slots: 0..1,
        batch_per_slot: 1,
        slots_total: config.train.slots,
        first_step: 0,
        last_step: 1,
        seed: config.train.seed,
        stage: stage.number,
        image: TrainTransform::new(TRIAL_PIXELS, config.data.crop_scale, config.data.flip),
        text: stage.settings.task.trained().encoder(frozen, stage.number)?,
        max_pixels: config.data.max_pixels,
        settings: config.loader.clone(),
    };
    Loader::start(runtime, spec)?.next(within)?;
    Ok(())
}
