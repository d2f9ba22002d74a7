//! Sizes of the Q-Former.

use burn::config::Config;

use blip2_model_files::error::ModelError;

/// Sizes of a [`QFormer`](super::QFormer).
#[derive(Config, Debug, PartialEq)]
pub struct QFormerConfig {
    /// Width.
    #[config(default = 768)]
    pub hidden: usize,
    /// Layers.
    #[config(default = 12)]
    pub layers: usize,
    /// Attention heads; a divisor of `hidden`.
    #[config(default = 12)]
    pub heads: usize,
    /// Inner width of the feed-forward parts.
    #[config(default = 3072)]
    pub intermediate: usize,
    /// Rows of the word table.
    #[config(default = 30523)]
    pub vocab: usize,
    /// Rows of the position table.
    #[config(default = 512)]
    pub max_positions: usize,
    /// Learned queries.
    #[config(default = 32)]
    pub queries: usize,
    /// Layers whose index is a multiple of this attend to the image.
    #[config(default = 2)]
    pub cross_attention_frequency: usize,
    /// Width of the image encoder's features.
    pub image_width: usize,
    /// Epsilon of the layer norms.
    #[config(default = 1e-12)]
    pub layer_norm_eps: f64,
    /// Dropout probability in training.
    #[config(default = 0.1)]
    pub dropout: f64,
}

impl QFormerConfig {
    /// Whether layer `index` attends to the image.
    pub fn has_cross_attention(&self, index: usize) -> bool {
        index.is_multiple_of(self.cross_attention_frequency)
    }

    /// Layers that attend to the image.
    pub fn cross_layers(&self) -> usize {
        self.layers.div_ceil(self.cross_attention_frequency)
    }

    /// Refuses sizes that no model can have.
    pub fn validate(&self) -> Result<(), ModelError> {
        let refuse = |reason: String| Err(ModelError::input("Q-Former configuration", reason));
        if self.heads == 0 || !self.hidden.is_multiple_of(self.heads) {
            return refuse(format!(
                "hidden {} is not a multiple of heads {} (hidden_size, num_attention_heads)",
                self.hidden, self.heads
            ));
        }
        for (name, value) in [
            ("layers", self.layers),
            ("queries", self.queries),
            ("intermediate", self.intermediate),
            ("cross_attention_frequency", self.cross_attention_frequency),
            ("image width", self.image_width),
        ] {
            if value == 0 {
                return refuse(format!("{name} is 0"));
            }
        }
        Ok(())
    }
}
