//! The backward pass on to the pixels: the losses' gradient of the image features, home to who holds each
//! image, and through the encoder.

use blip2_model::objectives::contrast::{
    Contrast, GlobalBatch, GlobalFeatures, NegativeGradient, add_negatives, negative_gradients,
};
use blip2_tensors::train::tape::Segment;
use burn::tensor::{Gradients, Tensor};

use super::model::{EncodedImages, OpenImages, RetrievalTask, leaf};
use crate::error::{Result, WorkerError};
use crate::sum::context::{Step, first_row};
use crate::sum::row_gradients::WayHome;
use crate::sum::slots::Slots;
use crate::sum::times::Stopwatch;
use crate::task::contrast::model::OpenSlot;

impl RetrievalTask {
    /// Differentiates a slot's losses down to the image features. What these got comes back, if the encoder
    /// is trained.
    pub(super) fn backward<'a>(
        &mut self,
        step: &Step<'_>,
        (slot, images): (OpenSlot<'a>, Option<EncodedImages>),
        all: (&GlobalBatch, &GlobalFeatures, &Contrast),
        (negative_texts, negative_images): (&[usize], Tensor<3>),
        sums: &mut Slots<'_>,
        watch: &mut Stopwatch,
    ) -> Result<Option<OpenImages<'a>>> {
        let batch = slot.batch;
        let contrast = &mut self.contrast;
        let Some(EncodedImages { leaf: own, pass }) = images else {
            let negatives = (negative_texts, negative_images);
            let (tape, objective) = contrast.slot_loss(step, slot, all, negatives, sums, watch)?;
            sums.backward(&mut contrast.model, tape, objective, watch)?;
            return Ok(None);
        };
        let negatives = leaf(negative_images);
        let (tape, objective) =
            contrast.slot_loss(step, slot, all, (negative_texts, negatives.clone()), sums, watch)?;
        let (mut of_own, mut of_negatives) = (None, None);
        let take = |segment, gradients: &mut Gradients| {
            if segment == Segment::Inputs {
                of_own = own.grad_remove(gradients);
                of_negatives = negatives.grad_remove(gradients);
            }
        };
        sums.backward_to(&mut contrast.model, tape, objective, take, watch)?;
        let Some(of_own) = of_own else {
            return Err(WorkerError::Protocol(format!("slot {} has no gradient of its images", batch.slot)));
        };
        // Negatives that no loss counts have none.
        let of_negatives = of_negatives.unwrap_or_else(|| of_own.clone().zeros_like());
        Ok(Some(OpenImages { batch, own: of_own, negatives: of_negatives, pass }))
    }

    /// Sends the gradients of negative images home, adds those that come, and goes on through the encoder
    /// with the own slots' images, in slot order. `negatives` says for each row of the global batch the row
    /// of its negative image, where there are negatives.
    ///
    /// What is above the encoder travels and lands meanwhile.
    pub(super) fn backward_through_encoder(
        &mut self,
        step: &Step<'_>,
        open: Vec<OpenImages<'_>>,
        negatives: Option<&[usize]>,
        sums: &mut Slots<'_>,
        watch: &mut Stopwatch,
    ) -> Result<()> {
        let Some(encoder) = self.encoder.trained().cloned() else { return Ok(()) };
        let arrived = match negatives {
            Some(images) => go_home(step, &open, images, watch)?,
            None => Vec::new(),
        };
        for (place, OpenImages { batch, own, pass, .. }) in open.into_iter().enumerate() {
            let rows = first_row(batch)..first_row(batch) + batch.samples.len();
            let here = arrived.iter().filter(|negative| rows.contains(&negative.image)).cloned().collect();
            let gradient =
                watch.time(|times| &mut times.backward, || add_negatives(own, rows.start, here))?;
            let pass = match pass {
                Some(pass) => pass,
                None => {
                    watch.bytes.to_device += batch.pixels.len() as u64;
                    self.encoder.pass(&encoder, step, batch, watch)?
                }
            };
            let mut give = |segment, gradients: &mut Gradients| sums.add(place, self, segment, gradients);
            watch.time(|times| &mut times.backward, || encoder.backward(pass, gradient, &mut give))?;
        }
        Ok(())
    }
}

/// The gradients of the own slots' images as negatives, of whomever.
fn go_home(
    step: &Step<'_>,
    open: &[OpenImages<'_>],
    images: &[usize],
    watch: &mut Stopwatch,
) -> Result<Vec<NegativeGradient>> {
    let Some(first) = open.first() else { return Ok(Vec::new()) };
    let rows_per_slot = first.batch.samples.len();
    let mut found = Vec::new();
    for slot in open {
        let first = first_row(slot.batch);
        let of_slot = images.get(first..first + rows_per_slot).unwrap_or_default();
        found.extend(negative_gradients(first, of_slot, slot.negatives.clone())?);
    }
    let way = WayHome::of(images, step.peers.world, rows_per_slot)?;
    way.exchange(step.peers, found, &step.frozen.device, watch)
}
