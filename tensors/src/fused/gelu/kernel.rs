//! The exact GELU and its derivative.

use rayon::prelude::*;

use crate::fused::kernels::TASK;
use crate::fused::kernels::exponential::exp;

/// `1 / √(2π)`.
pub(super) const DENSITY_AT_ZERO: f32 = 0.398_942_3;
/// `1 - erf(z) ≈ p(1 / (1 + W z)) · e^(-z²)` for `z ≥ 0`, with an error below 1.5e-7, from the highest power
/// down (Abramowitz & Stegun, 7.1.26).
const W: f32 = 0.327_591_1;
const POLYNOMIAL: [f32; 5] = [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_72, 0.254_829_6];

/// The normal distribution's cumulative probability `Φ(x)` and its density `φ(x)`.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    let size = x.abs();
    let exponential = exp(-0.5 * size * size);
    let t = 1.0 / (1.0 + W * std::f32::consts::FRAC_1_SQRT_2 * size);
    let mut series = POLYNOMIAL[0];
    for coefficient in &POLYNOMIAL[1..] {
        series = series * t + coefficient;
    }
    let tail = 0.5 * series * t * exponential;
    let below = if x > 0.0 { 1.0 - tail } else { tail };
    (below, DENSITY_AT_ZERO * exponential)
}

/// `x · Φ(x)`.
pub(in crate::fused) fn forward(x: &[f32]) -> Vec<f32> {
    let arch = pulp::Arch::new();
    let mut output = vec![0.0; x.len()];
    output.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).for_each(|(output, x)| {
        arch.dispatch(
            #[inline(always)]
            || {
                for (output, x) in output.iter_mut().zip(x) {
                    *output = x * normal(*x).0;
                }
            },
        );
    });
    output
}

/// Turns the gradient of `gelu(x)` into that of `x`, `gradient · (Φ(x) + x φ(x))`.
pub(in crate::fused) fn backward_in_place(gradient: &mut [f32], x: &[f32]) {
    let arch = pulp::Arch::new();
    gradient.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).for_each(|(gradient, x)| {
        arch.dispatch(
            #[inline(always)]
            || {
                for (gradient, x) in gradient.iter_mut().zip(x) {
                    let (below, density) = normal(*x);
                    *gradient *= below + x * density;
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_error_function() {
        let x: Vec<f32> = (-8000..8000).map(|step| step as f32 * 1e-3).collect();
        for (x, got) in x.iter().zip(forward(&x)) {
            let wide = f64::from(*x);
            let want = wide * 0.5 * (1.0 + libm::erf(wide / std::f64::consts::SQRT_2));
            assert!((f64::from(got) - want).abs() < 1e-6, "{x}: {got} != {want}");
        }
    }
}
