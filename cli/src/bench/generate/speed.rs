//! How fast a language model writes, by itself.

use std::path::Path;
use std::time::{Duration, Instant};

use blip2_model::language::generation::GenerateOptions;
use blip2_model::language::{LanguageModel, LanguageSizes};
use blip2_tensors::train::flat::FlatLayout;
use blip2_worker::Result;
use burn::tensor::{Device, Int, Tensor, TensorData};

/// What is written at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WritingLoad {
    /// Texts.
    pub(super) batch: usize,
    /// Beams of each.
    pub(super) beams: usize,
    /// Positions that are read before each text.
    pub(super) prompt: usize,
    /// Tokens of each text, at least two.
    pub(super) tokens: usize,
}

/// How long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WritingTimes {
    /// To read the prompts and write the first token of each text.
    pub(super) prefill: Duration,
    /// To write the other tokens.
    pub(super) writing: Duration,
}

/// A language model whose writing is timed.
pub(super) struct WritingSpeed {
    model: LanguageModel,
    device: Device,
    parameters: usize,
}

impl WritingSpeed {
    /// The language model of a folder, alone or in a BLIP-2 folder.
    ///
    /// # Errors
    /// Another model, or weights that do not fit its configuration.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let device = Device::flex();
        Self::of(LanguageModel::open(folder, &device)?, device)
    }

    /// A model of these sizes, whose weights mean nothing.
    ///
    /// # Errors
    /// Sizes that no model can have.
    pub(super) fn random(sizes: &dyn LanguageSizes) -> Result<Self> {
        let device = Device::flex();
        let mut model = LanguageModel::zeros(sizes, &device)?;
        let layout = FlatLayout::of(&mut model)?;
        // Knuth's multiplicative hash; small, so that no score overflows.
        let weight = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32;
        let weights: Vec<f32> = (0..layout.len()).map(|i| (weight(i) - 0.5) * 0.1).collect();
        layout.write(&mut model, &weights, &device)?;
        Self::of(model, device)
    }

    fn of(mut model: LanguageModel, device: Device) -> Result<Self> {
        let parameters = FlatLayout::of(&mut model)?.len();
        Ok(Self { model, device, parameters })
    }

    /// Number of weights.
    pub(super) fn parameters(&self) -> usize {
        self.parameters
    }

    /// Writes texts of exactly `load.tokens` tokens.
    ///
    /// # Errors
    /// More positions than the model has.
    pub(super) fn measure(&self, load: WritingLoad) -> Result<WritingTimes> {
        let prefill = self.write(load, 1)?;
        let all = self.write(load, load.tokens)?;
        Ok(WritingTimes { prefill, writing: all.saturating_sub(prefill) })
    }

    fn write(&self, load: WritingLoad, tokens: usize) -> Result<Duration> {
        let WritingLoad { batch, beams, prompt, .. } = load;
        let vocabulary = self.model.special_tokens().vocab_size;
        let ids: Vec<i32> = (0..batch * prompt).map(|i| (i * 7919 % vocabulary) as i32).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [batch, prompt]), &self.device);
        let mask = Tensor::ones([batch, prompt], &self.device);
        // Without end tokens no text ends early.
        let options = GenerateOptions { max_new_tokens: tokens, beams, ..GenerateOptions::default() };
        let started = Instant::now();
        self.model.generate(self.model.embed(ids), mask, &vec![Vec::new(); batch], &options, &|_| false)?;
        Ok(started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use blip2_model::language::llama::LlamaConfig;
    use blip2_model::language::opt::OptConfig;
    use blip2_model::language::t5::T5Config;

    use super::*;

    #[test]
    fn every_family_is_timed() {
        let load = WritingLoad { batch: 2, beams: 2, prompt: 3, tokens: 4 };
        let opt = OptConfig {
            width: 8,
            depth: 1,
            heads: 2,
            intermediate: 8,
            vocab_size: 9,
            ..OptConfig::default()
        };
        let llama = LlamaConfig {
            width: 8,
            depth: 1,
            heads: 2,
            intermediate: 8,
            vocab_size: 9,
            ..LlamaConfig::default()
        };
        let t5 = T5Config {
            width: 8,
            head_width: 4,
            intermediate: 8,
            depth: 1,
            heads: 2,
            vocab_size: 9,
            feed_forward_proj: "gated-gelu".into(),
            ..T5Config::default()
        };
        let families: [&dyn LanguageSizes; 3] = [&opt, &llama, &t5];
        for sizes in families {
            let speed = WritingSpeed::random(sizes).unwrap();
            assert!(speed.parameters() > 100);
            assert!(speed.measure(load).unwrap().prefill > Duration::ZERO, "{sizes:?}");
        }
    }

    #[test]
    fn more_positions_than_the_model_has_are_an_error() {
        let sizes = OptConfig { width: 8, depth: 1, heads: 2, vocab_size: 9, ..OptConfig::default() };
        let sizes = OptConfig { max_position_embeddings: 6, ..sizes };
        let load = WritingLoad { batch: 1, beams: 1, prompt: 5, tokens: 9 };
        let error = WritingSpeed::random(&sizes).unwrap().measure(load).unwrap_err().to_string();
        assert!(error.contains("positions"), "{error}");
    }
}
