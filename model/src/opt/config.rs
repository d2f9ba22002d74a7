//! Sizes of an OPT language model.

use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::hf_config::{FolderConfig, TokenIds};

/// Sizes and special tokens of an [`Opt`](super::Opt); the defaults are those of `OPTConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptConfig {
    /// Width.
    #[serde(rename = "hidden_size")]
    pub width: usize,
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
            depth: 12,
            heads: 12,
            intermediate: 3072,
            vocab_size: 50272,
            max_position_embeddings: 2048,
            dropout: 0.1,
            tie_word_embeddings: true,
            bos_token_id: 2,
            eos_token_id: TokenIds::One(2),
            pad_token_id: 1,
        }
    }
}

impl OptConfig {
    /// Reads `config.json` of an OPT folder, or the `text_config` of a BLIP-2 folder.
    ///
    /// # Errors
    /// Another language model, or a variant of OPT that is not supported, named with its field.
    pub fn read(config: &FolderConfig) -> Result<Self, ModelError> {
        let section = config.expect_language_model("opt")?;
        for (field, supported) in [
            ("activation_function", "relu".into()),
            ("do_layer_norm_before", true.into()),
            ("_remove_final_layer_norm", false.into()),
            ("enable_bias", true.into()),
            ("layer_norm_elementwise_affine", true.into()),
        ] {
            config.require(section, field, &supported)?;
        }
        let sizes: Self = config.parse_part(section)?;
        config.require(section, "word_embed_proj_dim", &sizes.width.into())?;
        sizes.validate().map_err(|error| config.error(error.to_string()))?;
        Ok(sizes)
    }

    /// Refuses sizes that no model can have.
    pub fn validate(&self) -> Result<(), ModelError> {
        if self.heads == 0 || !self.width.is_multiple_of(self.heads) {
            let reason = format!("width {} is not a multiple of {} heads", self.width, self.heads);
            return Err(ModelError::input("language model configuration", reason));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<OptConfig, ModelError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        OptConfig::read(&FolderConfig::open(folder.path())?)
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
        let projected = error(r#"{"model_type": "opt", "hidden_size": 24, "word_embed_proj_dim": 12}"#);
        assert!(
            projected.contains("word_embed_proj_dim = 12") && projected.contains("only 24"),
            "{projected}"
        );
        let post_norm = error(r#"{"model_type": "opt", "do_layer_norm_before": false}"#);
        assert!(post_norm.contains("do_layer_norm_before"), "{post_norm}");
    }
}
