//! A captioner and a scorer that compute nothing.

use blip2_tensors::device::DeviceName;

use crate::error::Result;
use crate::scored::ScoredText;
use crate::scoring::{Captioner, CuratedImage, CurationModels, ModelTimes, Scorer};

/// Writes two captions about each image, by its number.
pub(crate) struct FakeCaptioner;

impl Captioner for FakeCaptioner {
    fn captions(&self, images: &[CuratedImage], _: &mut ModelTimes) -> Result<Vec<Vec<String>>> {
        let written = |image: &CuratedImage| {
            ["first", "second"].map(|which| format!("{which} caption of {}", image.draw)).to_vec()
        };
        Ok(images.iter().map(written).collect())
    }
}

/// A score is a function of the text and of what this one likes; texts without a letter have none.
pub(crate) struct FakeScorer {
    /// Moves all scores.
    pub(crate) likes: u8,
}

impl Scorer for FakeScorer {
    fn scores(
        &self,
        images: &[CuratedImage],
        texts: &[Vec<ScoredText>],
        _: &mut ModelTimes,
    ) -> Result<Vec<Option<f32>>> {
        assert_eq!(images.len(), texts.len());
        let score = |scored: &ScoredText| {
            let sum =
                scored.text.bytes().fold(self.likes, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
            scored.text.chars().any(char::is_alphabetic).then(|| f32::from(sum) / 256.0)
        };
        Ok(texts.iter().flatten().map(score).collect())
    }
}

/// Both of them, for two images at a time.
pub(crate) fn fake_models() -> CurationModels {
    CurationModels {
        captioner: Some(Box::new(FakeCaptioner)),
        clip: Some(Box::new(FakeScorer { likes: 1 })),
        itm: None,
        batch: 2,
        device: DeviceName::Cpu,
    }
}
