//! Evaluation on held-out rows at a step's end: of the state that the step's gradient leads to, which is computed beside
//! the state that is held, so that nothing of that one changes.
//!
//! Rows go in units of fixed size. A unit is computed by one member; its numbers are gathered and added in the order of
//! the units. So the result is the same, bit for bit, for any number of members.

use std::borrow::Cow;

use blip2_dataset::image::transform::EvalTransform;
use blip2_dataset::random::KeyedRng;
use blip2_evaluation::held_out::{HeldOut, HeldOutRow, Readers};
use blip2_evaluation::image_transform::{resampling, statistics};
use blip2_evaluation::metrics::retrieval::recalls_of_captions;
use blip2_evaluation::retrieval::best_of_queries;
use blip2_model::device::read_back;
use blip2_model::nn::dropout::Dropout;
use blip2_model::objectives::contrast::{self, Contrast, ContrastModel, GlobalBatch, Side, SlotContext};
use blip2_model::objectives::generate::GenerateModel;
use blip2_model::train::loss::LossValue;
use blip2_model::train::tape::Tape;
use burn::tensor::{Int, Tensor, TensorData};
use bytes::Bytes;

use super::pixels::normalised_pixels;
use super::{FrozenModels, Peers, StepGradient, StepValues, Update};
use crate::error::{Result, WorkerError};
use crate::language::Language;
use crate::open::qformer_text;
use crate::state::{StageModel, TrainState, empty_stage1, empty_stage2};
use crate::wire_values::floats;

/// What a draw of a held-out row's negatives is for.
const NEGATIVE_IMAGE: &str = "negative image of a held-out row";
const NEGATIVE_TEXT: &str = "negative text of a held-out row";
/// Images whose similarities with all texts are computed at a time.
const IMAGES: usize = 64;
/// First byte of what a member gives the others that could evaluate its units, and of one that could not.
const DONE: u8 = 1;
const FAILED: u8 = 0;
/// That byte and the digest of the rows.
const HEAD: usize = 33;

/// The texts and features of all held-out rows.
struct Gathered {
    global: GlobalBatch,
    /// Loss of each unit, summed over its rows and over its predicted tokens.
    matching: f64,
    captioning: f64,
}

impl FrozenModels {
    /// Reads the held-out rows that the configuration names.
    ///
    /// # Errors
    /// A file cannot be read, or fewer than two rows can be used.
    pub async fn read_held_out(&self) -> Result<HeldOut> {
        let config = &self.config;
        let resampling = resampling(&self.processor);
        let (qformer, _) = qformer_text(&config.model, config.stage1.text_length)?;
        let readers = Readers {
            transform: EvalTransform { resampling, ..EvalTransform::new(self.encoder.image_size()) },
            qformer,
            language_model: self.language.as_ref().map(Language::encoder),
        };
        Ok(HeldOut::read(&config.eval, &config.data.columns, config.data.max_pixels, readers).await?)
    }

    /// Measures the state after `gradient` on the held-out rows; `step` counts within the stage. A member that cannot
    /// evaluate says so to the others, and all go on without numbers but how many could not.
    ///
    /// # Errors
    /// The exchange with the other members fails.
    pub fn evaluate(
        &self,
        held_out: Result<&HeldOut>,
        state: &TrainState,
        members: &Peers<'_>,
        step: u64,
        gradient: &StepGradient,
    ) -> Result<StepValues> {
        let rank = members.world.rank;
        let parameters = match &gradient.next {
            Some(next) => Cow::Borrowed(&next.buffers.parameters[..]),
            None => Cow::Owned(self.parameters_after(state, step, gradient)),
        };
        let model = held_out.and_then(|rows| Ok((rows, self.plain_model(state, &parameters)?)));
        let own = model.as_ref().map_err(ToString::to_string).and_then(|(rows, model)| {
            let members = members.world.members.len();
            self.own_units(rows, model, rank, members).map_err(|error| error.to_string())
        });
        let buffer = own.unwrap_or_else(|error| {
            tracing::warn!(error, "held-out rows cannot be evaluated");
            vec![FAILED]
        });
        let all = members.all_gather("held out", buffer.into())?;
        let agrees = |buffer: &&Bytes| {
            buffer.len() >= HEAD && buffer[0] == DONE && all[0].get(..HEAD) == Some(&buffer[..HEAD])
        };
        let failures = all.len() - all.iter().filter(agrees).count();
        if let (0, Ok((rows, model))) = (failures, &model) {
            match self.combined(rows, model, &all) {
                Ok(values) => return self.as_the_first_says(members, values),
                // The buffers are the same for all members, and so is what is wrong with them.
                Err(error) => tracing::warn!(%error, "the numbers on held-out rows are none"),
            }
        }
        tracing::warn!(failures, "members could not evaluate, or have other held-out rows");
        Ok(vec![("eval_failures", failures.max(1) as f64)])
    }

    /// The parameters that applying `gradient` to `state` gives.
    fn parameters_after(&self, state: &TrainState, step: u64, gradient: &StepGradient) -> Vec<f32> {
        let (mut parameters, mut moments) = (state.parameters.clone(), state.moments.clone());
        let mut gradients = gradient.gradients.clone();
        let update = Update { stage: state.stage, step, clip: gradient.clip };
        self.update(&state.layout, update, &mut parameters, &mut moments, &mut gradients);
        parameters
    }

    /// A model of the state's stage with these parameters, without autodiff.
    fn plain_model(&self, state: &TrainState, parameters: &[f32]) -> Result<StageModel> {
        let (config, sizes, device) = (&self.config, self.sizes, &self.device);
        Ok(match state.stage {
            1 => {
                let mut model = empty_stage1(config, sizes, device)?;
                state.layout.write(&mut model, parameters, device)?;
                StageModel::Stage1(Box::new(model))
            }
            _ => {
                let mut model = empty_stage2(config, sizes, device)?;
                state.layout.write(&mut model, parameters, device)?;
                StageModel::Stage2(Box::new(model))
            }
        })
    }

    /// What this member tells of its units: every `members`-th from `rank` on.
    fn own_units(
        &self,
        held_out: &HeldOut,
        model: &StageModel,
        rank: usize,
        members: usize,
    ) -> Result<Vec<u8>> {
        let mut buffer = vec![DONE];
        buffer.extend_from_slice(&held_out.digest);
        for (unit, rows) in held_out.units().enumerate().skip(rank).step_by(members) {
            let told = match model {
                StageModel::Stage1(model) => self.stage1_unit(model, unit, rows)?,
                StageModel::Stage2(model) => self.stage2_unit(model, rows)?,
            };
            buffer.extend_from_slice(&told);
        }
        Ok(buffer)
    }

    /// The frozen encoder's features of held-out rows.
    fn held_out_features(&self, rows: &[HeldOutRow]) -> Result<Tensor<3>> {
        let pixels = rows.iter().flat_map(|row| row.pixels.iter().copied()).collect();
        let (shape, statistics) = ([rows.len(), self.encoder.image_size()], statistics(&self.processor));
        Ok(self.encoder.forward(normalised_pixels(pixels, shape, statistics, &self.device))?)
    }

    /// Matching and captioning losses, summed, then the features: float64 and float32 values, little-endian. Negatives
    /// are drawn within the unit, by a key that does not depend on the step.
    fn stage1_unit(&self, model: &ContrastModel, unit: usize, rows: &[HeldOutRow]) -> Result<Vec<u8>> {
        let (features, text_length) = (self.held_out_features(rows)?, self.config.stage1.text_length);
        let batch = contrast::SlotBatch {
            image_features: features.clone(),
            ids: rows.iter().flat_map(|row| row.tokens.ids.iter().copied()).collect(),
            mask: rows.iter().flat_map(|row| row.tokens.mask.iter().copied()).collect(),
            text_length,
        };
        let (ids, mask) = (batch.ids.clone(), batch.mask.clone());
        let forward = model.features(batch, &mut Dropout::off(), Tape::whole())?;
        let image_feats = read_back::floats(forward.image_feats.clone())?;
        let text_feats = read_back::floats(forward.text_feat.clone())?;
        let mut told = Vec::new();
        let global = GlobalBatch { ids, mask, image_feats, text_feats, ..self.no_rows() };
        let smoothing = self.config.stage1.label_smoothing;
        let contrast = global.contrast(model.temperature()?, smoothing, &self.device)?;
        let draw = |side, purpose: &str| -> Vec<usize> {
            let drawn = (0..rows.len()).map(|row| {
                let parts = [unit as u64, row as u64];
                let uniform = KeyedRng::new(self.config.train.seed, purpose, &parts).uniform();
                Contrast::draw(&contrast.negative_weights(side, row), row, uniform)
            });
            drawn.collect()
        };
        let images: Vec<i32> = draw(Side::Image, NEGATIVE_IMAGE).into_iter().map(|row| row as i32).collect();
        let images = Tensor::<1, Int>::from_data(TensorData::new(images, [rows.len()]), &self.device);
        let context = SlotContext {
            global: &global,
            contrast: &contrast,
            first_row: 0,
            negative_images: features.select(0, images),
            negative_texts: &draw(Side::Text, NEGATIVE_TEXT),
            mode: self.config.train.gradients.into(),
            smoothing,
            decoder_start: self.decoder_start,
        };
        let loss = model.slot_loss(forward, &context, &mut Dropout::off())?;
        // Means over the unit's triples and tokens: as sums they add up over units of different sizes.
        let [matching, captioning] = LossValue::read_all([loss.matching, loss.captioning])?;
        told.extend((matching * (3 * rows.len()) as f64).to_le_bytes());
        told.extend((captioning * global.caption_tokens() as f64).to_le_bytes());
        told.extend_from_slice(bytemuck::cast_slice(&global.image_feats));
        told.extend_from_slice(bytemuck::cast_slice(&global.text_feats));
        Ok(told)
    }

    /// The loss summed over the predicted tokens, and their number.
    fn stage2_unit(&self, model: &GenerateModel, rows: &[HeldOutRow]) -> Result<Vec<u8>> {
        let language = self.language()?;
        let features = self.held_out_features(rows)?;
        let prompt = model.forward(features, &mut Dropout::off(), &mut Tape::whole())?;
        let captions: Vec<String> = rows.iter().map(|row| row.caption.clone()).collect();
        let batch = language.held_out_texts(&captions)?;
        let loss = language.model.caption_loss(Some(prompt), &batch.texts(), &self.device)?;
        Ok([loss.value.read()?.to_le_bytes(), (batch.tokens() as f64).to_le_bytes()].concat())
    }

    /// The numbers of all units, whoever computed them.
    fn combined(&self, held_out: &HeldOut, model: &StageModel, all: &[Bytes]) -> Result<StepValues> {
        let rows = held_out.rows.len() as f64;
        match model {
            StageModel::Stage1(model) => {
                let gathered = self.gathered(held_out, all)?;
                let mut values = self.stage1_values(held_out, model, &gathered)?;
                values.push(("eval_rows", rows));
                Ok(values)
            }
            StageModel::Stage2(_) => {
                let mut buffers = Buffers::new(all);
                let (mut loss, mut tokens) = (0.0, 0.0);
                for (unit, _) in held_out.units().enumerate() {
                    loss += buffers.float64(unit)?;
                    tokens += buffers.float64(unit)?;
                }
                Ok(vec![("eval_loss", loss / f64::max(tokens, 1.0)), ("eval_rows", rows)])
            }
        }
    }

    fn gathered(&self, held_out: &HeldOut, all: &[Bytes]) -> Result<Gathered> {
        let mut gathered = Gathered { global: self.no_rows(), matching: 0.0, captioning: 0.0 };
        let mut buffers = Buffers::new(all);
        for (unit, rows) in held_out.units().enumerate() {
            gathered.matching += buffers.float64(unit)?;
            gathered.captioning += buffers.float64(unit)?;
            let global = &mut gathered.global;
            global.image_feats.extend(buffers.floats(unit, rows.len() * global.queries * global.embed_dim)?);
            global.text_feats.extend(buffers.floats(unit, rows.len() * global.embed_dim)?);
            for row in rows {
                global.ids.extend_from_slice(&row.tokens.ids);
                global.mask.extend_from_slice(&row.tokens.mask);
            }
        }
        Ok(gathered)
    }

    fn stage1_values(&self, held_out: &HeldOut, model: &ContrastModel, all: &Gathered) -> Result<StepValues> {
        let (global, rows) = (&all.global, held_out.rows.len());
        let similarity = self.similarities(global)?;
        let temperature = model.temperature()?;
        let scaled = similarity.iter().map(|similarity| similarity / temperature).collect();
        let contrast = Contrast::new(scaled, rows, self.config.stage1.label_smoothing).loss;
        let matching = all.matching / (3 * rows) as f64;
        let captioning = all.captioning / global.caption_tokens().max(1) as f64;
        let mut values = vec![
            ("eval_loss", contrast + matching + captioning),
            ("eval_loss_itc", contrast),
            ("eval_loss_itm", matching),
            ("eval_loss_lm", captioning),
        ];
        let captions: Vec<&str> = held_out.rows.iter().map(|row| row.caption.as_str()).collect();
        if let Some(recalls) = recalls_of_captions(&similarity, &captions)? {
            values.extend(
                ["eval_image_to_text_r@1", "eval_image_to_text_r@5", "eval_image_to_text_r@10"]
                    .into_iter()
                    .zip(recalls.image_to_text.shares()),
            );
            values.extend(
                ["eval_text_to_image_r@1", "eval_text_to_image_r@5", "eval_text_to_image_r@10"]
                    .into_iter()
                    .zip(recalls.text_to_image.shares()),
            );
        }
        Ok(values)
    }

    /// The best of each image's queries with each text, `[N, N]`, image-major.
    fn similarities(&self, global: &GlobalBatch) -> Result<Vec<f32>> {
        let (rows, queries, width) = (global.rows(), global.queries, global.embed_dim);
        let texts = TensorData::new(global.text_feats.clone(), [rows, width]);
        let texts = Tensor::<2>::from_data(texts, &self.device);
        let mut similarity = Vec::with_capacity(rows * rows);
        for images in global.image_feats.chunks(IMAGES * queries * width) {
            let count = images.len() / (queries * width);
            let images = TensorData::new(images.to_vec(), [count, queries, width]);
            let images = Tensor::<3>::from_data(images, &self.device);
            similarity.extend(read_back::floats(best_of_queries(images, texts.clone()))?);
        }
        Ok(similarity)
    }

    /// A global batch of no rows.
    fn no_rows(&self) -> GlobalBatch {
        let settings = &self.config.model.qformer;
        GlobalBatch {
            queries: settings.queries,
            embed_dim: settings.embed_dim,
            text_length: self.config.stage1.text_length,
            ..GlobalBatch::default()
        }
    }

    /// The numbers as the first member has them: what is reported must be equal, whatever devices the members have.
    fn as_the_first_says(&self, members: &Peers<'_>, values: StepValues) -> Result<StepValues> {
        let own: Vec<u8> = values.iter().flat_map(|(_, value)| value.to_le_bytes()).collect();
        let all = members.all_gather("held-out values", own.into())?;
        let mut first = Buffers { all: &all, next: vec![0; all.len()] };
        values.into_iter().map(|(name, _)| Ok((name, first.float64(0)?))).collect()
    }
}

/// The members' buffers, read unit by unit.
struct Buffers<'a> {
    all: &'a [Bytes],
    /// What is read of each.
    next: Vec<usize>,
}

impl<'a> Buffers<'a> {
    fn new(all: &'a [Bytes]) -> Self {
        Self { all, next: vec![HEAD; all.len()] }
    }

    /// The next bytes of the member that computed `unit`.
    fn take(&mut self, unit: usize, length: usize) -> Result<&'a [u8]> {
        let member = unit % self.all.len();
        let start = self.next[member];
        self.next[member] += length;
        self.all[member].get(start..start + length).ok_or_else(|| {
            WorkerError::Protocol(format!("member {member} told too little of its held-out rows"))
        })
    }

    fn float64(&mut self, unit: usize) -> Result<f64> {
        let bytes = self.take(unit, 8)?;
        Ok(f64::from_le_bytes(bytes.try_into().unwrap_or_default()))
    }

    fn floats(&mut self, unit: usize, count: usize) -> Result<Vec<f32>> {
        floats(self.take(unit, 4 * count)?)
    }
}
