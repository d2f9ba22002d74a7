//! The frozen models and the Q-Former.

use std::fmt;
use std::path::Path;

use blip2_model::qformer::QFormerConfig;
use blip2_model_files::formats::{is_gguf, is_weight_file};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The frozen parts and the Q-Former.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSettings {
    /// Folder or URL of the frozen image encoder, in Hugging Face layout, or LAVIS's file of one alone
    /// (`eva_vit_g.pth`, `clip_vit_L.pth`).
    pub image_encoder: String,
    /// Side of the square images in pixels, a multiple of the encoder's patch, whose position table is
    /// resized, e.g. from 224 to 364 or 490; 0: the encoder's own.
    #[schemars(range(min = 0, max = 16_384))]
    pub image_size: usize,
    /// Folder or URL of the frozen language model (OPT, T5 or Llama), where a stage is trained through one,
    /// or a Llama's GGUF file.
    pub language_model: String,
    /// Numbers of both, of their matrices and the activations between them, with norms and softmax in
    /// float32: `f32`, `bf16`, or `auto`, which is `bf16` on a GPU that computes in it and `f32` elsewhere.
    /// What is trained is float32 always.
    pub frozen_dtype: FrozenDtype,
    /// Folder or URL of the BERT that the Q-Former starts from, or its file of weights; empty: random.
    pub qformer_init: String,
    /// Folder or URL of the Q-Former's tokenizer; BERT's gets the token `[DEC]`, as in LAVIS.
    pub qformer_tokenizer: String,
    /// What to start from, a path or URL: a run (its newest whole checkpoint, which is then pinned), one of
    /// its checkpoints, a LAVIS file, or a BLIP-2 folder of `transformers`; empty: nothing.
    pub init_checkpoint: String,
    /// Epsilon of `ln_vision`: 1e-5 in LAVIS, 1e-6 in `transformers`.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub ln_vision_eps: f64,
    /// Sizes of the Q-Former.
    pub qformer: QFormerSettings,
}

/// Sizes of the Q-Former.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QFormerSettings {
    /// Width of the Q-Former.
    #[schemars(range(min = 1, max = 65_536))]
    pub hidden: usize,
    /// Its layers.
    #[schemars(range(min = 1, max = 1024))]
    pub layers: usize,
    /// Its attention heads.
    #[schemars(range(min = 1, max = 1024))]
    pub heads: usize,
    /// Width of its feed-forward layers.
    #[schemars(range(min = 1, max = 1 << 20))]
    pub intermediate: usize,
    /// Learned queries.
    #[schemars(range(min = 1, max = 4096))]
    pub queries: usize,
    /// Every n-th layer attends to the image.
    #[schemars(range(min = 1, max = 1024))]
    pub cross_attention_frequency: usize,
    /// Rows of the position table.
    #[schemars(range(min = 1, max = 65_536))]
    pub max_positions: usize,
    /// Width of the contrastive space.
    #[schemars(range(min = 1, max = 65_536))]
    pub embed_dim: usize,
    /// Dropout probability.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub dropout: f64,
}

/// Numbers of the frozen models: of their matrices, and of the activations between them. What is trained is
/// float32 always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FrozenDtype {
    /// bf16 on a GPU that computes in it, float32 elsewhere.
    #[default]
    Auto,
    /// float32.
    F32,
    /// bf16.
    Bf16,
}

impl fmt::Display for FrozenDtype {
    /// As a configuration names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            image_encoder: String::new(),
            image_size: 0,
            language_model: String::new(),
            frozen_dtype: FrozenDtype::Auto,
            qformer_init: String::new(),
            qformer_tokenizer: String::new(),
            init_checkpoint: String::new(),
            ln_vision_eps: 1e-5,
            qformer: QFormerSettings::default(),
        }
    }
}

impl Default for QFormerSettings {
    fn default() -> Self {
        Self {
            hidden: 768,
            layers: 12,
            heads: 12,
            intermediate: 3072,
            queries: 32,
            cross_attention_frequency: 2,
            max_positions: 512,
            embed_dim: 256,
            dropout: 0.1,
        }
    }
}

impl ModelSettings {
    /// The folders and files named.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &str> {
        let named = [
            &self.image_encoder,
            &self.language_model,
            &self.qformer_init,
            &self.qformer_tokenizer,
            &self.init_checkpoint,
        ];
        named.into_iter().map(String::as_str)
    }

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

/// Whether the setting `key` may name the file `path` in the place of a folder: a Llama's GGUF file, or the
/// weights of an image encoder or a BERT alone.
pub fn is_model_file(key: &str, path: &Path) -> bool {
    let named = match key {
        "model.language_model" => is_gguf(path),
        "model.image_encoder" | "model.qformer_init" => is_weight_file(path),
        _ => false,
    };
    named && path.is_file()
}
