//! The image encoder of a task: the run's frozen one, or one that is trained with the rest.

use std::path::PathBuf;

use blip2_dataset::loader::SlotBatch;
use blip2_evaluation::sample_encoder::SampleEncoder;
use blip2_model::trained_encoder::{EncoderForward, TrainedEncoder};
use blip2_model::vision::{EVA_PREFIX, ImageEncoder};
use blip2_model_files::error::ModelError;
use blip2_random::KeyedRng;
use blip2_tensors::device::compute::Compute;
use blip2_tensors::device::placement::Placement;
use blip2_tensors::nn::drop_path::DropPath;
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, compute_in, join};
use blip2_tensors::train::layer_decay::LayerDecay;
use blip2_tensors::train::tape::{Segment, Tape};
use burn::tensor::{Device, Gradients, Tensor};
use bytes::Bytes;

use super::training::ModelShape;
use crate::error::{Result, WorkerError};
use crate::frozen_models::FrozenModels;
use crate::open::of_encoder;
use crate::settings::encoder::{EncoderSettings, EncoderTraining};
use crate::sum::context::Step;
use crate::sum::slots::Slots;
use crate::sum::times::Stopwatch;

const DROP_PATH: &str = "drop path of the image encoder";

/// What a member keeps of its slots' passes through a trained encoder, in bytes, from the first slot on. Of
/// the slots beyond it the pass is done again, to the same bits, when their turn to be differentiated comes:
/// a quarter more time in the encoder, and memory that does not grow with the member's share of the batch.
const KEPT_BYTES: usize = 8 << 30;

/// The image encoder of a task.
#[derive(Debug)]
pub(super) struct TaskEncoder {
    drop_path: f64,
    /// The stage's number.
    stage: u32,
    seed: u64,
    compute: Compute,
    /// Where its initial values are.
    file: PathBuf,
    /// Side of its images in pixels; 0: its own.
    image_size: usize,
    trained: Option<(TrainedEncoder, LayerDecay)>,
}

/// A slot's images, encoded.
pub(super) struct EncodedSlot {
    /// Raw features, without autodiff.
    pub(super) features: Tensor<3>,
    /// What is kept to differentiate a trained encoder, as far as there is room.
    pub(super) pass: Option<EncoderForward>,
}

impl TaskEncoder {
    /// As `settings` of a stage say; one that is trained is to be given values.
    ///
    /// # Errors
    /// What is not an image encoder, or settings that no encoder can be trained with.
    pub(super) fn new(settings: EncoderSettings, shape: &ModelShape<'_>, device: &Device) -> Result<Self> {
        let model = shape.model;
        let EncoderSettings { training, layer_decay, drop_path } = settings;
        let (file, image_size) = (PathBuf::from(&model.image_encoder), model.image_size);
        let compute = shape.train.compute;
        let trained = match training {
            EncoderTraining::Frozen => None,
            EncoderTraining::Trained => {
                let place = Placement::from(&device.clone().inner());
                let sizes = ImageEncoder::sizes_of(&file).and_then(|sizes| sizes.for_images_of(image_size));
                let zeros = sizes.and_then(|sizes| ImageEncoder::zeros(&sizes, &place));
                let zeros = zeros.map_err(|error| of_encoder(model, error))?;
                let decay = LayerDecay::new(layer_decay, zeros.depth())?;
                Some((in_numbers(TrainedEncoder::unwritten(zeros), compute)?, decay))
            }
        };
        let (stage, seed) = (shape.stage, shape.train.seed);
        Ok(Self { drop_path, stage, seed, compute, file, image_size, trained })
    }

    /// Gives an encoder that is trained the values of its file, in float32.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn initialise(&mut self, device: &Device) -> Result<(), ModelError> {
        let Some((encoder, _)) = &mut self.trained else { return Ok(()) };
        let mut read = ImageEncoder::open(&self.file, Placement::from(&device.clone().inner()))?;
        if self.image_size != 0 {
            read = read.resized(self.image_size)?;
        }
        *encoder = in_numbers(TrainedEncoder::new(read)?, self.compute)?;
        Ok(())
    }

    /// What the learning rate of the tensor `name` of the whole model is multiplied by.
    pub(super) fn learning_rate_scale(&self, name: &str) -> f64 {
        self.trained.as_ref().map_or(1.0, |(_, decay)| decay.scale(name))
    }

    /// The encoder, if it is trained.
    pub(super) fn trained(&self) -> Option<&TrainedEncoder> {
        self.trained.as_ref().map(|(encoder, _)| encoder)
    }

    /// The encoder as it computes: its own, if it is trained, or `frozen`.
    ///
    /// # Errors
    /// None but those of a visit of its tensors.
    pub(super) fn or(&self, frozen: ImageEncoder) -> Result<ImageEncoder, ModelError> {
        self.trained().map_or(Ok(frozen), TrainedEncoder::values)
    }

    /// The way to features of samples: its own, if it is trained; none: that of the frozen encoder.
    ///
    /// # Errors
    /// None but those of a visit of its tensors.
    pub(super) fn of_samples(&self, frozen: &SampleEncoder) -> Result<Option<SampleEncoder>, ModelError> {
        self.trained().map(|encoder| Ok(frozen.with_encoder(encoder.values()?))).transpose()
    }

    /// Features of so many images' pixels, as they are outside training.
    pub(super) fn features_of(&self, frozen: &FrozenModels, pixels: Bytes, rows: usize) -> Result<Tensor<3>> {
        let images = frozen.images_of(self.stage);
        match self.trained() {
            Some(encoder) => Ok(encoder.features(images.pixels_of(pixels, rows), DropPath::off())?),
            None => images.features_of(pixels, rows),
        }
    }

    /// Features of black images.
    pub(super) fn features_of_nothing(&self, frozen: &FrozenModels, rows: usize) -> Result<Tensor<3>> {
        let size = frozen.images_of(self.stage).encoder.image_size();
        self.features_of(frozen, Bytes::from(vec![0; rows * 3 * size * size]), rows)
    }

    /// Encodes the images of a slot of a step. `kept` counts the bytes that are kept of all slots.
    pub(super) fn encode(
        &self,
        step: &Step<'_>,
        slot: &SlotBatch,
        kept: &mut usize,
        watch: &mut Stopwatch,
    ) -> Result<EncodedSlot> {
        watch.bytes.to_device += slot.pixels.len() as u64;
        let Some(encoder) = self.trained() else {
            let images = step.frozen.images_of(self.stage);
            let features = watch.time(|times| &mut times.encoder, || images.features(slot))?;
            return Ok(EncodedSlot { features, pass: None });
        };
        if *kept >= KEPT_BYTES {
            let features = watch.time(|times| &mut times.encoder, || self.values(encoder, step, slot))?;
            return Ok(EncodedSlot { features, pass: None });
        }
        let pass = self.pass(encoder, step, slot, watch)?;
        *kept += pass.kept_bytes();
        Ok(EncodedSlot { features: pass.features.clone(), pass: Some(pass) })
    }

    /// Encodes a slot's images for losses that need no other slot: the features, of which these are computed,
    /// and the way back through the encoder. Nothing is kept longer than the slot.
    pub(super) fn encode_slot(
        &self,
        step: &Step<'_>,
        slot: &SlotBatch,
        watch: &mut Stopwatch,
    ) -> Result<(Tensor<3>, SlotPass)> {
        watch.bytes.to_device += slot.pixels.len() as u64;
        let Some(encoder) = self.trained() else {
            let images = step.frozen.images_of(self.stage);
            let features = watch.time(|times| &mut times.encoder, || images.features(slot))?;
            return Ok((features, SlotPass { trained: None }));
        };
        let pass = self.pass(encoder, step, slot, watch)?;
        let leaf = pass.leaf();
        Ok((leaf.clone(), SlotPass { trained: Some((encoder.clone(), pass, leaf)) }))
    }

    /// The features of a slot's images behind a trained encoder, of which nothing is kept.
    fn values(&self, encoder: &TrainedEncoder, step: &Step<'_>, slot: &SlotBatch) -> Result<Tensor<3>> {
        let pixels = step.frozen.images_of(self.stage).pixels(slot)?;
        Ok(encoder.features(pixels, self.drop_path(step, slot))?)
    }

    /// The pass of a slot's images through a trained encoder that is kept to be differentiated.
    pub(super) fn pass(
        &self,
        encoder: &TrainedEncoder,
        step: &Step<'_>,
        slot: &SlotBatch,
        watch: &mut Stopwatch,
    ) -> Result<EncoderForward> {
        let (images, drop_path) = (step.frozen.images_of(self.stage), self.drop_path(step, slot));
        watch.time(|times| &mut times.encoder, || Ok(encoder.forward(images.pixels(slot)?, drop_path)?))
    }

    /// Which branches are left out for the images of a slot: a function of step and slot, whoever holds it.
    fn drop_path(&self, step: &Step<'_>, slot: &SlotBatch) -> DropPath {
        if self.drop_path <= 0.0 {
            return DropPath::off();
        }
        let parts = [step.number, u64::from(slot.slot)];
        let key = KeyedRng::new(self.seed, DROP_PATH, &parts).next_u64();
        DropPath::keyed(self.drop_path, key as u32)
    }
}

/// The way back of the slot whose losses are computed next.
pub(super) struct SlotPass {
    /// A trained encoder, what is kept of the pass through it, and the leaf that the losses read.
    trained: Option<(TrainedEncoder, EncoderForward, Tensor<3>)>,
}

impl SlotPass {
    /// Differentiates the slot's objective, through a trained encoder too, and gives the gradient of the
    /// tensors of `task` away.
    pub(super) fn backward(
        self,
        task: &mut impl NamedTensors,
        tape: Tape,
        objective: Tensor<1>,
        sums: &mut Slots<'_>,
        watch: &mut Stopwatch,
    ) -> Result<()> {
        let Some((encoder, pass, leaf)) = self.trained else {
            return sums.backward(task, tape, objective, watch);
        };
        let mut gradient = None;
        let take = |segment, gradients: &mut Gradients| {
            if segment == Segment::Inputs {
                gradient = leaf.grad_remove(gradients);
            }
        };
        let place = sums.backward_to(task, tape, objective, take, watch)?;
        let no_gradient = || WorkerError::Protocol("a slot has no gradient of its images".into());
        let gradient = gradient.ok_or_else(no_gradient)?;
        let mut give = |segment, gradients: &mut Gradients| sums.add(place, task, segment, gradients);
        watch.time(|times| &mut times.backward, || encoder.backward(pass, gradient, &mut give))
    }
}

/// The encoder with its products in `compute`.
fn in_numbers(mut encoder: TrainedEncoder, compute: Compute) -> Result<TrainedEncoder, ModelError> {
    compute_in(&mut encoder, compute)?;
    Ok(encoder)
}

/// Of one that is trained, its tensors, whose names begin with `visual_encoder`; none of a frozen one.
impl NamedTensors for TaskEncoder {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        match &mut self.trained {
            Some((encoder, _)) => encoder.visit_tensors(&join(prefix, EVA_PREFIX), visitor),
            None => Ok(()),
        }
    }
}
