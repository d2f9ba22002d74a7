//! Hard negatives: which rows of the global batch they are, and their images' features.

use blip2_model::objectives::contrast::{Contrast, Side};
use blip2_random::KeyedRng;
use burn::tensor::Tensor;

use super::model::{ContrastTask, OpenSlot};
use crate::error::{Result, WorkerError};
use crate::sum::context::{Step, first_row};
use crate::sum::feature_rows::{OwnFeatures, RowTraffic};
use crate::sum::times::Stopwatch;

/// The rows of the global batch that are negatives.
pub(in crate::task) struct Negatives {
    /// For each row of the global batch, whoever holds it, the row of its negative image.
    pub(in crate::task) images: Vec<usize>,
    /// For each own slot, the rows of its rows' negative texts.
    pub(in crate::task) texts: Vec<Vec<usize>>,
}

impl ContrastTask {
    /// Hard negatives, drawn by the samples' keys. Images are drawn for the rows of all members, so that each
    /// knows who needs which of its own; texts are here already. Where all rows have the same image there are
    /// no negatives: each row stands in for its own, and the losses leave it out.
    pub(in crate::task) fn draw_negatives(&self, step: &Step<'_>, contrast: &Contrast) -> Result<Negatives> {
        let draw = |side, purpose: &str, row: usize| {
            let parts = [u64::from(self.stage), step.sample(row)];
            let uniform = KeyedRng::new(self.seed, purpose, &parts).uniform();
            contrast.negative(side, row, uniform).unwrap_or(row)
        };
        let images = (0..contrast.rows()).map(|row| draw(Side::Image, "negative image", row)).collect();
        let mut texts = Vec::with_capacity(step.batch.slots.len());
        for slot in &step.batch.slots {
            let rows = first_row(slot)..first_row(slot) + slot.samples.len();
            // The others draw by what the step says of the samples.
            if !rows.clone().map(|row| step.sample(row)).eq(slot.samples.iter().copied()) {
                let reason =
                    format!("the samples of slot {} are not those of step {}", slot.slot, step.number);
                return Err(WorkerError::Protocol(reason));
            }
            texts.push(rows.map(|row| draw(Side::Text, "negative text", row)).collect());
        }
        Ok(Negatives { images, texts })
    }

    /// For each own slot, the raw features of its rows' negative images, `[b, P, Dv]`. Rows that are
    /// negatives elsewhere are pushed there.
    pub(in crate::task) fn exchange_rows(
        &self,
        step: &Step<'_>,
        slots: &[OpenSlot<'_>],
        negatives: &Negatives,
        watch: &mut Stopwatch,
    ) -> Result<Vec<Tensor<3>>> {
        let Some(first) = slots.first() else { return Ok(Vec::new()) };
        let rows_per_slot = first.batch.samples.len();
        let own = OwnFeatures::new(
            first_row(first.batch),
            slots.iter().map(|slot| slot.features.clone()).collect(),
        );
        let traffic = RowTraffic::of(&negatives.images, step.peers.world, rows_per_slot)?;
        let borrowed = traffic.exchange(step.peers, &own, &step.frozen.device, watch)?;
        let of_slot = |slot: &OpenSlot<'_>| {
            let first = first_row(slot.batch);
            let rows = &negatives.images[first..first + rows_per_slot];
            let rows = rows.iter().map(|row| borrowed.or_own(*row, &own)).collect::<Result<Vec<_>>>()?;
            Ok(Tensor::cat(rows, 0))
        };
        slots.iter().map(of_slot).collect()
    }
}
