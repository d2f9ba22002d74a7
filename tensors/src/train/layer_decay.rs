//! Learning rates that shrink with a layer's distance from the top of the image encoder (BEiT, arXiv
//! 2106.08254, after ELECTRA).

use crate::error::TensorError;
use crate::train::encoder_part::EncoderPart;

/// A factor for each layer of an image encoder below its top.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerDecay {
    decay: f64,
    depth: usize,
}

impl LayerDecay {
    /// `decay` for each layer of an encoder of `depth` blocks; 1 leaves all learning rates as they are.
    ///
    /// # Errors
    /// A decay that is not above 0, or above 1.
    pub fn new(decay: f64, depth: usize) -> Result<Self, TensorError> {
        if !(decay > 0.0 && decay <= 1.0) {
            let reason = format!("{decay}, which must be above 0 and at most 1");
            return Err(TensorError::input("layer decay", reason));
        }
        Ok(Self { decay, depth })
    }

    /// What the learning rate of the tensor `name` is multiplied by: 1 outside the image encoder.
    ///
    /// The embeddings are layer 0, block `i` is layer `i + 1`. CLIP's patches and its first norm count to the
    /// last layer, as in LAVIS.
    pub fn scale(&self, name: &str) -> f64 {
        let layer = match EncoderPart::of(name) {
            None => return 1.0,
            Some(EncoderPart::Embeddings) => 0,
            Some(EncoderPart::Block(block)) => block + 1,
            Some(EncoderPart::Beginning) => self.depth,
        };
        libm::pow(self.decay, (self.depth + 1).saturating_sub(layer) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::flat::FlatLayout;
    use crate::train::optimizer::{AdamW, Moments};

    #[test]
    fn the_published_encoders_have_the_published_scales() {
        let close = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{got} and {want}");
        let eva = LayerDecay::new(0.95, 39).unwrap();
        for (name, want) in [
            ("visual_encoder.cls_token", 0.128_512_156_565_103_12),
            ("visual_encoder.patch_embed.proj.bias", 0.128_512_156_565_103_12),
            ("visual_encoder.blocks.38.mlp.fc2.weight", 0.95),
            ("visual_encoder.blocks.37.attn.qkv.bias", 0.9025),
            ("ln_vision.weight", 1.0),
            ("Qformer.bert.encoder.layer.0.attention.self.query.weight", 1.0),
        ] {
            close(eva.scale(name), want);
        }
        let clip = LayerDecay::new(0.95, 23).unwrap();
        for (name, want) in [
            ("visual_encoder.embeddings.class_embedding", 0.291_989_024_338_772_4),
            ("visual_encoder.embeddings.position_embedding.weight", 0.291_989_024_338_772_4),
            ("visual_encoder.embeddings.patch_embedding.weight", 0.95),
            ("visual_encoder.pre_layrnorm.bias", 0.95),
            ("visual_encoder.encoder.layers.22.mlp.fc1.weight", 0.95),
            ("visual_encoder.encoder.layers.0.mlp.fc1.weight", 0.307_356_867_725_023_6),
        ] {
            close(clip.scale(name), want);
        }
        assert_eq!(
            LayerDecay::new(1.0, 39).unwrap().scale("visual_encoder.pos_embed").to_bits(),
            1f64.to_bits()
        );
        assert!(LayerDecay::new(0.0, 39).is_err() && LayerDecay::new(f64::NAN, 39).is_err());
    }

    #[test]
    fn a_scale_is_that_of_the_learning_rate_and_of_the_decay() {
        let adamw = AdamW { beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weight_decay: 0.05 };
        let names = ["a.weight", "b.weight"].map(|name| (name.to_string(), vec![1, 3]));
        let plain = FlatLayout::new(names.to_vec());
        let scaled =
            plain.clone().with_learning_rate_scales(|name| if name.starts_with('b') { 0.25 } else { 1.0 });
        let after = |layout: &FlatLayout, learning_rate: f64| {
            let mut parameters = vec![1.0, -0.3, 0.7, 1.0, -0.3, 0.7];
            let gradient = [0.1, -0.2, 0.3, 0.1, -0.2, 0.3];
            let mut moments = Moments::zeros(6);
            adamw.apply(layout, 1, learning_rate, &mut parameters, &gradient, &mut moments);
            parameters
        };
        let got = after(&scaled.unwrap(), 0.01);
        assert_eq!(got[..3], after(&plain, 0.01)[..3]);
        assert_eq!(got[3..], after(&plain, 0.01 * 0.25)[3..]);
        assert_ne!(got[..3], got[3..]);
        for wrong in [0.0, -1.0, 1.5, f64::NAN] {
            assert!(plain.clone().with_learning_rate_scales(|_| wrong).is_err(), "{wrong}");
        }
    }
}
