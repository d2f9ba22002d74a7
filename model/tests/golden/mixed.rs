//! Products in bf16 against those in float32: the losses of all cases, and where their gradients point.

use blip2_tensors::device::compute::Compute;
use blip2_tensors::device::placement::Placement;
use blip2_tensors::train::tape::Tape;

use crate::contrast::Case;
use crate::fixture::{cases, device};
use crate::huggingface::{generate_gradient_in, parts};

/// Largest difference of a loss, relative to that in float32.
const LOSS: f64 = 0.02;
/// Smallest cosine of the angle between the gradients.
const COSINE: f64 = 0.99;

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let product =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    product(a, b) / (product(a, a) * product(b, b)).sqrt()
}

/// The bounds hold, and what was computed in bf16 is not what was computed in float32.
fn assert_near(what: &str, losses: (&[f64], &[f64]), gradients: (&[f32], &[f32])) {
    let (got, want) = losses;
    for (got, want) in got.iter().zip(want) {
        let apart = (got / want - 1.0).abs();
        println!("{what}: loss {got:.6}, in float32 {want:.6}, {:.3} % apart", 100.0 * apart);
        assert!(apart < LOSS, "{what}: loss {got}, in float32 {want}");
    }
    let cosine = cosine(gradients.0, gradients.1);
    println!("{what}: gradients with cosine {cosine:.6}");
    assert!(cosine > COSINE, "{what}: cosine {cosine}");
    assert!(got != want && gradients.0 != gradients.1, "{what}: computed in float32");
}

/// Whether the device computes in bf16: there is nothing to compare on one that does not.
fn computes_in_bf16() -> bool {
    let refused = Compute::bf16(&device()).err();
    refused.iter().for_each(|reason| println!("not compared: {reason}"));
    refused.is_none()
}

#[test]
fn contrast_in_bf16_is_near_float32() {
    if !computes_in_bf16() {
        return;
    }
    for fixture in cases("stage1-") {
        let what = fixture.name();
        let mut case = Case::open(fixture);
        let (want, exact) = case.step_in(Compute::F32);
        let (got, rounded) = case.step_in(Compute::Bf16);
        assert_near(&what, (&got, &want), (&rounded, &exact));
        assert!(case.step_in(Compute::Bf16).1 == rounded, "{what}: the same bits every time");
    }
}

#[test]
fn generate_in_bf16_is_near_float32_whatever_the_frozen_models_are_in() {
    if !computes_in_bf16() {
        return;
    }
    let plain = device();
    let places = [Placement::from(&plain), Placement::bf16(&plain).unwrap()];
    for fixture in parts("blip2-opt").into_iter().chain(parts("blip2-t5")) {
        let golden = fixture.tensors("golden.safetensors");
        let of = |place: &Placement, compute| {
            let (_, loss, gradient) =
                generate_gradient_in(&fixture, &golden, Tape::segmented(), place, compute);
            (loss, gradient)
        };
        let (want, exact) = of(&places[0], Compute::F32);
        for place in &places {
            let (got, rounded) = of(place, Compute::Bf16);
            let what = format!("{}, frozen {:?}", fixture.folder().display(), place.matrices);
            assert_near(&what, (&[got], &[want]), (&rounded, &exact));
        }
    }
}
