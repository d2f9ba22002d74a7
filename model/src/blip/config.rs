//! Sizes of BLIP's models.

use serde::Deserialize;

use crate::qformer::QFormerConfig;
use crate::vision::EvaConfig;
use blip2_model_files::config::FolderConfig;
use blip2_model_files::error::ModelError;

/// `vision_config`; the defaults are those of `BlipVisionConfig`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
struct VisionSection {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    image_size: usize,
    patch_size: usize,
    layer_norm_eps: f64,
}

impl Default for VisionSection {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            image_size: 384,
            patch_size: 16,
            layer_norm_eps: 1e-5,
        }
    }
}

/// `text_config`; the defaults are those of `BlipTextConfig`, the eight heads that no published model has
/// among them.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
struct TextSection {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    layer_norm_eps: f64,
    bos_token_id: u32,
    sep_token_id: u32,
    pad_token_id: u32,
}

impl Default for TextSection {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            intermediate_size: 3072,
            vocab_size: 30524,
            max_position_embeddings: 512,
            layer_norm_eps: 1e-12,
            bos_token_id: 30522,
            sep_token_id: 102,
            pad_token_id: 0,
        }
    }
}

/// Fields outside the sections.
#[derive(Deserialize)]
struct Projection {
    #[serde(default = "default_projection")]
    image_text_hidden_size: usize,
}

fn default_projection() -> usize {
    256
}

/// Sizes and special tokens of BLIP's models.
#[derive(Debug, Clone, PartialEq)]
pub struct BlipConfig {
    /// The image encoder, whose layers are those of the EVA layout.
    pub vision: EvaConfig,
    /// Width, layers and tables of the text model; it attends to the image in every layer and has no queries.
    pub text: QFormerConfig,
    /// Width of the space in which images and texts are compared.
    pub projection: usize,
    /// Starts every text that is written, `[DEC]`.
    pub start_token: u32,
    /// Ends a text, `[SEP]`.
    pub end_token: u32,
    /// Fills a batch.
    pub pad_token: u32,
}

impl BlipConfig {
    /// BLIP-base, whose image encoder is a ViT-B/16, for images of so many pixels.
    pub fn base(image_size: usize) -> Self {
        let vision = VisionSection { image_size, ..VisionSection::default() };
        let text = TextSection { num_attention_heads: 12, ..TextSection::default() };
        Self::of_sections(&vision, &text, default_projection())
    }

    /// Reads the `config.json` of a BLIP folder.
    ///
    /// # Errors
    /// Another model, sizes that no model can have, or another activation than the exact GELU.
    pub(super) fn read(config: &FolderConfig) -> Result<Self, ModelError> {
        if config.model_type() != "blip" {
            return Err(config.error(format!("model_type `{}`, expected `blip`", config.model_type())));
        }
        for section in ["vision_config", "text_config"] {
            config.require(Some(section), "hidden_act", &"gelu".into())?;
        }
        let vision: VisionSection = config.parse_section("vision_config")?;
        let text: TextSection = config.parse_section("text_config")?;
        let Projection { image_text_hidden_size } = config.parse()?;
        let read = Self::of_sections(&vision, &text, image_text_hidden_size);
        read.validate().map_err(|error| config.error(error.to_string()))?;
        Ok(read)
    }

    fn of_sections(vision: &VisionSection, text: &TextSection, projection: usize) -> Self {
        Self {
            // `transformers` takes the width attended to from the image encoder, whatever the text section
            // says.
            text: text_sizes(text, vision.hidden_size),
            vision: EvaConfig {
                width: vision.hidden_size,
                depth: vision.num_hidden_layers,
                heads: vision.num_attention_heads,
                intermediate: vision.intermediate_size,
                image_size: vision.image_size,
                patch_size: vision.patch_size,
                layer_norm_eps: vision.layer_norm_eps,
            },
            projection,
            start_token: text.bos_token_id,
            end_token: text.sep_token_id,
            pad_token: text.pad_token_id,
        }
    }

    fn validate(&self) -> Result<(), ModelError> {
        self.vision.validate()?;
        self.text.validate()?;
        for (name, token) in [("start", self.start_token), ("end", self.end_token), ("pad", self.pad_token)] {
            if token as usize >= self.text.vocab {
                let reason = format!("{name} token {token}, the model has {}", self.text.vocab);
                return Err(ModelError::input("BLIP configuration", reason));
            }
        }
        Ok(())
    }
}

fn text_sizes(text: &TextSection, image_width: usize) -> QFormerConfig {
    QFormerConfig::new(image_width)
        .with_hidden(text.hidden_size)
        .with_layers(text.num_hidden_layers)
        .with_heads(text.num_attention_heads)
        .with_intermediate(text.intermediate_size)
        .with_vocab(text.vocab_size)
        .with_max_positions(text.max_position_embeddings)
        .with_cross_attention_frequency(1)
        .with_layer_norm_eps(text.layer_norm_eps)
        .with_dropout(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BlipConfig, ModelError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        BlipConfig::read(&FolderConfig::open(folder.path())?)
    }

    #[test]
    fn absent_fields_have_the_published_defaults() {
        let config = read(
            r#"{"model_type": "blip", "vision_config": {"hidden_size": 1024, "num_attention_heads": 16}}"#,
        );
        let config = config.unwrap();
        assert_eq!((config.vision.tokens(), config.text.image_width), (577, 1024));
        assert_eq!((config.start_token, config.end_token, config.projection), (30522, 102, 256));
    }

    #[test]
    fn other_models_and_sizes_are_refused() {
        let error = |text| read(text).unwrap_err().to_string();
        assert!(error(r#"{"model_type": "blip-2"}"#).contains("`blip-2`"));
        assert!(error(r#"{"model_type": "blip", "text_config": {"vocab_size": 99}}"#).contains("30522"));
        assert!(error(r#"{"model_type": "blip", "text_config": {"hidden_act": "relu"}}"#).contains("relu"));
        assert!(
            error(r#"{"model_type": "blip", "text_config": {"num_attention_heads": 7}}"#).contains("heads")
        );
    }
}
