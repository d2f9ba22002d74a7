//! What a stage asks of its workers, from the sizes of its models.

use blip2_cost::card::Numbers;
use blip2_cost::units::{Bytes, Operations};
use blip2_cost::workload::{Bucket, Model, Part, Pass, Workload};
use blip2_model::adapters::{AdapterSizes, Adapters};
use blip2_model::language::{LanguageModel, LanguageSizes};
use blip2_model::objectives::flops::{self, BatchShape, PartFlops};
use blip2_model::objectives::kept::{self, Kept};
use blip2_model::trained_encoder::{TrainedEncoder, WithEncoder};
use blip2_model::vision::{EncoderSizes, ImageEncoder};
use blip2_model_files::error::ModelError;
use blip2_tensors::device::placement::Placement;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor};
use blip2_tensors::train::buckets::{BUCKET_ELEMENTS, GradientBucket, GradientBuckets};
use blip2_tensors::train::flat::FlatLayout;
use blip2_tensors::train::tape::Segment;
use burn::tensor::Device;

use super::models::Models;
use crate::config::WorkerConfig;
use crate::config::stage::NumberedStage;
use crate::error::{Result, WorkerError};
use crate::frozen_models::FrozenSizes;
use crate::settings::encoder::EncoderTraining;
use crate::settings::model::FrozenDtype;
use crate::settings::train::Compute;
use crate::state::trained_buckets;
use crate::task::Passes;

/// Share of the Q-Former's backward pass in which the heads' gradient is complete.
const HEADS: f64 = 0.05;

/// Numbers that a run's products have.
struct Computes {
    /// In the frozen models.
    frozen: Numbers,
    /// In what is trained.
    trained: Numbers,
    /// On the gradient's way through the language model.
    through: Numbers,
}

impl Computes {
    /// As a card computes that has bf16, as all known ones do.
    fn of(config: &WorkerConfig) -> Self {
        let wide = if config.train.tf32 { Numbers::Tf32 } else { Numbers::F32 };
        let frozen = match config.model.frozen_dtype {
            FrozenDtype::Auto | FrozenDtype::Bf16 => Numbers::Bf16,
            FrozenDtype::F32 => wide,
        };
        let trained = if config.train.compute == Compute::Bf16 { Numbers::Bf16 } else { wide };
        let through = if trained == Numbers::Bf16 { Numbers::Bf16 } else { frozen };
        Self { frozen, trained, through }
    }

    /// Bytes of a number of the frozen models.
    fn frozen_bytes(&self) -> f64 {
        if self.frozen == Numbers::Bf16 { 2.0 } else { 4.0 }
    }
}

/// What the adapters' part of a step is called.
const ADAPTERS: &str = "adapters";

/// A stage's models and shapes.
struct Shapes<'a> {
    stage: &'a NumberedStage,
    /// For the stage's images.
    encoder: EncoderSizes,
    models: &'a Models,
    /// Of the language model, where the stage trains some.
    adapters: Option<Adapters>,
    computes: Computes,
    /// Weights of the encoder, of the language model, and what is trained.
    weights: [f64; 3],
}

/// What a stage asks.
///
/// # Errors
/// Sizes that no model can have, or maps to adapt that the language model does not have.
pub(super) fn of(config: &WorkerConfig, stage: &NumberedStage, models: &Models) -> Result<Workload> {
    let settings = &stage.settings;
    let configured = |error: String| WorkerError::Configuration(format!("stage `{}`: {error}", stage.name()));
    let side = if settings.image_size > 0 { settings.image_size } else { config.model.image_size };
    let encoder =
        models.encoder.clone().for_images_of(side).map_err(|error| configured(error.to_string()))?;
    let language = models.language.as_deref().filter(|_| settings.task.needs().language_model);
    let sizes = FrozenSizes {
        image_width: encoder.width(),
        vocab: models.vocabulary,
        language_width: language.map_or(0, |language| language.width()),
    };
    let trains_encoder = settings.task.trains_encoder();
    let adapters = adapters(stage, language).map_err(|error| configured(error.to_string()))?;
    // The adapters' gradient is complete with that of the heads.
    let mut buckets = match &adapters {
        Some(adapters) => {
            GradientBuckets::of(&FlatLayout::of(&mut adapters.clone())?, BUCKET_ELEMENTS).buckets().to_vec()
        }
        None => Vec::new(),
    };
    buckets.extend(trained_buckets(&without_folders(stage)?, config, sizes)?.buckets().iter().cloned());
    if trains_encoder {
        buckets.extend(encoder_buckets(&encoder)?.buckets().iter().cloned());
    }
    let encoder_weights = parameters(ImageEncoder::zeros(&encoder, &Placement::from(&Device::flex())))?;
    let language_weights = match language {
        Some(sizes) => parameters(LanguageModel::zeros(sizes, &Device::flex()))?,
        None => 0.0,
    };
    let weights =
        [encoder_weights, language_weights, buckets.iter().map(GradientBucket::len).sum::<usize>() as f64];
    let shapes = Shapes { stage, encoder, models, adapters, computes: Computes::of(config), weights };
    let kept = shapes.kept(config);
    let encoder_kept = if trains_encoder { kept::trained_encoder(&shapes.encoder) } else { Kept::default() };
    let frozen_bytes = shapes.computes.frozen_bytes();
    let batch = u64::from(settings.batch);
    let qformer = &config.model.qformer;
    let (tokens, width) = (shapes.encoder.tokens() as f64, shapes.encoder.width() as f64);
    let features = Bytes(tokens * width * if trains_encoder { 4.0 } else { frozen_bytes });
    let texts = settings.task.text_length() as f64;
    let contrasts = matches!(settings.task.passes(), Passes::Contrast { .. });
    let compared = (qformer.queries + 1) as f64 * qformer.embed_dim as f64 * 4.0 + texts * 8.0;
    let of_contrast = |bytes: Bytes| if contrasts { bytes } else { Bytes(0.0) };
    // A trained encoder's rows come back as gradients.
    let ways = if trains_encoder { 2.0 } else { 1.0 };
    Ok(Workload {
        name: stage.name().to_owned(),
        task: settings.task.name().to_owned(),
        steps: settings.steps,
        batch,
        slots: u64::from(config.train.slots),
        parts: shapes.parts(config, trains_encoder, kept),
        buckets: buckets
            .iter()
            .map(|bucket| of_segment(bucket.segment, bucket.len(), config, &shapes.encoder))
            .collect(),
        wire_bytes: config.train.wire.bytes() as f64,
        overlaps: config.train.overlap,
        gathered: of_contrast(Bytes(compared)),
        rows: of_contrast(features * ways),
        frozen: Bytes(frozen_bytes * (language_weights + if trains_encoder { 0.0 } else { encoder_weights })),
        kept_by_all: features + Bytes(4.0 * (kept.by_all + encoder_kept.by_all) as f64),
        kept_by_one: Bytes(4.0 * (kept.by_one + encoder_kept.by_one) as f64)
            + Bytes(frozen_bytes * kept.frozen as f64),
        passing: Bytes(frozen_bytes * kept::encoder_passing(&shapes.encoder) as f64),
        decoded: Bytes((3 * shapes.encoder.image_size().pow(2)) as f64 + texts * 8.0),
        read_ahead: Bytes(config.loader.prefetch_bytes as f64),
        checkpoint_every: 0,
        checkpoints_kept: 0,
    })
}

/// The stage with frozen models that stay as they are: a trained encoder and adapters would be read off their
/// folders.
fn without_folders(stage: &NumberedStage) -> Result<NumberedStage> {
    let task = &stage.settings.task;
    if !task.trains_encoder() && task.lora().is_none() {
        return Ok(stage.clone());
    }
    let failed = |error: serde_json::Error| WorkerError::Configuration(error.to_string());
    let mut settings = serde_json::to_value(&stage.settings).map_err(failed)?;
    if task.trains_encoder() {
        settings["image_encoder"] = EncoderTraining::Frozen.to_string().into();
        // Both go with an encoder that is trained alone.
        settings["layer_decay"] = 1.0.into();
        settings["drop_path"] = 0.0.into();
    }
    if let Some(settings) = settings.as_object_mut() {
        settings.remove("lora");
    }
    let settings = serde_json::from_value(settings).map_err(failed)?;
    Ok(NumberedStage { settings, ..*stage })
}

/// The adapters that the stage trains, of a language model of these sizes.
fn adapters(
    stage: &NumberedStage,
    language: Option<&dyn LanguageSizes>,
) -> std::result::Result<Option<Adapters>, ModelError> {
    let (Some(lora), Some(language)) = (stage.settings.task.lora(), language) else { return Ok(None) };
    let sizes = AdapterSizes { rank: lora.rank, alpha: lora.alpha, targets: lora.targets.clone() };
    let device = Device::flex();
    Adapters::new(&mut LanguageModel::zeros(language, &device)?, &sizes, &device).map(Some)
}

/// The buckets of an encoder that is trained.
fn encoder_buckets(sizes: &EncoderSizes) -> Result<GradientBuckets> {
    /// What is trained beside it is counted elsewhere.
    struct Nothing;
    impl NamedTensors for Nothing {
        fn visit_tensors<V: TensorVisitor>(
            &mut self,
            _: &str,
            _: &mut V,
        ) -> std::result::Result<(), V::Error> {
            Ok(())
        }
    }
    let encoder = ImageEncoder::zeros(sizes, &Placement::from(&Device::flex()))?;
    let mut alone = WithEncoder { encoder: TrainedEncoder::unwritten(encoder), model: Nothing };
    Ok(GradientBuckets::of(&FlatLayout::of(&mut alone)?, BUCKET_ELEMENTS))
}

/// Numbers of a model of zeros, whose matrices take no memory.
fn parameters<M: NamedTensors>(model: std::result::Result<M, ModelError>) -> Result<f64> {
    Ok(FlatLayout::of(&mut model?)?.len() as f64)
}

/// When a bucket is complete: after the lowest of its segments, each layer of a model taking as long as any
/// other.
fn of_segment(segment: Segment, elements: usize, config: &WorkerConfig, encoder: &EncoderSizes) -> Bucket {
    let layers = config.model.qformer.layers as f64;
    let depth = match encoder {
        EncoderSizes::Eva(sizes) => sizes.depth,
        EncoderSizes::Clip(sizes) => sizes.depth.saturating_sub(1),
    };
    let (model, after) = match segment {
        Segment::Heads => (Model::QFormer, HEADS),
        Segment::Layer(layer) => {
            (Model::QFormer, HEADS + (1.0 - 2.0 * HEADS) * (layers - layer as f64) / layers)
        }
        Segment::Inputs => (Model::QFormer, 1.0),
        Segment::Block(block) => {
            (Model::ImageEncoder, (depth.saturating_sub(block)) as f64 / depth.max(1) as f64)
        }
        Segment::Patches => (Model::ImageEncoder, 1.0),
    };
    Bucket { elements: elements as u64, model, after }
}

impl Shapes<'_> {
    /// What the passes keep of a pair.
    fn kept(&self, config: &WorkerConfig) -> Kept {
        let qformer = config.model.qformer_config(self.encoder.width(), self.models.vocabulary);
        let positions = self.encoder.tokens();
        match (self.stage.settings.task.passes(), &self.models.language) {
            (Passes::Language { asked, read, texts, written }, Some(language)) => {
                let read = read[usize::from(language.decoder_start().is_some())];
                let mut kept =
                    kept::through_language(&qformer, &**language, positions, (asked, read), (texts, written));
                if let Some(adapters) = &self.adapters {
                    let read = qformer.queries + read;
                    kept.by_one += texts * kept::adapters(adapters, &**language, read, written);
                }
                kept
            }
            (Passes::Contrast { text }, _) => kept::contrast(&qformer, positions, text),
            (Passes::Language { written, .. }, None) => kept::contrast(&qformer, positions, written),
        }
    }

    /// The passes of a step without the image encoder's, by what they are for, of one pair.
    fn flops(&self, config: &WorkerConfig) -> Vec<(Model, PartFlops)> {
        let qformer = config.model.qformer_config(self.encoder.width(), self.models.vocabulary);
        let (pairs, positions) = (self.stage.settings.batch as usize, self.encoder.tokens());
        match (self.stage.settings.task.passes(), &self.models.language) {
            (Passes::Language { asked, read, texts, written }, Some(language)) => {
                let read = read[usize::from(language.decoder_start().is_some())];
                let batch = BatchShape { pairs, positions, text_length: written };
                let [prompt, through] = flops::language_parts(&qformer, &**language, (asked, read), batch);
                let through = PartFlops { flops: through.flops.times(texts), ..through };
                let adapting = self.adapters.as_ref().map(|adapters| {
                    let one = flops::adapters(adapters, &**language, qformer.queries + read, written);
                    let flops = one.times(texts * pairs);
                    (Model::LanguageModel, PartFlops { name: ADAPTERS, flops })
                });
                let parts = [(Model::QFormer, prompt), (Model::LanguageModel, through)];
                parts.into_iter().chain(adapting).collect()
            }
            (Passes::Contrast { text } | Passes::Language { written: text, .. }, _) => {
                let batch = BatchShape { pairs, positions, text_length: text };
                let parts = flops::contrast_parts(&qformer, config.model.qformer.embed_dim, batch);
                parts.into_iter().map(|part| (Model::QFormer, part)).collect()
            }
        }
    }

    /// The computation of a step, in its order.
    fn parts(&self, config: &WorkerConfig, trains_encoder: bool, kept: Kept) -> Vec<Part> {
        let pairs = f64::from(self.stage.settings.batch);
        let (forward, backward) = self.of_encoder(trains_encoder);
        let flops = self.flops(config);
        let whole: f64 = flops.iter().map(|(_, part)| part.flops.forward as f64).sum();
        let of = |model: Model, part: &PartFlops, pass: Pass| {
            let (numbers, weights) = match (model, pass) {
                _ if part.name == ADAPTERS => {
                    let numbers = self.adapters.as_ref().map_or(0, Adapters::parameters);
                    (self.computes.trained, 4.0 * numbers as f64)
                }
                (Model::LanguageModel, Pass::Forward) => {
                    (self.computes.frozen, self.weights[1] * self.computes.frozen_bytes())
                }
                (Model::LanguageModel, Pass::Backward) => {
                    (self.computes.through, self.weights[1] * self.computes.frozen_bytes())
                }
                _ => (self.computes.trained, self.weights[2] * 4.0),
            };
            // What is kept is written forward and read back, beside a gradient of its size.
            let kept = Bytes(4.0 * (kept.by_all + kept.by_one) as f64)
                + Bytes(self.computes.frozen_bytes() * kept.frozen as f64);
            let share = part.flops.forward as f64 / whole.max(1.0);
            let (operations, times) = match pass {
                Pass::Forward => (part.flops.forward, 2.0),
                Pass::Backward => (part.flops.backward, 4.0),
            };
            Part {
                name: part.name.to_owned(),
                model,
                pass,
                numbers,
                operations: Operations(operations as f64 / pairs),
                weights: Bytes(weights),
                activations: kept * (share * times),
                again: false,
            }
        };
        let up = flops.iter().map(|(model, part)| of(*model, part, Pass::Forward));
        let down = flops.iter().rev().map(|(model, part)| of(*model, part, Pass::Backward));
        forward.into_iter().chain(up).chain(down).chain(backward).collect()
    }

    /// The image encoder's passes: forward; backward with each block computed once more, where it is trained.
    fn of_encoder(&self, trained: bool) -> (Vec<Part>, Vec<Part>) {
        let operations = flops::image_encoder(&self.encoder).forward as f64;
        let numbers = if trained { self.computes.trained } else { self.computes.frozen };
        let bytes = if trained { 4.0 } else { self.computes.frozen_bytes() };
        let depth = match &self.encoder {
            EncoderSizes::Eva(sizes) => sizes.depth,
            EncoderSizes::Clip(sizes) => sizes.depth.saturating_sub(1),
        };
        // Both halves of a block, each written and read.
        let activations = Bytes(4.0 * bytes * (depth * kept::encoder_passing(&self.encoder)) as f64);
        let part = |name: &str, pass, times: f64, again| Part {
            name: name.to_owned(),
            model: Model::ImageEncoder,
            pass,
            numbers,
            operations: Operations(operations * times),
            weights: Bytes(self.weights[0] * bytes),
            activations: activations * times,
            again,
        };
        let forward = vec![part("features", Pass::Forward, 1.0, false)];
        let backward = match trained {
            true => vec![
                part("blocks once more", Pass::Backward, 1.0, true),
                part("gradients of blocks", Pass::Backward, 2.0, false),
            ],
            false => Vec::new(),
        };
        (forward, backward)
    }
}
