//! Sizes of a Llama language model.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::scaling::RopeScaling;
use crate::language::adaptable::Adaptable;
use crate::language::family::{FamilyConfig, LanguageSizes, Names, to_value};
use crate::language::kept::LanguageKept;
use crate::language::tokens::SpecialTokens;
use blip2_model_files::config::{FolderConfig, TokenIds};
use blip2_model_files::error::ModelError;
use blip2_tensors::nn::activation::Activation;
use blip2_tensors::nn::flops::{Flops, attend, map};

/// Sizes and special tokens of a `Llama`; the defaults are those of `LlamaConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LlamaConfig {
    /// Width.
    #[serde(rename = "hidden_size")]
    pub width: usize,
    /// Layers.
    #[serde(rename = "num_hidden_layers")]
    pub depth: usize,
    /// Attention heads.
    #[serde(rename = "num_attention_heads")]
    pub heads: usize,
    /// Heads of keys and values, a divisor of `heads`; as many as those where it is absent.
    #[serde(rename = "num_key_value_heads")]
    pub key_heads: Option<usize>,
    /// Width of one head; the heads share the width where it is absent.
    #[serde(rename = "head_dim")]
    pub head_width: Option<usize>,
    /// Inner width of the feed-forward parts.
    #[serde(rename = "intermediate_size")]
    pub intermediate: usize,
    /// The function in the feed-forward parts.
    #[serde(rename = "hidden_act")]
    pub activation: Activation,
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Longest sequence in tokens.
    pub max_position_embeddings: usize,
    /// Epsilon of the norms.
    pub rms_norm_eps: f64,
    /// Base of the rotations' wavelengths.
    pub rope_theta: f64,
    /// How rotations are slowed, where they are.
    #[serde(skip_deserializing)]
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the output map is the token table.
    pub tie_word_embeddings: bool,
    /// Starts every text.
    pub bos_token_id: u32,
    /// Ends a text.
    pub eos_token_id: TokenIds,
    /// Fills a batch; absent or negative where the model has none.
    pub pad_token_id: Option<i64>,
}

impl Default for LlamaConfig {
    fn default() -> Self {
        Self {
            width: 4096,
            depth: 32,
            heads: 32,
            key_heads: None,
            head_width: None,
            intermediate: 11008,
            activation: Activation::Silu,
            vocab_size: 32000,
            max_position_embeddings: 2048,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: None,
            tie_word_embeddings: false,
            bos_token_id: 1,
            eos_token_id: TokenIds::One(2),
            pad_token_id: None,
        }
    }
}

impl LlamaConfig {
    /// SmolLM2 of 135 million weights.
    pub fn smollm2_135m() -> Self {
        Self {
            width: 576,
            depth: 30,
            heads: 9,
            key_heads: Some(3),
            intermediate: 1536,
            vocab_size: 49152,
            max_position_embeddings: 8192,
            tie_word_embeddings: true,
            ..Self::default()
        }
    }
}

/// The sections of rotations: that of today, and that before `transformers` 5.
#[derive(Deserialize)]
struct Rotations {
    #[serde(default)]
    rope_parameters: Value,
    #[serde(default)]
    rope_scaling: Value,
}

impl LlamaConfig {
    /// Refuses sizes that no model can have.
    pub fn validate(&self) -> Result<(), ModelError> {
        let refuse = |reason: String| Err(ModelError::input("language model configuration", reason));
        let (width, heads, key_heads) = (self.width, self.heads, self.key_heads());
        if heads == 0 || key_heads == 0 || !heads.is_multiple_of(key_heads) {
            return refuse(format!(
                "{heads} heads cannot share {key_heads} key heads (num_attention_heads, num_key_value_heads)"
            ));
        }
        if self.head_width.is_none() && !width.is_multiple_of(heads) {
            return refuse(format!(
                "width {width} is not a multiple of {heads} heads (hidden_size, num_attention_heads)"
            ));
        }
        if self.head_width() == 0 || !self.head_width().is_multiple_of(2) {
            return refuse(format!(
                "heads of width {} (head_dim): rotations need an even width",
                self.head_width()
            ));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return refuse(format!("rope_theta {} is not above 0", self.rope_theta));
        }
        Ok(())
    }

    /// Heads of keys and values.
    pub fn key_heads(&self) -> usize {
        self.key_heads.unwrap_or(self.heads)
    }

    /// Width of one head.
    pub fn head_width(&self) -> usize {
        self.head_width.unwrap_or_else(|| self.width / self.heads.max(1))
    }

    /// What fills a batch: the first end token where there is no token for it, as padding is never seen.
    pub fn padding(&self) -> u32 {
        let own = self.pad_token_id.and_then(|id| u32::try_from(id).ok());
        own.or_else(|| self.eos_token_id.to_vec().first().copied()).unwrap_or(self.bos_token_id)
    }
}

impl LanguageSizes for LlamaConfig {
    fn width(&self) -> usize {
        self.width
    }

    fn max_positions(&self) -> usize {
        self.max_position_embeddings
    }

    fn dropout(&self) -> f64 {
        0.0
    }

    fn special_tokens(&self) -> SpecialTokens {
        SpecialTokens {
            bos: self.bos_token_id,
            pad: self.padding(),
            eos: self.eos_token_id.to_vec(),
            start: Some(self.bos_token_id),
            captions_end_with_newline: false,
            vocab_size: self.vocab_size,
        }
    }

    fn section(&self) -> Result<Value, ModelError> {
        let mut section = to_value(self)?;
        section["num_key_value_heads"] = self.key_heads().into();
        section["head_dim"] = self.head_width().into();
        section["pad_token_id"] = self.padding().into();
        section["attention_bias"] = false.into();
        section["mlp_bias"] = false.into();
        section["attention_dropout"] = 0.0.into();
        section["initializer_range"] = 0.02.into();
        Ok(section)
    }

    fn flops(&self, read: usize, length: usize) -> Flops {
        let (width, inner, rows) = (self.width, self.heads * self.head_width(), read + length);
        let shared = self.key_heads() * self.head_width();
        let maps = 2 * map(rows, width, inner) + 2 * map(rows, width, shared);
        let layer = maps + 3 * map(rows, width, self.intermediate);
        let scores = map(length, width, self.vocab_size);
        Flops::frozen(layer, attend(rows, rows, inner)).times(self.depth) + Flops::frozen(scores, 0)
    }

    fn kept(&self, read: usize, length: usize) -> LanguageKept {
        let rows = read + length;
        // Keys and values are repeated for all heads of the queries.
        let attention = 3 * self.heads * self.head_width();
        let narrow = self.depth * rows * (2 * self.width + attention + 3 * self.intermediate);
        LanguageKept { narrow, wide: self.depth * rows * self.heads * rows + 2 * length * self.vocab_size }
    }
}

impl FamilyConfig for LlamaConfig {
    const NAMES: Names = Names {
        model_type: "llama",
        prefix: "llm_model",
        adaptable: Adaptable {
            all: &["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            by_default: &["q_proj", "v_proj"],
        },
    };

    fn read(config: &FolderConfig) -> Result<Self, ModelError> {
        let section = config.expect_language_model(Self::NAMES.model_type)?;
        for field in ["attention_bias", "mlp_bias"] {
            config.require(section, field, &false.into())?;
        }
        let mut sizes: Self = config.parse_part(section)?;
        let rotations: Rotations = config.parse_part(section)?;
        let section = if rotations.rope_parameters.is_null() {
            rotations.rope_scaling
        } else {
            rotations.rope_parameters
        };
        sizes.rope_scaling = RopeScaling::read(&section).map_err(|reason| config.error(reason))?;
        sizes.rope_theta = section["rope_theta"].as_f64().unwrap_or(sizes.rope_theta);
        let tokens = [("bos_token_id", sizes.bos_token_id), ("pad_token_id", sizes.padding())];
        let checked = sizes.validate().and_then(|()| sizes.special_tokens().validate(&tokens));
        checked.map_err(|error| config.error(error.to_string()))?;
        Ok(sizes)
    }

    fn set_vocabulary(&mut self, rows: usize) {
        self.vocab_size = rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::family;

    fn read(fields: &str) -> Result<LlamaConfig, ModelError> {
        family::tests::read(&format!(r#"{{"model_type": "llama"{fields}}}"#))
    }

    #[test]
    fn absent_fields_follow_from_others() {
        let old = read(r#", "hidden_size": 24, "num_attention_heads": 6, "pad_token_id": -1"#).unwrap();
        assert_eq!((old.key_heads(), old.head_width(), old.padding()), (6, 4, 2));
        let new = read(r#", "rope_parameters": {"rope_theta": 1e5, "rope_type": "default"}, "head_dim": 6"#);
        let new = new.unwrap();
        assert_eq!((new.rope_theta, new.head_width()), (1e5, 6));
        let plain = read(r#", "rope_theta": 5e5, "rope_scaling": null"#).unwrap();
        assert_eq!((plain.rope_theta, plain.rope_scaling), (5e5, None));
        let slowed =
            read(r#", "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 8.0}"#).unwrap();
        assert_eq!(
            (slowed.rope_theta, slowed.rope_scaling),
            (5e5, Some(RopeScaling::Linear { factor: 8.0 }))
        );
    }

    #[test]
    fn unsupported_variants_are_named() {
        let error = |fields| read(fields).unwrap_err().to_string();
        assert!(error(r#", "rope_scaling": {"type": "dynamic", "factor": 8.0}"#).contains("dynamic"));
        assert!(error(r#", "rope_parameters": {"rope_type": "llama3"}"#).contains("llama3"));
        assert!(error(r#", "attention_bias": true"#).contains("attention_bias"));
        assert!(error(r#", "num_key_value_heads": 5"#).contains("5 key heads"));
        assert!(error(r#", "head_dim": 5"#).contains("even"));
    }
}
