//! Sizes of a T5 language model.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::language::adaptable::Adaptable;
use crate::language::family::{FamilyConfig, LanguageSizes, Names, to_value};
use crate::language::kept::LanguageKept;
use crate::language::tokens::SpecialTokens;
use blip2_model_files::config::FolderConfig;
use blip2_model_files::error::ModelError;
use blip2_tensors::nn::activation::Activation;
use blip2_tensors::nn::flops::{Flops, attend, map};

/// The kind of feed-forward part that is supported, as `feed_forward_proj` names it.
const GATED: &str = "gated-gelu";

/// The longest inputs that T5 was trained on; it has no table of positions that would end.
const TRAINED_POSITIONS: usize = 512;

/// Sizes and special tokens of a `T5`; the defaults are those of `T5Config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct T5Config {
    /// Width.
    #[serde(rename = "d_model")]
    pub width: usize,
    /// Width of one attention head.
    #[serde(rename = "d_kv")]
    pub head_width: usize,
    /// Inner width of the feed-forward parts.
    #[serde(rename = "d_ff")]
    pub intermediate: usize,
    /// Layers of the encoder.
    #[serde(rename = "num_layers")]
    pub depth: usize,
    /// Layers of the decoder; as many as the encoder has where it is absent.
    #[serde(rename = "num_decoder_layers")]
    pub decoder_depth: Option<usize>,
    /// Attention heads.
    #[serde(rename = "num_heads")]
    pub heads: usize,
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Distances that the attention tells apart.
    #[serde(rename = "relative_attention_num_buckets")]
    pub buckets: usize,
    /// Distances from here on are one.
    #[serde(rename = "relative_attention_max_distance")]
    pub max_distance: usize,
    /// Epsilon of the norms.
    #[serde(rename = "layer_norm_epsilon")]
    pub norm_eps: f64,
    /// Dropout probability of the model's own training.
    #[serde(rename = "dropout_rate")]
    pub dropout: f64,
    /// The feed-forward parts; only `gated-gelu` (T5 1.1, Flan-T5) is supported.
    pub feed_forward_proj: String,
    /// The function in the feed-forward parts; `gelu_new` where it is absent.
    #[serde(rename = "dense_act_fn")]
    pub activation: Option<Activation>,
    /// Whether the output map is the token table.
    pub tie_word_embeddings: bool,
    /// Whether the decoder's output is divided by the root of the width; absent: where the token table is the
    /// output map.
    pub scale_decoder_outputs: Option<bool>,
    /// Starts every text that the decoder writes.
    pub decoder_start_token_id: u32,
    /// Ends a text, and every input of the encoder.
    pub eos_token_id: u32,
    /// Fills a batch.
    pub pad_token_id: u32,
}

impl Default for T5Config {
    fn default() -> Self {
        Self {
            width: 512,
            head_width: 64,
            intermediate: 2048,
            depth: 6,
            decoder_depth: None,
            heads: 8,
            vocab_size: 32128,
            buckets: 32,
            max_distance: 128,
            norm_eps: 1e-6,
            dropout: 0.1,
            feed_forward_proj: "relu".into(),
            activation: None,
            tie_word_embeddings: true,
            scale_decoder_outputs: None,
            decoder_start_token_id: 0,
            eos_token_id: 1,
            pad_token_id: 0,
        }
    }
}

impl T5Config {
    /// A published Flan-T5 of these sizes.
    pub fn flan(width: usize, intermediate: usize, depth: usize, heads: usize) -> Self {
        Self {
            width,
            intermediate,
            depth,
            heads,
            feed_forward_proj: GATED.into(),
            tie_word_embeddings: false,
            ..Self::default()
        }
    }

    /// Refuses sizes that no model can have, and variants that are not supported.
    pub fn validate(&self) -> Result<(), ModelError> {
        let refuse = |reason: String| Err(ModelError::input("language model configuration", reason));
        if self.feed_forward_proj != GATED {
            let found = &self.feed_forward_proj;
            return refuse(format!("feed_forward_proj = \"{found}\" is not supported, only \"{GATED}\""));
        }
        // Half of the encoder's buckets are for each direction, and half of those for the smallest distances.
        if self.buckets < 4 || !self.buckets.is_multiple_of(4) || self.max_distance <= self.buckets / 2 {
            let (buckets, distance) = (self.buckets, self.max_distance);
            return refuse(format!("{buckets} relative attention buckets up to a distance of {distance}"));
        }
        Ok(())
    }

    /// Layers of the decoder.
    pub fn decoder_depth(&self) -> usize {
        self.decoder_depth.unwrap_or(self.depth)
    }

    /// The function in the feed-forward parts.
    pub fn activation(&self) -> Activation {
        self.activation.unwrap_or(Activation::GeluNew)
    }

    /// Whether the decoder's output is divided by the root of the width.
    pub fn scales_outputs(&self) -> bool {
        self.scale_decoder_outputs.unwrap_or(self.tie_word_embeddings)
    }
}

impl LanguageSizes for T5Config {
    fn width(&self) -> usize {
        self.width
    }

    fn max_positions(&self) -> usize {
        TRAINED_POSITIONS
    }

    fn dropout(&self) -> f64 {
        self.dropout
    }

    fn special_tokens(&self) -> SpecialTokens {
        SpecialTokens {
            bos: self.eos_token_id,
            pad: self.pad_token_id,
            eos: vec![self.eos_token_id],
            start: None,
            captions_end_with_newline: false,
            vocab_size: self.vocab_size,
        }
    }

    fn decoder_start(&self) -> Option<u32> {
        Some(self.decoder_start_token_id)
    }

    fn section(&self) -> Result<Value, ModelError> {
        let mut section = to_value(self)?;
        section["num_decoder_layers"] = self.decoder_depth().into();
        section["dense_act_fn"] = to_value(&self.activation())?;
        section["scale_decoder_outputs"] = self.scales_outputs().into();
        section["is_gated_act"] = true.into();
        section["classifier_dropout"] = 0.0.into();
        section["initializer_factor"] = 1.0.into();
        section["is_encoder_decoder"] = true.into();
        Ok(section)
    }

    fn flops(&self, read: usize, length: usize) -> Flops {
        let (width, inner) = (self.width, self.heads * self.head_width);
        let own = |rows: usize| Flops::frozen(4 * map(rows, width, inner), attend(rows, rows, inner));
        let feed_forward = |rows: usize| Flops::frozen(3 * map(rows, width, self.intermediate), 0);
        let crossing = 2 * map(length, width, inner) + 2 * map(read, width, inner);
        let cross = Flops::frozen(crossing, attend(length, read, inner));
        let encoder = (own(read) + feed_forward(read)).times(self.depth);
        let decoder = (own(length) + cross + feed_forward(length)).times(self.decoder_depth());
        let scores = Flops::frozen(map(length, width, self.vocab_size), 0);
        // What the decoder's first layer makes of the text alone has no gradient.
        let text_alone = own(length).backward + map(length, width, inner) as u64;
        let both = encoder + decoder + scores;
        Flops { backward: both.backward - text_alone, ..both }
    }

    fn rows_of(&self, map: &str, read: usize, length: usize) -> usize {
        let sees_what_is_read = map.contains(".encoder.")
            || ["k", "v"].iter().any(|name| map.ends_with(&format!("EncDecAttention.{name}")));
        if sees_what_is_read { read } else { length }
    }

    fn kept(&self, read: usize, length: usize) -> LanguageKept {
        let inner = self.heads * self.head_width;
        // Of a part of a layer its norm's input; queries, keys and values; both factors of the gate, and its
        // input.
        let own = |rows: usize| rows * (2 * self.width + 3 * inner + 3 * self.intermediate);
        let cross = length * (self.width + inner) + 2 * read * inner;
        let narrow = self.depth * own(read) + self.decoder_depth() * (own(length) + cross);
        let seen = self.depth * read * read + self.decoder_depth() * length * (length + read);
        LanguageKept { narrow, wide: self.heads * seen + 2 * length * self.vocab_size }
    }
}

impl FamilyConfig for T5Config {
    const NAMES: Names = Names {
        model_type: "t5",
        prefix: "t5_model",
        adaptable: Adaptable { all: &["q", "k", "v", "o", "wi_0", "wi_1", "wo"], by_default: &["q", "v"] },
    };

    fn read(config: &FolderConfig) -> Result<Self, ModelError> {
        let section = config.expect_language_model(Self::NAMES.model_type)?;
        let sizes: Self = config.parse_part(section)?;
        let tokens = [
            ("decoder_start_token_id", sizes.decoder_start_token_id),
            ("eos_token_id", sizes.eos_token_id),
            ("pad_token_id", sizes.pad_token_id),
        ];
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

    fn read(text: &str) -> Result<T5Config, ModelError> {
        family::tests::read(text)
    }

    #[test]
    fn absent_fields_follow_from_others() {
        let published = r#"{"model_type": "t5", "feed_forward_proj": "gated-gelu", "num_layers": 8"#;
        let untied = read(&format!(r#"{published}, "tie_word_embeddings": false}}"#)).unwrap();
        assert_eq!((untied.decoder_depth(), untied.activation()), (8, Activation::GeluNew));
        assert!(!untied.scales_outputs());
        let tied = format!(r#"{published}, "num_decoder_layers": 3, "dense_act_fn": "gelu"}}"#);
        let tied = read(&tied).unwrap();
        assert_eq!((tied.decoder_depth(), tied.activation()), (3, Activation::Gelu));
        assert!(tied.scales_outputs());
    }

    #[test]
    fn unsupported_models_are_named() {
        let error = |text| read(text).unwrap_err().to_string();
        assert!(error(r#"{"model_type": "opt"}"#).contains("`opt`"));
        let first = error(r#"{"model_type": "t5"}"#);
        assert!(first.contains("relu") && first.contains("gated-gelu"), "{first}");
        let gated = r#""feed_forward_proj": "gated-gelu", "relative_attention_num_buckets": 6"#;
        assert!(error(&format!(r#"{{"model_type": "t5", {gated}}}"#)).contains("6 relative"));
    }
}
