//! ReLU, and the GELU by a hyperbolic tangent with a gate; and their gradients.

use rayon::prelude::*;

use crate::fused::kernels::TASK;
use crate::fused::kernels::exponential::exp;

/// `2 √(2 / π)`: the hyperbolic tangent of half of it is a logistic function of it.
const SLOPE: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715;

/// Sets what is below 0 to 0.
pub(super) fn relu_in_place(x: &mut [f32]) {
    let arch = pulp::Arch::new();
    x.par_chunks_mut(TASK).for_each(|x| {
        arch.dispatch(
            #[inline(always)]
            || x.iter_mut().for_each(|x| *x = if *x < 0.0 { 0.0 } else { *x }),
        );
    });
}

/// Sets the gradient to 0 where the output is.
pub(super) fn relu_backward_in_place(gradient: &mut [f32], output: &[f32]) {
    let arch = pulp::Arch::new();
    gradient.par_chunks_mut(TASK).zip(output.par_chunks(TASK)).for_each(|(gradient, output)| {
        arch.dispatch(
            #[inline(always)]
            || {
                for (gradient, output) in gradient.iter_mut().zip(output) {
                    *gradient = if *output > 0.0 { *gradient } else { 0.0 };
                }
            },
        );
    });
}

/// The GELU's factor of `x`, which is between 0 and 1, and the GELU's derivative.
#[inline(always)]
fn share(x: f32) -> (f32, f32) {
    let square = x * x;
    let share = 1.0 / (1.0 + exp(-SLOPE * x * (1.0 + CUBIC * square)));
    let steepness = SLOPE * (1.0 + 3.0 * CUBIC * square);
    (share, share + x * share * (1.0 - share) * steepness)
}

/// `gelu(x) · gate`.
pub(super) fn gated_gelu(x: &[f32], gate: &[f32]) -> Vec<f32> {
    let arch = pulp::Arch::new();
    let mut output = vec![0.0; x.len()];
    let inputs = x.par_chunks(TASK).zip(gate.par_chunks(TASK));
    output.par_chunks_mut(TASK).zip(inputs).for_each(|(output, (x, gate))| {
        arch.dispatch(
            #[inline(always)]
            || {
                for ((output, x), gate) in output.iter_mut().zip(x).zip(gate) {
                    *output = x * share(*x).0 * gate;
                }
            },
        );
    });
    output
}

/// Turns the gradient of `gelu(x) · gate` into that of `x`; the gradient of the gate.
pub(super) fn gated_gelu_backward_in_place(gradient: &mut [f32], x: &[f32], gate: &[f32]) -> Vec<f32> {
    let arch = pulp::Arch::new();
    let mut of_gate = vec![0.0; x.len()];
    let inputs = x.par_chunks(TASK).zip(gate.par_chunks(TASK));
    let outputs = gradient.par_chunks_mut(TASK).zip(of_gate.par_chunks_mut(TASK));
    outputs.zip(inputs).for_each(|((gradient, of_gate), (x, gate))| {
        arch.dispatch(
            #[inline(always)]
            || {
                let outputs = gradient.iter_mut().zip(of_gate);
                for ((gradient, of_gate), (x, gate)) in outputs.zip(x.iter().zip(gate)) {
                    let (share, derivative) = share(*x);
                    *of_gate = *gradient * x * share;
                    *gradient *= gate * derivative;
                }
            },
        );
    });
    of_gate
}
