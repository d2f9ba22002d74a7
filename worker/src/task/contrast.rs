//! A stage-1 step (`docs/architecture.md`, "The stage-1 step").

use std::collections::BTreeMap;

use blip2_dataset::loader::{SlotBatch, StepBatch};
use blip2_dataset::random::KeyedRng;
use blip2_model::device::read_back;
use blip2_model::objectives::contrast::{self, Contrast, GlobalBatch, Side, SlotContext, SlotForward};
use blip2_model::train::loss::LossValue;
use blip2_model::train::tape::Tape;
use blip2_proto::drill::DrillPhase;
use burn::tensor::Tensor;
use bytes::Bytes;

use crate::error::{Result, WorkerError};
use crate::state::TrainState;
use crate::step::feature_rows::{joined, row_tensor, rows_of};
use crate::step::landing::Beside;
use crate::step::non_finite::{odd_slots, slots_of};
use crate::step::times::Stopwatch;
use crate::step::{Computed, FrozenModels, Peers};
use crate::wire_values::{floats, integers};

const STAGE: u32 = 1;

const FEATURE_DROPOUT: &str = "dropout of stage 1's features";
const LOSS_DROPOUT: &str = "dropout of stage 1's losses";

/// A row of the global batch, and its raw features.
type RawRow = (u64, Bytes);

/// A slot between the two halves of its step.
struct OpenSlot<'a> {
    batch: &'a SlotBatch,
    features: Tensor<3>,
    forward: SlotForward,
}

/// For each of a slot's rows, the global rows of its negative image and text.
struct SlotNegatives {
    images: Vec<usize>,
    texts: Vec<usize>,
}

impl FrozenModels {
    /// The gradient of the global batch's loss, and the values to report.
    pub(crate) fn contrast_gradient(
        &self,
        state: &mut TrainState,
        members: &Peers<'_>,
        step: u64,
        batch: &StepBatch,
        watch: &mut Stopwatch,
    ) -> Result<Computed> {
        let config = &self.config;
        let mut open = Vec::with_capacity(batch.slots.len());
        for slot in &batch.slots {
            open.push(self.open_slot(state, step, slot, watch)?);
        }
        let others = members.world.members.len() > 1;
        let (own, rows) = watch.time(|times| &mut times.to_host, || self.own_rows(&open, others))?;
        if others {
            members.exchange.publish_rows(members.step, rows)?;
        }
        let global = watch.time(|times| &mut times.exchange, || self.gather(members, own))?;
        let temperature = state.temperature()?;
        let smoothing = config.stage1.label_smoothing;
        let contrast = watch
            .time(|times| &mut times.forward, || global.contrast(temperature, smoothing, &self.device))?;
        let negatives: Vec<SlotNegatives> =
            open.iter().map(|slot| self.negatives(slot.batch, &contrast)).collect();
        let images =
            watch.time(|times| &mut times.exchange, || self.negative_images(members, &open, &negatives))?;

        let parts = state.parts.clone();
        let plan = self.sum_plan(&parts, batch)?;
        self.rehearse(DrillPhase::Reduction, members.step);
        let buffer = std::mem::take(&mut state.spare);
        let buffers = std::mem::take(&mut state.spare_next);
        let TrainState { model, parameters, moments, .. } = state;
        let beside = Beside { parameters, moments, buffers, device: self.device.clone().autodiff() };
        let landing = self.landing((STAGE, step), &parts, buffer, beside, None);
        let landed = members.sum(&plan, landing, watch, |slots, watch| {
            for ((slot, negatives), negative_images) in open.into_iter().zip(&negatives).zip(images) {
                let context = SlotContext {
                    global: &global,
                    contrast: &contrast,
                    first_row: self.first_row(slot.batch),
                    negative_images,
                    negative_texts: &negatives.texts,
                    mode: config.train.gradients.into(),
                    smoothing,
                    decoder_start: self.decoder_start,
                };
                let mut dropout = self.dropout(LOSS_DROPOUT, step, slot.batch.slot);
                let loss = watch.time(
                    |times| &mut times.forward,
                    || {
                        Ok::<_, WorkerError>(model.stage1()?.slot_loss(
                            slot.forward,
                            &context,
                            &mut dropout,
                        )?)
                    },
                )?;
                let values = [loss.matching, loss.captioning];
                slots
                    .push_values(move || Ok(LossValue::read_all(values)?.map(|loss| loss as f32).to_vec()))?;
                slots.backward(model, loss.tape, loss.objective, watch)?;
            }
            Ok(())
        })?;
        let [matching, captioning] = landed.values[..] else {
            return Err(WorkerError::Protocol("the summed losses have another length".into()));
        };
        let (matching, captioning) = (f64::from(matching), f64::from(captioning));
        let is_finite = contrast.loss.is_finite() && matching.is_finite() && captioning.is_finite();
        let odd_slots = match is_finite {
            true => Vec::new(),
            false => self.odd_slots(batch, &global, &landed.own_values),
        };
        let values = vec![
            ("loss", contrast.loss + matching + captioning),
            ("loss_itc", contrast.loss),
            ("loss_itm", matching),
            ("loss_lm", captioning),
            ("temperature", f64::from(temperature)),
        ];
        Ok(Computed { landed, values, odd_slots })
    }

    /// Own slots to blame for a loss that is not finite: a row whose features are not finite spoils the losses of others.
    fn odd_slots(&self, batch: &StepBatch, global: &GlobalBatch, own_values: &[Vec<f32>]) -> Vec<u32> {
        let odd_rows = global.odd_rows();
        if odd_rows.is_empty() {
            return odd_slots(batch, own_values);
        }
        slots_of(batch, |index| {
            let slot = &batch.slots[index];
            let (first, rows) = (self.first_row(slot), slot.samples.len());
            odd_rows.iter().any(|row| (first..first + rows).contains(row))
        })
    }

    /// The slot's first row in the global batch.
    fn first_row(&self, slot: &SlotBatch) -> usize {
        slot.slot as usize * slot.samples.len()
    }

    fn open_slot<'a>(
        &self,
        state: &TrainState,
        step: u64,
        slot: &'a SlotBatch,
        watch: &mut Stopwatch,
    ) -> Result<OpenSlot<'a>> {
        let features = watch.time(|times| &mut times.encoder, || self.image_features(slot))?;
        let batch = contrast::SlotBatch {
            image_features: features.clone(),
            ids: slot.ids.clone(),
            mask: slot.mask.clone(),
            text_length: self.config.stage1.text_length,
        };
        let mut dropout = self.dropout(FEATURE_DROPOUT, step, slot.slot);
        let forward = watch.time(
            |times| &mut times.forward,
            || {
                Ok::<_, WorkerError>(state.model.stage1()?.features(
                    batch,
                    &mut dropout,
                    Tape::segmented(),
                )?)
            },
        )?;
        Ok(OpenSlot { batch: slot, features, forward })
    }

    /// Features, ids and masks of the own slots, as [`FrozenModels::gather`] takes them; and, if the rows are to be published, the raw
    /// features of each, for members whose rows have them as negatives. The device is waited for once.
    fn own_rows(&self, open: &[OpenSlot<'_>], published: bool) -> Result<(Vec<u8>, Vec<RawRow>)> {
        let images = open.iter().map(|slot| slot.forward.image_feats.clone().inner().flatten(0, 2));
        let texts = open.iter().map(|slot| slot.forward.text_feat.clone().inner().flatten(0, 1));
        let raw = open.iter().filter(|_| published).map(|slot| slot.features.clone().flatten(0, 2));
        let mut read = read_back::all_bytes(images.chain(texts).chain(raw).collect::<Vec<Tensor<1>>>())?;
        let raw = read.split_off(2 * open.len());
        let ids = open.iter().map(|slot| bytemuck::cast_slice(&slot.batch.ids));
        let mask = open.iter().map(|slot| bytemuck::cast_slice(&slot.batch.mask));
        let features = read.iter().map(Vec::as_slice);
        let own = features.chain(ids).chain(mask).collect::<Vec<&[u8]>>().concat();
        let mut rows = Vec::new();
        for (slot, features) in open.iter().zip(raw) {
            let first = self.first_row(slot.batch) as u64;
            rows.extend((first..).zip(rows_of(features, slot.batch.samples.len())));
        }
        Ok((own, rows))
    }

    /// Features, ids and masks of all slots, from those of the own ones.
    fn gather(&self, members: &Peers<'_>, own: Vec<u8>) -> Result<GlobalBatch> {
        let settings = &self.config.model.qformer;
        let text_length = self.config.stage1.text_length;
        let mut global = GlobalBatch {
            queries: settings.queries,
            embed_dim: settings.embed_dim,
            text_length,
            ..GlobalBatch::default()
        };
        let image_values = settings.queries * settings.embed_dim;
        let row_bytes = 4 * (image_values + settings.embed_dim + 2 * text_length);
        for buffer in members.all_gather("features", own.into())? {
            if buffer.len() % row_bytes != 0 {
                let reason =
                    format!("a member's features have {} bytes, rows have {row_bytes}", buffer.len());
                return Err(WorkerError::Protocol(reason));
            }
            let rows = buffer.len() / row_bytes;
            let (images, rest) = buffer.split_at(4 * rows * image_values);
            let (texts, rest) = rest.split_at(4 * rows * settings.embed_dim);
            let (buffer_ids, buffer_mask) = rest.split_at(4 * rows * text_length);
            global.image_feats.extend(floats(images)?);
            global.text_feats.extend(floats(texts)?);
            global.ids.extend(integers(buffer_ids)?);
            global.mask.extend(integers(buffer_mask)?);
        }
        if global.rows() != self.config.stage1.batch as usize {
            let reason = format!("gathered {} rows of {}", global.rows(), self.config.stage1.batch);
            return Err(WorkerError::Protocol(reason));
        }
        Ok(global)
    }

    /// Hard negatives of a slot's rows, drawn by the sample's key.
    fn negatives(&self, slot: &SlotBatch, contrast: &Contrast) -> SlotNegatives {
        let first = self.first_row(slot);
        let draw = |side, purpose: &str| {
            let rows = slot.samples.iter().enumerate();
            rows.map(|(index, sample)| {
                let row = first + index;
                let parts = [u64::from(STAGE), *sample];
                let uniform = KeyedRng::new(self.config.train.seed, purpose, &parts).uniform();
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
    fn negative_images(
        &self,
        members: &Peers<'_>,
        open: &[OpenSlot<'_>],
        negatives: &[SlotNegatives],
    ) -> Result<Vec<Tensor<3>>> {
        let Some(first) = open.first() else { return Ok(Vec::new()) };
        let [rows, positions, width] = first.features.dims();
        let own_first = self.first_row(first.batch);
        let own = own_first..own_first + rows * open.len();
        let wanted = negatives.iter().flat_map(|slot| &slot.images).filter(|row| !own.contains(*row));
        let fetched = self.fetch(members, rows, wanted)?;
        let tensor_of = |row: &usize| -> Result<Tensor<3>> {
            if own.contains(row) {
                let slot = &open[(row - own_first) / rows];
                return Ok(slot.features.clone().narrow(0, (row - own_first) % rows, 1));
            }
            let bytes = fetched
                .get(&(*row as u64))
                .ok_or_else(|| WorkerError::Protocol(format!("the features of row {row} did not come")))?;
            row_tensor(bytes, *row, [positions, width], &self.device)
        };
        negatives
            .iter()
            .map(|slot| {
                let rows = slot.images.iter().map(tensor_of).collect::<Result<Vec<_>>>()?;
                Ok(joined(rows))
            })
            .collect()
    }

    /// Rows of other members, each once.
    fn fetch<'r>(
        &self,
        members: &Peers<'_>,
        rows_per_slot: usize,
        wanted: impl Iterator<Item = &'r usize>,
    ) -> Result<BTreeMap<u64, Bytes>> {
        let mut by_member: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for row in wanted {
            let slot = (row / rows_per_slot) as u32;
            let owner = members.world.members.iter().find(|member| member.slots.contains(&slot));
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
        let fetched = members.exchange.fetch_rows(members.step, wanted, members.deadline);
        Ok(members.runtime.block_on(fetched)?.into_iter().collect())
    }
}
