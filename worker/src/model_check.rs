//! What the models of a configuration are, and whether they fit: from names, sizes and headers; no weights
//! are read.

use std::path::Path;

use blip2_evaluation::model_folder::{PartReport, TokenizerReport};
use blip2_model::language::LanguageModel;
use blip2_model::vision::{EncoderSizes, ImageEncoder, expect_with_positions};
use blip2_model_files::config::FolderConfig;
use blip2_model_files::tokenizer::{QFormerTokenizer, TokenizerKind};
use blip2_model_files::weights::WeightSource;
use blip2_store::secret_url::redacted;
use blip2_tensors::train::flat::FlatLayout;
use burn::tensor::Device;
use serde::Serialize;

use crate::config::WorkerConfig;
use crate::config::stage::NumberedStage;
use crate::frozen_models::FrozenSizes;
use crate::image_sizes;
use crate::open::qformer_vocabulary;
use crate::published_sizes::compare_folder;
use crate::settings::model::FrozenDtype;
use crate::settings::train::Compute;
use crate::state::{empty_model, is_of_encoder};
use crate::task::TaskModel;
use crate::text_half::{TextHalf, key_of, not_named};

/// All models of a configuration.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ModelCheck {
    /// The parts, frozen and trained.
    pub parts: Vec<PartReport>,
    /// What each stage trains.
    pub trained: Vec<TrainedReport>,
    /// The numbers that a training computes in.
    pub precision: Option<Precision>,
}

/// The numbers that a training computes in, as its configuration says.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Precision {
    /// Of the products of what is trained: `train.compute`.
    pub compute: Compute,
    /// Of the frozen models: `model.frozen_dtype`.
    pub frozen_dtype: FrozenDtype,
}

/// What a stage trains.
#[derive(Debug, Clone, Serialize)]
pub struct TrainedReport {
    /// The stage's number in the list, from 1.
    pub stage: u32,
    /// Its name.
    pub name: String,
    /// Its task.
    pub task: &'static str,
    /// Tensors.
    pub tensors: usize,
    /// Their elements.
    pub parameters: usize,
}

impl ModelCheck {
    /// Everything that does not fit, each with its key.
    pub fn problems(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.parts.iter().flat_map(|part| part.problems.iter().map(|problem| (part.key, problem.as_str())))
    }
}

/// Looks at every model of a training configuration. Models at URLs must be here already
/// ([`WorkerConfig::with_models_here`]); `named` is the configuration with their places as they were written.
pub fn check_models(config: &WorkerConfig, named: &WorkerConfig) -> ModelCheck {
    let precision = Precision { compute: config.train.compute, frozen_dtype: config.model.frozen_dtype };
    let mut check = ModelCheck { precision: Some(precision), ..ModelCheck::default() };
    let encoder = check_encoder(config, named, &mut check);
    let vocabulary = check_tokenizer(config, named, &mut check);
    let language = match config.needs().language_model {
        true => check_language_model(config, named, &mut check),
        false => Some(0),
    };
    // Without its frozen parts nothing can be said of the Q-Former; with a width of their own at least its
    // other sizes.
    let sizes = FrozenSizes {
        image_width: encoder.unwrap_or(1),
        vocab: vocabulary.unwrap_or(1),
        language_width: language.unwrap_or(1).max(1),
    };
    let whole = encoder.is_some() && vocabulary.is_some() && language.is_some();
    check_qformer(config, named, sizes, whole, &mut check);
    check
}

fn check_encoder(config: &WorkerConfig, named: &WorkerConfig, check: &mut ModelCheck) -> Option<usize> {
    let place = config.model.image_encoder.as_str();
    let mut report = PartReport::open("image encoder", "model.image_encoder", place);
    report.place = redacted(&named.model.image_encoder);
    let mut width = None;
    if report.is_there() {
        let path = Path::new(place);
        let sizes = report.note(ImageEncoder::sizes_of(path));
        if let Some(sizes) = &sizes {
            width = Some(sizes.width());
            let (layout, layers) = match sizes {
                EncoderSizes::Eva(sizes) => ("EVA", sizes.depth),
                EncoderSizes::Clip(sizes) => ("CLIP", sizes.depth.saturating_sub(1)),
            };
            let pixels = match config.model.image_size {
                0 => sizes.image_size(),
                pixels => pixels,
            };
            report.kind = format!("{layout}, {layers} layers of width {}, {pixels} pixels", sizes.width());
            let mut note = |key: &str, pixels| {
                let reason = image_sizes::unusable(pixels, sizes);
                report.problems.extend(reason.map(|reason| format!("{key} = {pixels}: {reason}")));
            };
            note("model.image_size", pixels);
            for stage in config.trained_stages().filter(|stage| stage.settings.image_size > 0) {
                let (name, pixels) = (stage.name(), stage.settings.image_size);
                note(&format!("stages.{name}.image_size"), pixels);
                report.kind += &format!(", {pixels} in stage {name}");
            }
        }
        report.parameters = report.note(ImageEncoder::check(path)).map(|fit| fit.parameters);
        report.list_weights(path);
    }
    check.parts.push(report);
    width
}

fn check_tokenizer(config: &WorkerConfig, named: &WorkerConfig, check: &mut ModelCheck) -> Option<usize> {
    let place = config.model.qformer_tokenizer.as_str();
    let mut report = PartReport::open("Q-Former's tokenizer", "model.qformer_tokenizer", place);
    report.place = redacted(&named.model.qformer_tokenizer);
    let mut vocabulary = None;
    if report.is_there() {
        let path = Path::new(place);
        let text = report.note(qformer_vocabulary(&config.model));
        if let (Some((tokens, _)), Ok(files)) = (text, QFormerTokenizer::open(path)) {
            vocabulary = Some(tokens);
            let kind =
                TokenizerKind::of(files.origin.parent().unwrap_or(path)).map(|(kind, _)| format!("{kind:?}"));
            report.tokenizer = Some(TokenizerReport {
                kind: kind.unwrap_or_default(),
                tokens,
                added: files.added.map(|id| format!("[DEC] as token {id}, as LAVIS does")),
                file: files.origin,
            });
        }
    }
    check.parts.push(report);
    vocabulary
}

fn check_language_model(
    config: &WorkerConfig,
    named: &WorkerConfig,
    check: &mut ModelCheck,
) -> Option<usize> {
    let place = config.model.language_model.as_str();
    let mut report = PartReport::open("language model", "model.language_model", place);
    report.place = redacted(&named.model.language_model);
    let mut width = None;
    if report.is_there() {
        let path = Path::new(place);
        width = report.note(LanguageModel::width_of(path));
        if let Ok(folder) = FolderConfig::open(path) {
            let family = folder.language_model().1.to_owned();
            report.kind = width.map_or(family.clone(), |width| format!("{family}, width {width}"));
        }
        report.parameters = report.note(LanguageModel::check(path)).map(|fit| fit.parameters);
        report.list_weights(path);
        let texts = config.language_texts();
        let longest = texts.iter().map(|texts| texts.text_length).max().unwrap_or_default();
        report.note_tokenizer(path, longest);
    }
    check.parts.push(report);
    width
}

/// What begins the Q-Former, and what the stages train.
fn check_qformer(
    config: &WorkerConfig,
    named: &WorkerConfig,
    sizes: FrozenSizes,
    whole: bool,
    check: &mut ModelCheck,
) {
    // Its tensors are made when they are first used: here never.
    let device = Device::flex();
    let mut own = PartReport { part: "Q-Former", key: "model.qformer", ..PartReport::default() };
    own.place = "trained".into();
    let sizes_of = &config.model.qformer;
    own.kind = format!(
        "{} layers of width {}, {} queries, {} heads",
        sizes_of.layers, sizes_of.hidden, sizes_of.queries, sizes_of.heads
    );
    let mut models = Vec::new();
    for stage in config.trained_stages() {
        let Some(mut model) = own.note(empty_model(&stage, config, sizes, &device)) else { continue };
        if whole && let Some(layout) = own.note(model.tensors().layout()) {
            let (tensors, parameters) = (layout.tensors().len(), layout.len());
            let (name, task) = (stage.name().to_owned(), stage.settings.task.name());
            check.trained.push(TrainedReport { stage: stage.number, name, task, tensors, parameters });
        }
        models.push((stage, model));
    }
    let fits = own.problems.is_empty() && whole;
    check.parts.push(own);
    if config.needs().bert && !config.model.qformer_init.is_empty() {
        let takes = models.iter_mut().find(|(stage, _)| stage.settings.task.needs().bert).filter(|_| fits);
        check.parts.push(check_bert(config, named, takes.map(|(_, model)| model)));
    }
    if let (false, Ok(first)) = (config.model.init_checkpoint.is_empty(), config.first_stage()) {
        let model = models.into_iter().next().filter(|_| fits).map(|(_, model)| model);
        let (init, text_half) = check_init(config, named, &first, model);
        check.parts.push(init);
        check.parts.extend(text_half);
    }
}

/// The BERT that `model` begins from.
fn check_bert(
    config: &WorkerConfig,
    named: &WorkerConfig,
    model: Option<&mut Box<dyn TaskModel>>,
) -> PartReport {
    let place = config.model.qformer_init.as_str();
    let mut report = PartReport::open("Q-Former's beginning", "model.qformer_init", place);
    report.place = redacted(&named.model.qformer_init);
    if report.is_there()
        && let Some(bert) = report.note(WeightSource::open_bert(Path::new(place)))
    {
        report.kind = "BERT".into();
        report.list(&bert);
        if let Some(model) = model {
            report.note(model.check_bert(&bert));
        }
    }
    report
}

/// The checkpoint that the run's first stage begins from, and the weights that it takes the parts for texts
/// from, if it names some.
fn check_init(
    config: &WorkerConfig,
    named: &WorkerConfig,
    first: &NumberedStage,
    model: Option<Box<dyn TaskModel>>,
) -> (PartReport, Option<PartReport>) {
    let place = config.model.init_checkpoint.as_str();
    let mut report = PartReport::open("checkpoint to start from", "model.init_checkpoint", place);
    report.place = redacted(&named.model.init_checkpoint);
    let mut half = open_text_half(config, named, first);
    if report.is_there()
        && let Some(source) = report.note(WeightSource::open_published(Path::new(place)))
    {
        report.kind = format!("beginning of stage {} ({})", first.number, first.name());
        report.list(&source);
        report.note(compare_folder(&config.model, Path::new(place)));
        if let Some(layout) = model.and_then(|mut model| report.note(model.tensors().layout())) {
            note_beginning(&mut report, first, &layout, &source, half.as_mut());
        }
    }
    (report, half.map(|(report, _)| report))
}

/// A report with what it is of.
type TextHalfReport = (PartReport, Option<TextHalf>);

/// The weights that a stage names for the Q-Former's parts for texts, if it names some.
fn open_text_half(
    config: &WorkerConfig,
    named: &WorkerConfig,
    stage: &NumberedStage,
) -> Option<TextHalfReport> {
    let key = key_of(stage.name());
    let place = |config: &WorkerConfig| {
        config.text_halves().find(|(found, _)| *found == key).map(|(_, place)| place.to_owned())
    };
    let mut report = PartReport::open("parts for texts", "text_half", &place(config)?);
    report.place = redacted(&place(named).unwrap_or_default());
    report.kind = format!("of stage {} ({})", stage.number, stage.name());
    let opened = if report.is_there() { report.note(TextHalf::open(stage)).flatten() } else { None };
    if let Some(opened) = &opened {
        report.list(opened.source());
    }
    Some((report, opened))
}

/// The tensors of a stage that a checkpoint must have; those that only this stage has may begin anew, parts
/// for texts may be elsewhere, and an image encoder is that of its own file.
fn note_beginning(
    report: &mut PartReport,
    stage: &NumberedStage,
    layout: &FlatLayout,
    source: &WeightSource,
    text_half: Option<&mut TextHalfReport>,
) {
    let names = stage.settings.task.trained().weight_names();
    let mut missing = Vec::new();
    for tensor in layout.tensors() {
        if source.contains(&tensor.name) {
            report.note(expect_with_positions(source, &tensor.name, &tensor.shape));
        } else if !names.may_begin_anew(&tensor.name) && !is_of_encoder(&tensor.name) {
            missing.push(tensor);
        }
    }
    let [first, ..] = missing.as_slice() else { return };
    let tensors = layout.tensors().len();
    match text_half {
        Some((report, text_half)) => {
            // The first that is missing says what is wrong with all.
            if let Some(half) = text_half {
                report.note(missing.iter().try_for_each(|tensor| half.expect(tensor)));
            }
        }
        None if stage.settings.task.trained().text_half().is_some() => {
            report.problems.push(not_named(stage, "it", missing.len(), tensors, &first.name).to_string());
        }
        None => report.problems.push(format!(
            "it lacks {} of {tensors} tensors, `{}` first: is it a checkpoint of this model?",
            missing.len(),
            first.name,
        )),
    }
}
