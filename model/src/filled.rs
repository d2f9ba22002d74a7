//! Models with weights that say nothing, for tests.

use blip2_tensors::nn::tensors::NamedTensors;
use blip2_tensors::train::flat::FlatLayout;
use burn::tensor::Device;

/// `model` with arbitrary weights between -0.6 and 0.6.
pub(crate) fn filled<M: NamedTensors>(mut model: M) -> M {
    let layout = FlatLayout::of(&mut model).unwrap();
    let flat: Vec<f32> = (0..layout.len()).map(|i| (i as f32 * 0.7311).sin() * 0.6).collect();
    layout.write(&mut model, &flat, &Device::flex()).unwrap();
    model
}
