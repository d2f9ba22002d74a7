//! Sums of products in sixteen lanes, whatever vectors a processor has: equal bits on all of them.
//!
//! The compiler makes vectors of loops over arrays as long as one sum is held in registers, and of few loops
//! that hold several. So AVX2 is named here; the other implementation is for all other processors.

use half::bf16;
use half::slice::HalfFloatSliceExt;

/// Lanes of a sum: element `i` belongs to lane `i % LANES`.
pub(in crate::fused) const LANES: usize = 16;

/// Sixteen float32 in a processor's registers.
pub(crate) trait Sixteen: Copy + Send + Sync {
    /// The registers.
    type Lanes: Copy;

    /// Zeros.
    fn zeros(self) -> Self::Lanes;

    /// These values.
    fn floats(self, from: &[f32; LANES]) -> Self::Lanes;

    /// The same values, whose upper halves these are.
    fn upper_halves(self, from: &[u16; LANES]) -> Self::Lanes;

    /// The same values.
    fn bytes(self, from: &[i8; LANES]) -> Self::Lanes;

    /// `sum + a · b`, rounded twice.
    fn add_product(self, sum: Self::Lanes, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;

    /// The sum of all lanes: halves against halves.
    fn total(self, lanes: Self::Lanes) -> f32;

    /// Has the line that `of` begins with brought near.
    fn fetch<T>(self, of: &[T]);
}

/// What is computed in sixteen lanes.
pub(in crate::fused) trait Lanewise {
    /// Computes it; marked to be inlined, or it is not compiled for the processor's vectors.
    fn compute<V: Sixteen>(self, vectors: V);
}

/// Computes with the widest vectors that are named here and that the processor has.
pub(in crate::fused) fn compute(work: impl Lanewise) {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = pulp::x86::V3::try_new() {
        return avx2.vectorize(Vectorised(avx2, work));
    }
    work.compute(Portable);
}

/// Work as a function that is compiled for a processor.
#[cfg(target_arch = "x86_64")]
struct Vectorised<V, W>(V, W);

#[cfg(target_arch = "x86_64")]
impl<V: Sixteen, W: Lanewise> pulp::NullaryFnOnce for Vectorised<V, W> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.1.compute(self.0);
    }
}

/// Numbers that a matrix is kept in.
pub(crate) trait Number: Copy + Default + Send + Sync {
    /// As float32.
    fn widened<V: Sixteen>(vectors: V, from: &[Self; LANES]) -> V::Lanes;
}

impl Number for f32 {
    #[inline(always)]
    fn widened<V: Sixteen>(vectors: V, from: &[Self; LANES]) -> V::Lanes {
        vectors.floats(from)
    }
}

/// The bits of a bf16.
impl Number for u16 {
    #[inline(always)]
    fn widened<V: Sixteen>(vectors: V, from: &[Self; LANES]) -> V::Lanes {
        vectors.upper_halves(from)
    }
}

impl Number for i8 {
    #[inline(always)]
    fn widened<V: Sixteen>(vectors: V, from: &[Self; LANES]) -> V::Lanes {
        vectors.bytes(from)
    }
}

/// bf16 as the bits that [`Number`] takes.
pub(crate) fn bits(values: &[bf16]) -> &[u16] {
    values.reinterpret_cast()
}

/// Any processor.
#[derive(Debug, Clone, Copy)]
pub(in crate::fused) struct Portable;

impl Sixteen for Portable {
    type Lanes = [f32; LANES];

    #[inline(always)]
    fn zeros(self) -> Self::Lanes {
        [0.0; LANES]
    }

    #[inline(always)]
    fn floats(self, from: &[f32; LANES]) -> Self::Lanes {
        *from
    }

    #[inline(always)]
    fn upper_halves(self, from: &[u16; LANES]) -> Self::Lanes {
        from.map(|half| f32::from_bits(u32::from(half) << 16))
    }

    #[inline(always)]
    fn bytes(self, from: &[i8; LANES]) -> Self::Lanes {
        from.map(f32::from)
    }

    #[inline(always)]
    fn add_product(self, mut sum: Self::Lanes, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        for lane in 0..LANES {
            sum[lane] += a[lane] * b[lane];
        }
        sum
    }

    #[inline(always)]
    fn total(self, mut lanes: Self::Lanes) -> f32 {
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
            width /= 2;
        }
        lanes[0]
    }

    #[inline(always)]
    fn fetch<T>(self, _: &[T]) {}
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    use pulp::x86::V3;
    use pulp::{cast, f32x4, f32x8, u16x8};

    use super::{LANES, Sixteen};

    impl Sixteen for V3 {
        type Lanes = [f32x8; 2];

        #[inline(always)]
        fn zeros(self) -> Self::Lanes {
            [self.splat_f32x8(0.0); 2]
        }

        #[inline(always)]
        fn floats(self, from: &[f32; LANES]) -> Self::Lanes {
            cast(*from)
        }

        #[inline(always)]
        fn upper_halves(self, from: &[u16; LANES]) -> Self::Lanes {
            let [a, b]: [u16x8; 2] = cast(*from);
            let a = self.shl_const_u32x8::<16>(self.convert_u16x8_to_u32x8(a));
            let b = self.shl_const_u32x8::<16>(self.convert_u16x8_to_u32x8(b));
            [cast(a), cast(b)]
        }

        #[inline(always)]
        fn bytes(self, from: &[i8; LANES]) -> Self::Lanes {
            let [a, b]: [[i8; 8]; 2] = cast(*from);
            let a = self.convert_i8x16_to_i32x8(cast([a, [0; 8]]));
            let b = self.convert_i8x16_to_i32x8(cast([b, [0; 8]]));
            [self.convert_i32x8_to_f32x8(a), self.convert_i32x8_to_f32x8(b)]
        }

        #[inline(always)]
        fn add_product(self, sum: Self::Lanes, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            [
                self.add_f32x8(sum[0], self.mul_f32x8(a[0], b[0])),
                self.add_f32x8(sum[1], self.mul_f32x8(a[1], b[1])),
            ]
        }

        #[inline(always)]
        fn total(self, lanes: Self::Lanes) -> f32 {
            let [a, b]: [f32x4; 2] = cast(self.add_f32x8(lanes[0], lanes[1]));
            let f32x4(a, b, c, d) = self.add_f32x4(a, b);
            (a + c) + (b + d)
        }

        #[inline(always)]
        #[expect(unsafe_code, reason = "the standard library has no safe hint to fetch memory ahead")]
        fn fetch<T>(self, of: &[T]) {
            // SAFETY: a hint; it reads nothing and faults nowhere, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(of.as_ptr().cast()) }
        }
    }
}
