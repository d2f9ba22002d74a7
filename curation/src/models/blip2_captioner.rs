//! Captions that an exported BLIP-2 draws.

use std::path::Path;

use blip2_evaluation::captioning::{self, Decoding};
use burn::tensor::Device;
use image::RgbImage;

use crate::error::Result;
use crate::scoring::{Captioner, CuratedImage, ModelTimes, timed};
use crate::settings::CurationModelSettings;

struct Blip2 {
    model: captioning::Captioner,
    settings: CurationModelSettings,
}

/// Opens a `Blip2ForConditionalGeneration` folder; captions that it has no room for are refused.
pub(super) fn open(
    folder: &Path,
    settings: &CurationModelSettings,
    device: &Device,
) -> Result<Box<dyn Captioner>> {
    let model = captioning::Captioner::open_on(folder, device.clone())?;
    settings.must_fit(model.room().saturating_sub(model.prompt_tokens(&settings.prompt)?))?;
    let model = model.with_batch(settings.batch * settings.captions);
    Ok(Box::new(Blip2 { model, settings: settings.clone() }))
}

impl Captioner for Blip2 {
    fn captions(&self, images: &[CuratedImage], times: &mut ModelTimes) -> Result<Vec<Vec<String>>> {
        let options = self.settings.options(images.iter().map(|image| image.draw));
        let prompts = vec![self.settings.prompt.clone(); images.len()];
        let decoding = Decoding { options, stop: Vec::new(), samples: self.settings.captions };
        let images: Vec<RgbImage> = images.iter().map(|image| image.image.clone()).collect();
        let soft_prompts = timed(&mut times.images, || Ok(self.model.encode(&images)?))?;
        let written =
            timed(&mut times.texts, || Ok(self.model.generate(&soft_prompts, &prompts, &decoding)?))?;
        let texts =
            written.into_iter().map(|captions| captions.into_iter().map(|caption| caption.text).collect());
        Ok(texts.collect())
    }
}
