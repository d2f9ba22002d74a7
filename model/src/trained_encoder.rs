//! An image encoder that is trained: values first, then the gradient block by block.
//!
//! [`TrainedEncoder::forward`] computes without autodiff, as the frozen encoder does and to the same bits,
//! and keeps what enters each block. [`TrainedEncoder::backward`] takes the features' gradient and goes from
//! the last block down: it computes a block once more from what entered it, differentiates it and hands its
//! parameters' gradients out, before the block below is computed. So the memory beyond the weights is one
//! vector a token for each block, and the activations of a single block.
//!
//! The two halves are apart because the features' gradient is not in one place when a slot's losses are
//! differentiated: an image may be the negative of texts of other slots, which send their parts home.

use burn::module::Param;
use burn::tensor::{Device, Gradients, Tensor};

use crate::vision::{EVA_PREFIX, ImageEncoder};
use blip2_model_files::error::ModelError;
use blip2_tensors::device::cast::in_f32;
use blip2_tensors::nn::drop_path::{BlockPaths, DropPath};
use blip2_tensors::nn::tensors::{NamedTensors, TensorVisitor, join};
use blip2_tensors::train::tape::Segment;

/// An image encoder whose tensors require gradients.
#[derive(Debug, Clone)]
pub struct TrainedEncoder {
    /// Leaves, float32.
    encoder: ImageEncoder,
}

/// A forward pass of a [`TrainedEncoder`], to be differentiated.
#[derive(Debug)]
pub struct EncoderForward {
    /// `[b, tokens, width]`, without autodiff: what the frozen encoder gives.
    pub features: Tensor<3>,
    pixels: Tensor<4>,
    /// What entered each block, without autodiff.
    entered: Vec<Tensor<3>>,
    drop_path: DropPath,
}

impl EncoderForward {
    /// A leaf with the values of the features: what the losses are computed of. Its gradient is the one that
    /// [`TrainedEncoder::backward`] takes.
    pub fn leaf(&self) -> Tensor<3> {
        leaf(self.features.clone())
    }

    /// Bytes of what is kept for the backward pass, the pixels left out.
    pub fn kept_bytes(&self) -> usize {
        self.entered.iter().map(|x| x.dims().iter().product::<usize>() * size_of::<f32>()).sum()
    }
}

/// A tensor that requires a gradient, with the values of one that has none.
fn leaf<const D: usize>(values: Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(values).require_grad()
}

impl TrainedEncoder {
    /// Of an encoder on a plain device, in any numbers; position tables are resized before
    /// ([`ImageEncoder::resized`]).
    ///
    /// # Errors
    /// None but those of the encoder's own visit.
    pub fn new(mut encoder: ImageEncoder) -> Result<Self, ModelError> {
        struct Leaves;
        impl TensorVisitor for Leaves {
            type Error = ModelError;

            fn visit<const D: usize>(
                &mut self,
                _: &str,
                tensor: &mut Param<Tensor<D>>,
            ) -> Result<(), ModelError> {
                *tensor = Param::initialized(tensor.id, leaf(in_f32(tensor.val())));
                Ok(())
            }
        }
        encoder.visit_tensors("", &mut Leaves)?;
        Ok(Self { encoder })
    }

    /// Of an encoder of zeros on a plain device whose values are written before it computes: none of its
    /// tensors is made.
    pub fn unwritten(encoder: ImageEncoder) -> Self {
        Self { encoder }
    }

    /// The same encoder without autodiff: its present values, which it shares.
    ///
    /// # Errors
    /// None but those of the encoder's own visit.
    pub fn values(&self) -> Result<ImageEncoder, ModelError> {
        struct Values;
        impl TensorVisitor for Values {
            type Error = ModelError;

            fn visit<const D: usize>(
                &mut self,
                _: &str,
                tensor: &mut Param<Tensor<D>>,
            ) -> Result<(), ModelError> {
                *tensor = Param::initialized(tensor.id, tensor.val().inner());
                Ok(())
            }
        }
        let mut encoder = self.encoder.clone();
        encoder.visit_tensors("", &mut Values)?;
        Ok(encoder)
    }

    /// Width, tokens and size of images.
    pub fn encoder(&self) -> &ImageEncoder {
        &self.encoder
    }

    /// The features of normalised images, and what entered each block.
    ///
    /// # Shapes
    /// - pixels `[b, 3, image_size, image_size]`, without autodiff
    ///
    /// # Errors
    /// Images of another shape.
    pub fn forward(&self, pixels: Tensor<4>, drop_path: DropPath) -> Result<EncoderForward, ModelError> {
        let mut entered = Vec::with_capacity(self.encoder.depth());
        let features = self.run(pixels.clone(), drop_path, |x| entered.push(x.clone()))?;
        Ok(EncoderForward { features, pixels, entered, drop_path })
    }

    /// The features alone, to the bits of [`TrainedEncoder::forward`]: for a slot whose turn to be
    /// differentiated is later than its memory is wanted.
    ///
    /// # Shapes
    /// - pixels `[b, 3, image_size, image_size]`, without autodiff; output `[b, tokens, width]`
    ///
    /// # Errors
    /// Images of another shape.
    pub fn features(&self, pixels: Tensor<4>, drop_path: DropPath) -> Result<Tensor<3>, ModelError> {
        self.run(pixels, drop_path, |_| {})
    }

    fn run(
        &self,
        pixels: Tensor<4>,
        drop_path: DropPath,
        mut entering: impl FnMut(&Tensor<3>),
    ) -> Result<Tensor<3>, ModelError> {
        let encoder = self.values()?;
        let mut x = encoder.embed(pixels)?;
        for index in 0..encoder.depth() {
            entering(&x);
            let paths = self.paths(drop_path, index, &x);
            x = encoder.block(index, x, &paths);
        }
        Ok(x)
    }

    fn paths(&self, drop_path: DropPath, block: usize, x: &Tensor<3>) -> BlockPaths {
        let device: Device = x.device().inner();
        drop_path.of_block(block, self.encoder.depth(), x.dims()[0], &device)
    }

    /// Differentiates the features by their `gradient` and calls `done` with the gradients of each block's
    /// parameters, from the last block down, and of what is before the first.
    ///
    /// # Shapes
    /// - gradient `[b, tokens, width]`, without autodiff
    ///
    /// # Errors
    /// A gradient of another shape than the features; the first error of `done`, after which nothing more is
    /// computed.
    pub fn backward<E: From<ModelError>>(
        &self,
        forward: EncoderForward,
        gradient: Tensor<3>,
        mut done: impl FnMut(Segment, &mut Gradients) -> Result<(), E>,
    ) -> Result<(), E> {
        let EncoderForward { features, pixels, mut entered, drop_path } = forward;
        if gradient.dims() != features.dims() {
            let reason = format!("shape {:?}, the features have {:?}", gradient.dims(), features.dims());
            return Err(ModelError::input("gradient of image features", reason).into());
        }
        drop(features);
        let mut gradient = gradient;
        while let Some(values) = entered.pop() {
            let index = entered.len();
            let x = leaf(values);
            let output = self.encoder.block(index, x.clone(), &self.paths(drop_path, index, &x));
            let mut gradients = (output * gradient).sum().backward();
            gradient = x.grad_remove(&mut gradients).unwrap_or_else(|| x.clone().inner().zeros_like());
            self.encoder.without_key_bias(index, &mut gradients);
            done(Segment::Block(index), &mut gradients)?;
        }
        let mut gradients = (self.encoder.embed(pixels)? * gradient).sum().backward();
        done(Segment::Patches, &mut gradients)
    }
}

impl NamedTensors for TrainedEncoder {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.encoder.visit_tensors(prefix, visitor)
    }
}

/// What is trained together with its image encoder.
#[derive(Debug, Clone)]
pub struct WithEncoder<M> {
    /// Its names begin with `visual_encoder`.
    pub encoder: TrainedEncoder,
    /// What reads the features.
    pub model: M,
}

impl<M: NamedTensors> NamedTensors for WithEncoder<M> {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        self.encoder.visit_tensors(&join(prefix, EVA_PREFIX), visitor)?;
        self.model.visit_tensors(prefix, visitor)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Int;

    use super::*;
    use crate::filled::filled;
    use crate::vision::{ClipVisionConfig, ClipVit, EvaConfig, EvaVit};
    use blip2_tensors::device::read_back::floats;
    use blip2_tensors::train::flat::FlatLayout;

    /// Small encoders in both layouts.
    fn small() -> [ImageEncoder; 2] {
        let device = Device::flex();
        let (image_size, patch_size, width, depth, heads, intermediate) = (8, 4, 8, 3, 2, 12);
        let eva =
            EvaConfig { width, depth, heads, intermediate, image_size, patch_size, ..EvaConfig::default() };
        let clip = ClipVisionConfig {
            width,
            depth,
            heads,
            intermediate,
            image_size,
            patch_size,
            ..ClipVisionConfig::default()
        };
        [
            ImageEncoder::Eva(filled(EvaVit::new(&eva, &device))),
            ImageEncoder::Clip(filled(ClipVit::new(&clip, depth, &device).unwrap())),
        ]
    }

    fn wave<const D: usize>(shape: [usize; D], speed: f32) -> Tensor<D> {
        let count = shape.iter().product::<usize>() as i64;
        (Tensor::<1, Int>::arange(0..count, &Device::flex()).float() * speed).sin().reshape(shape)
    }

    fn bits<const D: usize>(x: Tensor<D>) -> Vec<u32> {
        floats(x).unwrap().into_iter().map(f32::to_bits).collect()
    }

    /// The gradient of `(features · direction).sum()` in the layout's order, and the order of the segments.
    fn gradient(
        trained: &mut TrainedEncoder,
        pixels: Tensor<4>,
        direction: Tensor<3>,
        drop_path: DropPath,
    ) -> (Vec<Segment>, Vec<f32>) {
        struct Take<'a>(&'a FlatLayout, &'a mut Gradients, &'a mut [f32]);
        impl TensorVisitor for Take<'_> {
            type Error = ModelError;

            fn visit<const D: usize>(
                &mut self,
                name: &str,
                tensor: &mut Param<Tensor<D>>,
            ) -> Result<(), ModelError> {
                if let Some(gradient) = tensor.val().grad_remove(self.1) {
                    let range = self.0.get(name).unwrap().range();
                    self.2[range].copy_from_slice(&floats(gradient)?);
                }
                Ok(())
            }
        }
        let forward = trained.forward(pixels, drop_path).unwrap();
        let layout = FlatLayout::of(trained).unwrap();
        let (mut segments, mut flat) = (Vec::new(), vec![0.0; layout.len()]);
        let mut copy = trained.clone();
        let take = |segment, gradients: &mut Gradients| {
            segments.push(segment);
            copy.visit_tensors("", &mut Take(&layout, gradients, &mut flat))
        };
        trained.backward(forward, direction, take).unwrap();
        (segments, flat)
    }

    #[test]
    fn a_trained_encoder_has_the_bits_of_the_frozen_one() {
        for frozen in small() {
            let pixels = wave([2, 3, 8, 8], 0.7);
            let want = bits(frozen.forward(pixels.clone()).unwrap());
            let trained = TrainedEncoder::new(frozen).unwrap();
            let forward = trained.forward(pixels.clone(), DropPath::off()).unwrap();
            assert_eq!(bits(forward.features.clone()), want);
            assert_eq!(bits(forward.leaf().inner()), want);
            assert_eq!(bits(trained.features(pixels, DropPath::off()).unwrap()), want);
            // One vector a token for each block, and nothing else.
            assert_eq!(forward.kept_bytes(), 3 * 2 * 5 * 8 * 4);
        }
    }

    #[test]
    fn blocks_computed_again_have_the_gradient_of_the_whole_encoder() {
        for frozen in small() {
            for drop_path in [DropPath::off(), DropPath::keyed(0.6, 5)] {
                let mut trained = TrainedEncoder::new(frozen.clone()).unwrap();
                let (pixels, direction) = (wave([3, 3, 8, 8], 0.7), wave([3, 5, 8], 0.31));
                let (segments, got) = gradient(&mut trained, pixels.clone(), direction.clone(), drop_path);
                let block = Segment::Block;
                assert_eq!(segments, [block(2), block(1), block(0), Segment::Patches]);
                // Differences of the objective, along the gradient itself.
                let layout = FlatLayout::of(&mut trained).unwrap();
                let flat = layout.read(&mut trained).unwrap();
                let objective = |step: f32| {
                    let moved: Vec<f32> = flat.iter().zip(&got).map(|(w, g)| w + step * g).collect();
                    let mut encoder = trained.values().unwrap();
                    layout.write(&mut encoder, &moved, &Device::flex()).unwrap();
                    let features = TrainedEncoder::new(encoder).unwrap().features(pixels.clone(), drop_path);
                    let products = floats(features.unwrap() * direction.clone()).unwrap();
                    products.into_iter().map(f64::from).sum::<f64>()
                };
                let square: f64 = got.iter().map(|g| f64::from(*g) * f64::from(*g)).sum();
                let step = 1e-3 / square.sqrt() as f32;
                let slope = (objective(step) - objective(-step)) / (2.0 * f64::from(step));
                assert!((slope / square - 1.0).abs() < 2e-2, "{slope} and {square}, {drop_path:?}");
                // The same bits every time.
                let again = gradient(&mut trained, pixels, direction, drop_path).1;
                assert_eq!(got, again);
            }
        }
    }

    #[test]
    fn a_fused_key_bias_has_no_gradient() {
        let [eva, _] = small();
        let mut trained = TrainedEncoder::new(eva).unwrap();
        let (_, flat) =
            gradient(&mut trained, wave([2, 3, 8, 8], 0.7), wave([2, 5, 8], 0.31), DropPath::off());
        let layout = FlatLayout::of(&mut trained).unwrap();
        for block in 0..3 {
            let bias = &flat[layout.get(&format!("blocks.{block}.attn.qkv.bias")).unwrap().range()];
            assert!(bias[8..16].iter().all(|g| *g == 0.0), "{bias:?}");
            assert!(bias[..8].iter().chain(&bias[16..]).all(|g| *g != 0.0), "{bias:?}");
        }
    }

    #[test]
    fn an_error_or_another_shape_ends_the_backward_pass() {
        let [eva, _] = small();
        let trained = TrainedEncoder::new(eva).unwrap();
        let forward = || trained.forward(wave([2, 3, 8, 8], 0.7), DropPath::off()).unwrap();
        let mut calls = 0;
        let stop = |_, _: &mut Gradients| -> Result<(), ModelError> {
            calls += 1;
            Err(ModelError::input("test", "stop"))
        };
        assert!(trained.backward(forward(), wave([2, 5, 8], 0.3), stop).is_err());
        assert_eq!(calls, 1);
        let go_on = |_, _: &mut Gradients| Ok::<_, ModelError>(());
        let error = trained.backward(forward(), wave([1, 5, 8], 0.3), go_on).unwrap_err().to_string();
        assert!(error.contains("[1, 5, 8]") && error.contains("[2, 5, 8]"), "{error}");
    }
}
