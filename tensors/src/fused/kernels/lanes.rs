//! Sums in a fixed number of lanes: vectors as wide as a processor has, in one order on all of them.

const LANES: usize = 16;

/// `Σ term(a, b)` over two slices of one length.
#[inline(always)]
pub(in crate::fused) fn sum_pairs(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += term(a[lane], b[lane]);
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane += term(*a, *b);
    }
    fold(lanes, |a, b| a + b)
}

/// `Σ term(a)`.
#[inline(always)]
pub(in crate::fused) fn sum(a: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    sum_pairs(a, a, |a, _| term(a))
}

/// The largest value; negative infinity of none.
#[inline(always)]
pub(in crate::fused) fn largest(a: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = a.chunks_exact(LANES);
    let rest = chunks.remainder();
    for a in chunks {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], a[lane]);
        }
    }
    for (lane, a) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, *a);
    }
    fold(lanes, larger)
}

/// Halves against halves.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = combine(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_element_is_left_out() {
        for length in [0, 1, 15, 16, 17, 50] {
            let values: Vec<f32> = (0..length).map(|i| (i * 7 % 13) as f32 - 5.0).collect();
            assert_eq!(sum(&values, |v| v), values.iter().sum::<f32>());
            assert_eq!(sum_pairs(&values, &values, |a, b| a * b), values.iter().map(|v| v * v).sum::<f32>());
            assert_eq!(largest(&values), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
