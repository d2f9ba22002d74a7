//! Warming up: what the first pass of a process costs beyond the later ones is spent before others wait for it.

use std::time::Instant;

use blip2_model::device::KernelsMade;
use blip2_model::nn::dropout::Dropout;
use blip2_model::objectives::contrast::SlotBatch;
use blip2_model::train::tape::Tape;
use burn::tensor::Tensor;

use crate::error::Result;
use crate::state::{empty_stage1, empty_stage2};
use crate::step::FrozenModels;

/// Two words, so that a caption can be cut.
const WARM_UP_CAPTION: &str = "a picture";

impl FrozenModels {
    /// Passes one slot of zeros forward through every model of the run: weights are read into memory, kernels chosen.
    pub(crate) fn warm_up(&self) -> Result<()> {
        let (started, mut kernels) = (Instant::now(), KernelsMade::from_now_on());
        let (config, slots) = (&self.config, self.config.train.slots.max(1));
        if config.stage1.steps > 0 {
            self.warm_up_stage1((config.stage1.batch / slots) as usize)?;
        }
        if config.stage2.steps > 0 {
            self.warm_up_stage2((config.stage2.batch / slots) as usize)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(seconds, kernels = kernels.take(), "warmed up");
        Ok(())
    }

    fn warm_up_stage1(&self, rows: usize) -> Result<()> {
        let text_length = self.config.stage1.text_length;
        let tokens = rows * text_length;
        let device = self.device.clone().autodiff();
        let model = empty_stage1(&self.config, self.sizes, &device)?;
        let batch = SlotBatch {
            image_features: self.features_of_nothing(rows)?,
            ids: vec![0; tokens],
            mask: vec![1; tokens],
            text_length,
        };
        model.features(batch, &mut Dropout::off(), Tape::whole())?;
        Ok(())
    }

    fn warm_up_stage2(&self, rows: usize) -> Result<()> {
        let language = self.language()?;
        let device = self.device.clone().autodiff();
        let model = empty_stage2(&self.config, self.sizes, &device)?;
        let prompt =
            model.forward(self.features_of_nothing(rows)?, &mut Dropout::off(), &mut Tape::whole())?;
        let batch = language.held_out_texts(&vec![WARM_UP_CAPTION.to_string(); rows])?;
        language.model.caption_loss(Some(prompt), &batch.texts(), &self.device)?;
        Ok(())
    }

    /// The encoder's features of black pictures, `[rows, P, Dv]`.
    fn features_of_nothing(&self, rows: usize) -> Result<Tensor<3>> {
        let size = self.encoder.image_size();
        Ok(self.encoder.forward(Tensor::zeros([rows, 3, size, size], &self.device))?)
    }
}
