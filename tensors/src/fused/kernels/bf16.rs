//! float32 rounded to bf16, the nearest with ties to even, and bf16 as float32.

use half::bf16;
use rayon::prelude::*;

use super::TASK;

/// The nearest number that bf16 has. Written without a branch so that it is done many at a time.
#[inline(always)]
fn nearest(value: f32) -> f32 {
    let bits = value.to_bits();
    let nearest = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1));
    // Rounding up could turn a NaN into an infinity: keep its upper half and make it quiet.
    let bits = if value.is_nan() { bits | 0x0040_0000 } else { nearest };
    f32::from_bits(bits & 0xFFFF_0000)
}

/// `function` of each value; many at a time, by all threads.
#[inline(always)]
fn each<A: Copy + Sync, B: Copy + Default + Send>(values: &[A], function: impl Fn(A) -> B + Sync) -> Vec<B> {
    let arch = pulp::Arch::new();
    let mut output = vec![B::default(); values.len()];
    output.par_chunks_mut(TASK).zip(values.par_chunks(TASK)).for_each(|(output, values)| {
        arch.dispatch(
            #[inline(always)]
            || output.iter_mut().zip(values).for_each(|(output, value)| *output = function(*value)),
        );
    });
    output
}

/// Every value rounded.
pub(in crate::fused) fn rounded(values: &[f32]) -> Vec<f32> {
    each(values, nearest)
}

/// Every value rounded, in half the memory.
pub(in crate::fused) fn narrowed(values: &[f32]) -> Vec<bf16> {
    each(
        values,
        #[inline(always)]
        |value| bf16::from_bits((nearest(value).to_bits() >> 16) as u16),
    )
}

/// The same values, exactly.
pub(in crate::fused) fn widened(values: &[bf16]) -> Vec<f32> {
    each(
        values,
        #[inline(always)]
        |value| f32::from_bits(u32::from(value.to_bits()) << 16),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_half_crate() {
        let ties =
            [0x3F80_8000u32, 0x3F81_8000, 0x7F7F_FFFF, 0x7F80_0000, 0xFF80_0000, 0x7F80_0001, 0x7FFF_FFFF];
        let spread = (0..50_000u32).map(|i| i.wrapping_mul(0x9E37_79B9));
        let values: Vec<f32> = ties.into_iter().chain(spread).map(f32::from_bits).collect();
        for (value, got) in values.iter().zip(rounded(&values)) {
            assert_eq!(got.to_bits(), bf16::from_f32(*value).to_f32().to_bits(), "{value}");
        }
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(widened(&narrowed(&values))), bits(rounded(&values)));
    }
}
