//! From settings to what the other crates take.

use std::path::Path;
use std::sync::Arc;

use blip2_dataset::{KeyedRng, TextEncoder, TextEncoding};
use blip2_model::hf_config::tokenizer_json;
use blip2_model::optimizer::{AdamW, Schedule};
use blip2_model::qformer::QFormerConfig;
use blip2_model::stage1;
use blip2_model::weights::{InitialValues, is_gguf};
use burn::tensor::Device;

use crate::config::{GradientMode, ModelSettings, OptimizerSettings};
use crate::error::{Result, WorkerError};

/// The token that starts a caption in the captioning loss.
const DECODER_START: &str = "[DEC]";

impl From<GradientMode> for stage1::GradientMode {
    fn from(mode: GradientMode) -> Self {
        match mode {
            GradientMode::Exact => Self::Exact,
            GradientMode::KeysDetached => Self::KeysDetached,
        }
    }
}

impl OptimizerSettings {
    /// AdamW's constants.
    pub fn adamw(&self) -> AdamW {
        AdamW { beta1: self.beta1, beta2: self.beta2, epsilon: self.epsilon, weight_decay: self.weight_decay }
    }

    /// The learning-rate schedule over `steps`.
    pub fn schedule(&self, steps: u64) -> Schedule {
        Schedule {
            peak: self.learning_rate,
            minimum: self.min_learning_rate,
            warmup_start: self.warmup_learning_rate,
            warmup_steps: self.warmup_steps,
            steps,
        }
    }
}

impl ModelSettings {
    /// The Q-Former's sizes for an encoder of width `image_width` and a vocabulary of `vocab`.
    pub fn qformer_config(&self, image_width: usize, vocab: usize) -> QFormerConfig {
        let sizes = &self.qformer;
        QFormerConfig::new(image_width)
            .with_hidden(sizes.hidden)
            .with_layers(sizes.layers)
            .with_heads(sizes.heads)
            .with_intermediate(sizes.intermediate)
            .with_vocab(vocab)
            .with_max_positions(sizes.max_positions)
            .with_queries(sizes.queries)
            .with_cross_attention_frequency(sizes.cross_attention_frequency)
            .with_dropout(sizes.dropout)
    }
}

/// The device that `train.device` names, without autodiff.
pub(crate) fn device(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::flex()),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(0)),
        #[cfg(not(feature = "cuda"))]
        "cuda" => Err(WorkerError::Configuration(
            "train.device = \"cuda\", but this binary was built without CUDA; build it with `--features cuda`"
                .into(),
        )),
        other => Err(WorkerError::Configuration(format!(
            "train.device = \"{other}\" is unknown; use \"cpu\" or \"cuda\""
        ))),
    }
}

/// The Q-Former's tokenizer, cutting to `length` tokens, and the id of `[DEC]`.
pub(crate) fn qformer_text(settings: &ModelSettings, length: usize) -> Result<(Arc<TextEncoder>, i32)> {
    let path = Path::new(&settings.qformer_tokenizer);
    let unpadded = TextEncoder::open(path, TextEncoding::new(length, 0))?;
    let pad = unpadded.id_of("[PAD]").unwrap_or(0);
    let encoder = TextEncoder::open(path, TextEncoding::new(length, pad))?;
    let start = encoder.id_of(DECODER_START).ok_or_else(|| {
        WorkerError::Configuration(format!(
            "model.qformer_tokenizer = \"{}\" has no {DECODER_START} token; add it as a special token",
            path.display()
        ))
    })?;
    Ok((Arc::new(encoder), start as i32))
}

/// The tokenizer of a language model: that of its folder, or the one inside a GGUF file.
pub(crate) fn tokenizer(language_model: &Path, encoding: TextEncoding) -> Result<TextEncoder> {
    if !is_gguf(language_model) {
        return Ok(TextEncoder::open(language_model, encoding)?);
    }
    let content = tokenizer_json(language_model)?.to_string();
    Ok(TextEncoder::from_json(content.as_bytes(), language_model, encoding)?)
}

/// Initial values drawn by the run's seed and the tensor's name.
pub(crate) struct SeededValues {
    seed: u64,
}

impl SeededValues {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed }
    }

    fn generator(&self, name: &str) -> KeyedRng {
        KeyedRng::new(self.seed, &format!("initial value of {name}"), &[])
    }
}

impl InitialValues for SeededValues {
    fn normal(&mut self, name: &str, count: usize) -> Vec<f32> {
        let mut generator = self.generator(name);
        (0..count).map(|_| generator.normal() as f32).collect()
    }

    fn uniform(&mut self, name: &str, count: usize) -> Vec<f32> {
        let mut generator = self.generator(name);
        (0..count).map(|_| (2.0 * generator.uniform() - 1.0) as f32).collect()
    }
}
