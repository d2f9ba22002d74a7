//! Sizes of an OPT language model.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::language::adaptable::Adaptable;
use crate::language::family::{FamilyConfig, LanguageSizes, Names, to_value};
use crate::language::kept::LanguageKept;
use crate::language::tokens::SpecialTokens;
use blip2_model_files::config::{FolderConfig, TokenIds};
use blip2_model_files::error::ModelError;
use blip2_tensors::nn::flops::{Flops, attend, map};

/// Epsilon of OPT's layer norms; no configuration names it.
pub(super) const LAYER_NORM_EPS: f64 = 1e-5;

/// Sizes and special tokens of an `Opt`; the defaults are those of `OPTConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptConfig {
    /// Width.
    #[serde(rename = "hidden_size")]
    pub width: usize,
    /// Width of the tokens' vectors, of what is read and of what the output map takes; `width` where it is
    /// absent. Only OPT-350M has another, with maps between the two.
    #[serde(rename = "word_embed_proj_dim")]
    pub embed_width: Option<usize>,
    /// Layers.
    #[serde(rename = "num_hidden_layers")]
    pub depth: usize,
    /// Attention heads; a divisor of `width`.
    #[serde(rename = "num_attention_heads")]
    pub heads: usize,
    /// Inner width of the feed-forward parts.
    #[serde(rename = "ffn_dim")]
    pub intermediate: usize,
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Longest sequence in tokens.
    pub max_position_embeddings: usize,
    /// Whether norms precede the parts of a layer, with one more at the end; in OPT-350M they follow, without
    /// it.
    #[serde(rename = "do_layer_norm_before")]
    pub pre_norm: bool,
    /// Whether the norm at the end is left out, as in checkpoints of `transformers` before 4.20.
    #[serde(rename = "_remove_final_layer_norm")]
    pub no_final_norm: bool,
    /// Dropout probability of the model's own training.
    pub dropout: f64,
    /// Whether the output map is the token table.
    pub tie_word_embeddings: bool,
    /// Starts every text.
    pub bos_token_id: u32,
    /// Ends a text.
    pub eos_token_id: TokenIds,
    /// Fills a batch.
    pub pad_token_id: u32,
}

impl Default for OptConfig {
    fn default() -> Self {
        Self {
            width: 768,
            embed_width: None,
            depth: 12,
            heads: 12,
            intermediate: 3072,
            vocab_size: 50272,
            max_position_embeddings: 2048,
            pre_norm: true,
            no_final_norm: false,
            dropout: 0.1,
            tie_word_embeddings: true,
            bos_token_id: 2,
            eos_token_id: TokenIds::One(2),
            pad_token_id: 1,
        }
    }
}

impl OptConfig {
    /// A published OPT of these sizes, whose feed-forward part is four times as wide.
    pub fn of_sizes(width: usize, depth: usize, heads: usize) -> Self {
        Self { width, depth, heads, intermediate: 4 * width, ..Self::default() }
    }

    /// OPT of 350 million weights, the one published model whose layers end with their norms.
    pub fn opt_350m() -> Self {
        Self {
            width: 1024,
            embed_width: Some(512),
            depth: 24,
            heads: 16,
            intermediate: 4096,
            pre_norm: false,
            ..Self::default()
        }
    }

    /// Width of the tokens' vectors.
    pub fn embed_width(&self) -> usize {
        self.embed_width.unwrap_or(self.width)
    }

    /// Whether a norm follows the last layer.
    pub(super) fn has_final_norm(&self) -> bool {
        self.pre_norm && !self.no_final_norm
    }

    /// Refuses sizes that no model can have.
    pub fn validate(&self) -> Result<(), ModelError> {
        if self.heads == 0 || !self.width.is_multiple_of(self.heads) {
            let reason = format!(
                "width {} is not a multiple of {} heads (hidden_size, num_attention_heads)",
                self.width, self.heads
            );
            return Err(ModelError::input("language model configuration", reason));
        }
        if self.embed_width == Some(0) {
            return Err(ModelError::input("language model configuration", "word_embed_proj_dim is 0"));
        }
        Ok(())
    }
}

impl LanguageSizes for OptConfig {
    fn width(&self) -> usize {
        self.embed_width()
    }

    fn layer_width(&self) -> usize {
        self.width
    }

    fn max_positions(&self) -> usize {
        self.max_position_embeddings
    }

    fn dropout(&self) -> f64 {
        self.dropout
    }

    fn special_tokens(&self) -> SpecialTokens {
        SpecialTokens {
            bos: self.bos_token_id,
            pad: self.pad_token_id,
            eos: self.eos_token_id.to_vec(),
            start: None,
            captions_end_with_newline: true,
            vocab_size: self.vocab_size,
        }
    }

    fn section(&self) -> Result<Value, ModelError> {
        let mut section = to_value(self)?;
        section["activation_function"] = "relu".into();
        section["enable_bias"] = true.into();
        section["layer_norm_elementwise_affine"] = true.into();
        section["word_embed_proj_dim"] = self.embed_width().into();
        section["attention_dropout"] = 0.0.into();
        section["layerdrop"] = 0.0.into();
        section["init_std"] = 0.02.into();
        Ok(section)
    }

    fn flops(&self, read: usize, length: usize) -> Flops {
        let (width, embed, rows) = (self.width, self.embed_width(), read + length);
        let layer = 4 * map(rows, width, width) + 2 * map(rows, width, self.intermediate);
        let between = if embed == width { 0 } else { map(rows, embed, width) + map(length, width, embed) };
        let scores = map(length, embed, self.vocab_size);
        Flops::frozen(layer, attend(rows, rows, width)).times(self.depth) + Flops::frozen(between + scores, 0)
    }

    fn kept(&self, read: usize, length: usize) -> LanguageKept {
        let rows = read + length;
        let narrow = self.depth * rows * (5 * self.width + self.intermediate);
        LanguageKept { narrow, wide: self.depth * rows * self.heads * rows + 2 * length * self.vocab_size }
    }
}

impl FamilyConfig for OptConfig {
    const NAMES: Names = Names {
        model_type: "opt",
        prefix: "opt_model",
        adaptable: Adaptable {
            all: &["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
            by_default: &["q_proj", "v_proj"],
        },
    };

    fn read(config: &FolderConfig) -> Result<Self, ModelError> {
        let section = config.expect_language_model(Self::NAMES.model_type)?;
        for (field, supported) in [
            ("activation_function", "relu".into()),
            ("enable_bias", true.into()),
            ("layer_norm_elementwise_affine", true.into()),
        ] {
            config.require(section, field, &supported)?;
        }
        let sizes: Self = config.parse_part(section)?;
        let tokens = [("bos_token_id", sizes.bos_token_id), ("pad_token_id", sizes.pad_token_id)];
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

    fn read(text: &str) -> Result<OptConfig, ModelError> {
        family::tests::read(text)
    }

    #[test]
    fn absent_fields_have_the_published_defaults() {
        let config = read(r#"{"model_type": "opt", "hidden_size": 24, "eos_token_id": [2, 5]}"#).unwrap();
        assert_eq!((config.width, config.vocab_size, config.pad_token_id), (24, 50272, 1));
        assert_eq!(config.eos_token_id.to_vec(), [2, 5]);
    }

    #[test]
    fn unsupported_models_are_named() {
        let error = |text| read(text).unwrap_err().to_string();
        assert!(error(r#"{"model_type": "llama"}"#).contains("`llama`"));
        assert!(error(r#"{"model_type": "blip-2", "text_config": {"model_type": "t5"}}"#).contains("`t5`"));
        let without = error(r#"{"model_type": "opt", "enable_bias": false}"#);
        assert!(without.contains("enable_bias = false"), "{without}");
        let none = error(r#"{"model_type": "opt", "word_embed_proj_dim": 0}"#);
        assert!(none.contains("word_embed_proj_dim"), "{none}");
    }
}
