//! A stage-1 step over random image features, to be measured: the computation of a training step without
//! image encoder, pictures and other members.

use std::time::{Duration, Instant};

use blip2_model::objectives::contrast::{
    Contrast, ContrastModel, GlobalBatch, GradientMode, Side, SlotBatch, SlotContext,
};
use blip2_model::qformer::QFormerConfig;
use blip2_random::KeyedRng;
use blip2_tensors::device::read_back::floats;
use blip2_tensors::nn::dropout::Dropout;
use blip2_tensors::train::buckets::{BUCKET_ELEMENTS, GradientBuckets};
use blip2_tensors::train::flat::FlatLayout;
use blip2_tensors::train::optimizer::{AdamW, Moments};
use blip2_tensors::train::tape::Tape;
use blip2_worker::Result;
use blip2_worker::open::{SeededValues, device};
use burn::tensor::{Device, Tensor, TensorData};

use super::texts;

/// AdamW and the loss as in the paper's first stage.
const ADAMW: AdamW = AdamW { beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weight_decay: 0.05 };
const LEARNING_RATE: f64 = 1e-4;
const TEMPERATURE: f64 = 0.07;
const SMOOTHING: f64 = 0.1;
const LN_VISION_EPS: f64 = 1e-5;

/// Sizes of the model and of its batch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StubSizes {
    /// Of the Q-Former; its `image_width` is that of the random features.
    pub(super) qformer: QFormerConfig,
    /// Width of the contrastive space.
    pub(super) embed_dim: usize,
    /// Positions of an image's features.
    pub(super) positions: usize,
    /// Tokens of a text, of which the second half is padding.
    pub(super) text_length: usize,
    /// Pairs in a step; two or more.
    pub(super) batch: usize,
}

/// Where a step's time went.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StubTimes {
    /// Both passes of features, the contrast and the losses.
    pub(super) forward: Duration,
    /// The backward pass with the collection of the gradient.
    pub(super) backward: Duration,
    /// AdamW, and the parameters' way back into the model.
    pub(super) optimizer: Duration,
}

/// A model that steps over random batches.
#[derive(Debug)]
pub(super) struct StubStep {
    sizes: StubSizes,
    seed: u64,
    device: Device,
    model: ContrastModel,
    layout: FlatLayout,
    parts: GradientBuckets,
    parameters: Vec<f32>,
    moments: Moments,
    /// One buffer for all steps, as in training.
    gradients: Vec<f32>,
    steps: u64,
}

impl StubStep {
    /// A randomly initialised model on the device of that name.
    ///
    /// # Errors
    /// Sizes that no model can have, a device that is not there.
    pub(super) fn new(sizes: StubSizes, seed: u64, device_name: &str) -> Result<Self> {
        let device = device(device_name, false)?;
        let autodiff = device.clone().autodiff();
        let mut model = ContrastModel::new(&sizes.qformer, sizes.embed_dim, LN_VISION_EPS, &autodiff)?;
        model.initialise(TEMPERATURE, &mut SeededValues::new(seed), None, &autodiff)?;
        let layout = FlatLayout::of(&mut model)?;
        let parts = GradientBuckets::of(&layout, BUCKET_ELEMENTS);
        let parameters = layout.read(&mut model)?;
        let moments = Moments::zeros(layout.len());
        let gradients = vec![0.0; layout.len()];
        Ok(Self { sizes, seed, device, model, layout, parts, parameters, moments, gradients, steps: 0 })
    }

    /// Elements that are trained.
    pub(super) fn parameters(&self) -> usize {
        self.layout.len()
    }

    /// Does the next step.
    ///
    /// # Errors
    /// A batch of fewer than two pairs, a device that fails.
    pub(super) fn step(&mut self) -> Result<StubTimes> {
        let batch = self.batch();
        let mut times = StubTimes::default();
        let started = Instant::now();
        let dropout = &mut self.dropout();
        let features = batch.image_features.clone();
        let forward = self.model.features(batch.clone(), dropout, Tape::segmented())?;
        let global = GlobalBatch {
            queries: self.sizes.qformer.queries,
            embed_dim: self.sizes.embed_dim,
            text_length: self.sizes.text_length,
            image_feats: floats(forward.image_feats.clone().inner())?,
            text_feats: floats(forward.text_feat.clone().inner())?,
            ids: batch.ids,
            mask: batch.mask,
        };
        let on_device = global.features(&self.device)?;
        let contrast = on_device.contrast(self.model.temperature()?, SMOOTHING)?;
        let images = self.negatives(&contrast, Side::Image);
        let rows = images.iter().map(|row| features.clone().narrow(0, *row, 1)).collect();
        let context = SlotContext {
            global: &global,
            features: &on_device,
            contrast: &contrast,
            first_row: 0,
            negative_images: Tensor::cat(rows, 0),
            negative_texts: &self.negatives(&contrast, Side::Text),
            mode: GradientMode::Exact,
            smoothing: SMOOTHING,
            decoder_start: self.sizes.qformer.vocab as i32 - 1,
        };
        let loss = self.model.slot_loss(forward, &context, dropout)?;
        times.forward = started.elapsed();

        let started = Instant::now();
        let gradients = &mut self.gradients;
        let mut buffers = self.parts.buffers();
        let (model, parts) = (&mut self.model, self.parts.buckets());
        loss.tape.backward(loss.objective, |segment, tape| {
            for (part, values) in buffers.take(model, tape, segment)? {
                parts[part].copy_into(&values, gradients);
            }
            Ok::<_, blip2_model_files::error::ModelError>(())
        })?;
        times.backward = started.elapsed();

        let started = Instant::now();
        self.steps += 1;
        let (parameters, moments) = (&mut self.parameters, &mut self.moments);
        ADAMW.apply(&self.layout, self.steps, LEARNING_RATE, parameters, &self.gradients, moments);
        self.layout.write(&mut self.model, &self.parameters, &self.device.clone().autodiff())?;
        times.optimizer = started.elapsed();
        Ok(times)
    }

    fn dropout(&self) -> Dropout {
        let probability = self.sizes.qformer.dropout;
        match probability > 0.0 {
            true => Dropout::keyed(probability, self.steps as u32),
            false => Dropout::off(),
        }
    }

    /// For each row, the hard negative that its key draws.
    fn negatives(&self, contrast: &Contrast, side: Side) -> Vec<usize> {
        let draw = |row: usize| {
            let purpose = format!("stub negative {side:?}");
            let uniform = KeyedRng::new(self.seed, &purpose, &[self.steps, row as u64]).uniform();
            Contrast::draw(&contrast.negative_weights(side, row), row, uniform)
        };
        (0..self.sizes.batch).map(draw).collect()
    }

    /// Features that are normally distributed, and texts of random words.
    fn batch(&self) -> SlotBatch {
        let StubSizes { batch, positions, text_length, .. } = self.sizes;
        let width = self.sizes.qformer.image_width;
        let mut rng = KeyedRng::new(self.seed, "stub features", &[self.steps]);
        let features = (0..batch * positions * width).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
        let features = TensorData::new(features, [batch, positions, width]);
        // The last id starts captions; the first few are special.
        let words = (self.sizes.qformer.vocab as u64).saturating_sub(1).max(1);
        let ids = (0..batch * text_length).map(|_| rng.below(words) as i32).collect();
        SlotBatch {
            image_features: Tensor::from_data(features, &self.device),
            ids,
            mask: texts::mask(batch, text_length),
            text_length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_change_the_parameters_and_repeat_by_the_seed() {
        let sizes = || StubSizes {
            qformer: QFormerConfig::new(6)
                .with_hidden(16)
                .with_layers(2)
                .with_heads(2)
                .with_intermediate(24)
                .with_vocab(40)
                .with_max_positions(8)
                .with_queries(3)
                .with_dropout(0.0),
            embed_dim: 8,
            positions: 4,
            text_length: 6,
            batch: 3,
        };
        let run = || {
            let mut stub = StubStep::new(sizes(), 5, "cpu").unwrap();
            let before = stub.parameters.clone();
            stub.step().unwrap();
            stub.step().unwrap();
            assert_ne!(before, stub.parameters);
            stub.parameters
        };
        assert_eq!(run(), run());
    }
}
