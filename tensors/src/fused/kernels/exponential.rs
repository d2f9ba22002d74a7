//! `eˣ` in float32 arithmetic that vectorises.

/// Below this the result is zero.
const LOWEST: f32 = -87.0;
const HIGHEST: f32 = 88.0;
/// Adding it rounds to an integer, which then stands in the low bits: 1.5 · 2²³.
const ROUNDING: f32 = 12_582_912.0;
/// The natural logarithm of two in two parts, of which the first has few bits.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// `(eʳ - 1 - r) / r²` on `|r| ≤ ln 2 / 2`, from the highest power down (Cephes, `expf`).
const POLYNOMIAL: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// `eˣ` with a relative error below 2e-7; zero below -87.
#[inline(always)]
pub(in crate::fused) fn exp(x: f32) -> f32 {
    let limited = if x > HIGHEST { HIGHEST } else { x };
    let limited = if limited > LOWEST { limited } else { LOWEST };
    let rounded = limited * std::f32::consts::LOG2_E + ROUNDING;
    let power = rounded - ROUNDING;
    let rest = limited - power * LN_2[0] - power * LN_2[1];
    let mut series = POLYNOMIAL[0];
    for coefficient in &POLYNOMIAL[1..] {
        series = series * rest + coefficient;
    }
    let mantissa = series * rest * rest + rest + 1.0;
    let exponent = rounded.to_bits().wrapping_sub(ROUNDING.to_bits()).wrapping_add(127);
    let result = mantissa * f32::from_bits(exponent << 23);
    if x > LOWEST { result } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_exponential() {
        for step in -86_999..88_000 {
            let x = step as f32 * 1e-3;
            let want = libm::exp(f64::from(x));
            assert!((f64::from(exp(x)) / want - 1.0).abs() < 2e-7, "{x}: {} != {want}", exp(x));
        }
        assert_eq!((exp(0.0), exp(-1e4), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
    }
}
