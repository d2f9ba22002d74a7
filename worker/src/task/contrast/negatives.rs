//! Hard negatives: which rows of the global batch they are, and their images' features.

use blip2_model::objectives::contrast::{Contrast, Side};
use blip2_random::KeyedRng;

use super::model::{ContrastTask, OpenSlot};
use crate::error::{Result, WorkerError};
use crate::sum::context::{Step, first_row};
use crate::sum::feature_rows::OwnFeatures;
use crate::sum::row_rounds::RowLoans;

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

    /// Rows that are the negatives of others are pushed to who holds these, and come from there.
    pub(in crate::task) fn row_loans<'a>(
        step: &'a Step<'_>,
        slots: &[OpenSlot<'_>],
        negatives: &'a Negatives,
    ) -> RowLoans<'a> {
        let first = slots.first().map_or(0, |slot| first_row(slot.batch));
        let features = slots.iter().map(|slot| slot.features.clone()).collect();
        RowLoans {
            peers: step.peers,
            device: &step.frozen.device,
            own: OwnFeatures::new(first, features),
            needs: &negatives.images,
            overlap: step.frozen.overlaps(),
        }
    }
}
