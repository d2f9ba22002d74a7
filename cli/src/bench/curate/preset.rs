//! Sizes of published models that curate.

use blip2_model::blip::BlipConfig;
use blip2_model::clip::ClipTextConfig;
use blip2_model::vision::ClipVisionConfig;
use clap::ValueEnum;

use super::speed::CurationSizes;

/// What writes and what scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Preset {
    /// BLIP-base at 224 pixels writes, CLIP's ViT-B/16 scores.
    BlipBase,
}

impl Preset {
    pub(super) fn sizes(self) -> CurationSizes {
        match self {
            Self::BlipBase => CurationSizes {
                captioner: BlipConfig::base(224),
                clip_vision: ClipVisionConfig::vit_b_16(),
                clip_text: ClipTextConfig::default(),
                projection: 512,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preset_has_the_published_sizes() {
        let CurationSizes { captioner, clip_vision, .. } = Preset::BlipBase.sizes();
        assert_eq!(
            (captioner.vision.tokens(), captioner.vision.depth, captioner.vision.width),
            (197, 12, 768)
        );
        assert_eq!((captioner.text.layers, captioner.text.heads, captioner.text.vocab), (12, 12, 30_524));
        assert_eq!((clip_vision.tokens(), clip_vision.depth, clip_vision.width), (197, 12, 768));
    }
}
