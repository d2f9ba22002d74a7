//! How fast a language model writes, by itself.

use std::path::Path;
use std::time::{Duration, Instant};

use blip2_model::language::generation::GenerateOptions;
use blip2_model::language::{LanguageModel, LanguageSizes};
use blip2_model_files::weights::randomise;
use blip2_tensors::device::placement::NarrowDtype;
use blip2_tensors::device::placement::Placement;
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
    pub(super) fn open(folder: &Path, narrow: Option<NarrowDtype>) -> Result<Self> {
        let place = place(narrow)?;
        Self::of(LanguageModel::open(folder, &place)?, place.device)
    }

    /// A model of these sizes, whose weights mean nothing.
    ///
    /// # Errors
    /// Sizes that no model can have.
    pub(super) fn random(sizes: &dyn LanguageSizes, narrow: Option<NarrowDtype>) -> Result<Self> {
        let place = place(narrow)?;
        let mut model = LanguageModel::zeros(sizes, &place.device)?;
        randomise(&mut model, &place)?;
        Self::of(model, place.device)
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

/// The CPU.
fn place(narrow: Option<NarrowDtype>) -> Result<Placement> {
    let device = Device::flex();
    Ok(match narrow {
        Some(dtype) => Placement::narrow(&device, dtype)?,
        None => Placement::from(device),
    })
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
            for narrow in [None, Some(NarrowDtype::Bf16), Some(NarrowDtype::Int8)] {
                let speed = WritingSpeed::random(sizes, narrow).unwrap();
                assert!(speed.parameters() > 100);
                assert!(speed.measure(load).unwrap().prefill > Duration::ZERO, "{sizes:?} {narrow:?}");
            }
        }
    }

    #[test]
    fn more_positions_than_the_model_has_are_an_error() {
        let sizes = OptConfig { width: 8, depth: 1, heads: 2, vocab_size: 9, ..OptConfig::default() };
        let sizes = OptConfig { max_position_embeddings: 6, ..sizes };
        let load = WritingLoad { batch: 1, beams: 1, prompt: 5, tokens: 9 };
        let error = WritingSpeed::random(&sizes, None).unwrap().measure(load).unwrap_err().to_string();
        assert!(error.contains("positions"), "{error}");
    }
}
