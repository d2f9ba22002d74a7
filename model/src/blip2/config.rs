//! The Q-Former's sizes in a BLIP-2 folder.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::qformer::QFormerConfig;
use crate::vision::EvaConfig;
use blip2_model_files::config::FolderConfig;
use blip2_model_files::error::ModelError;

/// `qformer_config`; the defaults are those of `Blip2QFormerConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct QFormerSection {
    pub(crate) model_type: String,
    pub(crate) hidden_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) vocab_size: usize,
    pub(crate) max_position_embeddings: usize,
    pub(crate) cross_attention_frequency: usize,
    pub(crate) encoder_hidden_size: usize,
    pub(crate) layer_norm_eps: f64,
    pub(crate) hidden_act: String,
    pub(crate) hidden_dropout_prob: f64,
    pub(crate) attention_probs_dropout_prob: f64,
    pub(crate) initializer_range: f64,
    pub(crate) pad_token_id: u32,
    pub(crate) use_qformer_text_input: bool,
}

impl Default for QFormerSection {
    fn default() -> Self {
        Self {
            model_type: "blip_2_qformer".into(),
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            vocab_size: 30522,
            max_position_embeddings: 512,
            cross_attention_frequency: 2,
            encoder_hidden_size: 1408,
            layer_norm_eps: 1e-12,
            hidden_act: "gelu".into(),
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            initializer_range: 0.02,
            pad_token_id: 0,
            use_qformer_text_input: false,
        }
    }
}

impl From<&QFormerConfig> for QFormerSection {
    fn from(config: &QFormerConfig) -> Self {
        Self {
            hidden_size: config.hidden,
            num_hidden_layers: config.layers,
            num_attention_heads: config.heads,
            intermediate_size: config.intermediate,
            vocab_size: config.vocab,
            max_position_embeddings: config.max_positions,
            cross_attention_frequency: config.cross_attention_frequency,
            encoder_hidden_size: config.image_width,
            layer_norm_eps: config.layer_norm_eps,
            hidden_dropout_prob: config.dropout,
            attention_probs_dropout_prob: config.dropout,
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
struct Queries {
    #[serde(default = "default_queries")]
    num_query_tokens: usize,
}

fn default_queries() -> usize {
    32
}

/// The Q-Former of a BLIP-2 folder, of whichever of its classes.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedQFormer {
    /// The file that says so.
    pub path: PathBuf,
    /// Its sizes.
    pub config: QFormerConfig,
    /// The epsilon of the norm before it, which in `transformers` is that of the image encoder's norms.
    pub ln_vision_eps: f64,
}

impl PublishedQFormer {
    /// What a folder's `config.json` says; `None` for a file of weights or a run's checkpoint, which have
    /// none.
    ///
    /// # Errors
    /// A folder of another model, or an unsupported setting.
    pub fn of_folder(folder: &Path) -> Result<Option<Self>, ModelError> {
        if !folder.join("config.json").is_file() {
            return Ok(None);
        }
        let config = FolderConfig::open(folder)?;
        if !["blip-2", "instructblip"].contains(&config.model_type()) {
            let found = config.model_type();
            return Err(config.error(format!("model_type `{found}`, expected `blip-2` or `instructblip`")));
        }
        let path = folder.join("config.json");
        let (config, ln_vision_eps) = sizes(&config)?;
        Ok(Some(Self { path, config, ln_vision_eps }))
    }
}

/// The Q-Former's sizes and the epsilon of the norm before it, from the `config.json` of a folder whose
/// Q-Former reads no text, or InstructBLIP's, whose does.
pub(super) fn read_qformer_config(config: &FolderConfig) -> Result<(QFormerConfig, f64), ModelError> {
    if config.model_type() != INSTRUCTBLIP {
        config.require(Some(SECTION), "use_qformer_text_input", &false.into())?;
    }
    sizes(config)
}

/// The `model_type` of folders whose Q-Former reads what is asked.
pub(super) const INSTRUCTBLIP: &str = "instructblip";

/// The Q-Former's section.
pub(super) const SECTION: &str = "qformer_config";

pub(super) fn sizes(config: &FolderConfig) -> Result<(QFormerConfig, f64), ModelError> {
    let section = SECTION;
    config.require(Some(section), "hidden_act", &"gelu".into())?;
    let sizes: QFormerSection = config.parse_section(section)?;
    let vision: EvaConfig = config.parse_section("vision_config")?;
    let Queries { num_query_tokens } = config.parse()?;
    // `transformers` sets the width attended to from the image encoder, whatever the section says.
    let qformer = QFormerConfig::new(vision.width)
        .with_hidden(sizes.hidden_size)
        .with_layers(sizes.num_hidden_layers)
        .with_heads(sizes.num_attention_heads)
        .with_intermediate(sizes.intermediate_size)
        .with_vocab(sizes.vocab_size)
        .with_max_positions(sizes.max_position_embeddings)
        .with_queries(num_query_tokens)
        .with_cross_attention_frequency(sizes.cross_attention_frequency)
        .with_layer_norm_eps(sizes.layer_norm_eps)
        .with_dropout(sizes.hidden_dropout_prob);
    qformer.validate().map_err(|error| config.error(error.to_string()))?;
    Ok((qformer, vision.layer_norm_eps))
}
