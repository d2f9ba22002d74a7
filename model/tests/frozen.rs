//! Frozen models that are kept in bf16: matrices and the activations between them.

use std::path::PathBuf;

use blip2_model::language::{LanguageModel, Texts};
use blip2_model::padded::Padded;
use blip2_model::vision::ImageEncoder;
use blip2_tensors::device::placement::Placement;
use blip2_tensors::device::read_back::floats;
use burn::tensor::{DType, Device, Int, Tensor};

/// Largest difference of features and losses to float32, relative to the size of the values: bf16 keeps 8
/// bits of a number.
const TOLERANCE: f64 = 0.05;

/// The same of gradients, which are rounded behind every layer on the way back: 5.1 % with T5, when this was
/// written.
const GRADIENT_TOLERANCE: f64 = 0.08;

fn backbone(name: &str) -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones").join(name)
}

fn wave<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let count = shape.iter().product::<usize>() as i64;
    Tensor::<1, Int>::arange(0..count, &Device::flex()).float().sin().reshape(shape)
}

/// The values of both, which must be close and not the same.
fn assert_close<const D: usize>(what: &str, got: Tensor<D>, want: Tensor<D>, tolerance: f64) {
    let (got, want) = (floats(got).unwrap(), floats(want).unwrap());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let size = norm(&mut want.iter().map(|value| f64::from(*value)));
    let apart = norm(&mut got.iter().zip(&want).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    assert!(apart > 0.0 && apart < tolerance * size, "{what}: differs by {apart}, its norm is {size}");
}

fn places() -> [Placement; 2] {
    let device = Device::flex();
    [Placement::bf16(&device).unwrap(), Placement::from(&device)]
}

#[test]
fn encoders_in_bf16_give_bf16_features_like_those_in_float32() {
    for name in ["eva-tiny", "clip-tiny"] {
        let [got, want] = places().map(|place| {
            let encoder = ImageEncoder::open(&backbone(name), &place).unwrap();
            let size = encoder.image_size();
            encoder.forward(wave([2, 3, size, size])).unwrap()
        });
        assert_eq!((got.dtype(), want.dtype()), (DType::BF16, DType::F32), "{name}");
        assert_close(name, got, want, TOLERANCE);
    }
}

#[test]
fn language_models_in_bf16_give_losses_and_gradients_like_those_in_float32() {
    for name in ["opt-tiny", "t5-scenes"] {
        let [got, want] = places().map(|place| {
            let model = LanguageModel::open(&backbone(name), &place).unwrap();
            let (ids, mask) = ([2, 50, 61, 70, 80, 90], [1; 6]);
            let text = Padded { ids: &ids, mask: &mask };
            let prompt = Tensor::from_inner(wave([2, 4, model.width()]) * 0.1).require_grad();
            let texts = Texts { rows: 2, prefix: Padded::default(), text, labels: &ids, weights: &[] };
            let loss = model.caption_loss(Some(prompt.clone()), &texts, &place.device).unwrap();
            let mut gradients = loss.objective.backward();
            (loss.value.read().unwrap(), prompt.grad_remove(&mut gradients).unwrap())
        });
        assert_eq!(got.1.dtype(), DType::F32, "{name}: the soft prompt is trained");
        assert!((got.0 / want.0 - 1.0).abs() < TOLERANCE, "{name}: loss {} instead of {}", got.0, want.0);
        assert_close(name, got.1, want.1, GRADIENT_TOLERANCE);
    }
}
