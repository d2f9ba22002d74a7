//! Hard negatives: which rows of the global batch they are, and their images' features.

use std::collections::BTreeMap;

use blip2_dataset::loader::SlotBatch;
use blip2_model::objectives::contrast::{Contrast, Side};
use blip2_random::KeyedRng;
use burn::tensor::Tensor;
use bytes::Bytes;

use super::{ContrastTask, OpenSlot};
use crate::error::{Result, WorkerError};
use crate::sum::context::{Step, first_row};
use crate::sum::feature_rows::{joined, row_tensor};
use crate::sum::peers::Peers;
use crate::sum::times::Stopwatch;

/// For each of a slot's rows, the global rows of its negative image and text.
pub(super) struct SlotNegatives {
    pub(super) images: Vec<usize>,
    pub(super) texts: Vec<usize>,
}

impl ContrastTask {
    /// Hard negatives of a slot's rows, drawn by the sample's key.
    pub(super) fn draw_negatives(&self, slot: &SlotBatch, contrast: &Contrast) -> SlotNegatives {
        let first = first_row(slot);
        let draw = |side, purpose: &str| {
            let rows = slot.samples.iter().enumerate();
            rows.map(|(index, sample)| {
                let row = first + index;
                let parts = [u64::from(self.stage), *sample];
                let uniform = KeyedRng::new(self.seed, purpose, &parts).uniform();
                Contrast::draw(&contrast.negative_weights(side, row), row, uniform)
            })
            .collect()
        };
        SlotNegatives {
            images: draw(Side::Image, "negative image"),
            texts: draw(Side::Text, "negative text"),
        }
    }

    /// For each own slot, the raw features of its rows' negative images, `[b, P, Dv]`.
    pub(super) fn negative_images(
        &self,
        step: &Step<'_>,
        slots: &[OpenSlot<'_>],
        negatives: &[SlotNegatives],
        watch: &mut Stopwatch,
    ) -> Result<Vec<Tensor<3>>> {
        let Some(first) = slots.first() else { return Ok(Vec::new()) };
        let [rows, positions, width] = first.features.dims();
        let own_first = first_row(first.batch);
        let own = own_first..own_first + rows * slots.len();
        let wanted = negatives.iter().flat_map(|slot| &slot.images).filter(|row| !own.contains(*row));
        watch.time(
            |times| &mut times.exchange,
            || {
                let fetched = fetch(step.peers, rows, wanted)?;
                let tensor_of = |row: &usize| -> Result<Tensor<3>> {
                    if own.contains(row) {
                        let slot = &slots[(row - own_first) / rows];
                        return Ok(slot.features.clone().narrow(0, (row - own_first) % rows, 1));
                    }
                    let bytes = fetched.get(&(*row as u64)).ok_or_else(|| {
                        WorkerError::Protocol(format!("the features of row {row} did not come"))
                    })?;
                    row_tensor(bytes, *row, [positions, width], &step.frozen.device)
                };
                let slots = negatives.iter();
                slots
                    .map(|slot| Ok(joined(slot.images.iter().map(tensor_of).collect::<Result<_>>()?)))
                    .collect()
            },
        )
    }
}

/// Rows of other members, each once.
fn fetch<'r>(
    peers: &Peers<'_>,
    rows_per_slot: usize,
    wanted: impl Iterator<Item = &'r usize>,
) -> Result<BTreeMap<u64, Bytes>> {
    let mut by_member: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for row in wanted {
        let slot = (row / rows_per_slot) as u32;
        let owner = peers.world.members.iter().find(|member| member.slots.contains(&slot));
        let owner = owner.ok_or_else(|| WorkerError::Protocol(format!("nobody holds slot {slot}")))?;
        by_member.entry(owner.id).or_default().push(*row as u64);
    }
    if by_member.is_empty() {
        return Ok(BTreeMap::new());
    }
    for rows in by_member.values_mut() {
        rows.sort_unstable();
        rows.dedup();
    }
    let wanted = by_member.into_iter().collect();
    let fetched = peers.exchange.fetch_rows(peers.step, wanted, peers.deadline);
    Ok(peers.runtime.block_on(fetched)?.into_iter().collect())
}
