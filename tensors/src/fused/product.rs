//! Matrix products on the CPU, written into memory that nothing was written to before.
//!
//! burn's CPU backend makes the output of a product twice, zeros first and then a copy of them at another
//! alignment, by one thread: a third of a training step. Here the same crate computes the same sums, with the
//! same bits, and its output is the first thing written. The products of attention's heads can be written
//! side by side in rows, so that no copy puts them there.

use std::mem::MaybeUninit;
use std::ops::Range;

use burn::backend::flex::FlexTensor;
use gemm::Parallelism;
use rayon::prelude::*;

use super::flex::tensor;
use super::kernels::task_rows;

/// Multiplications from which one product is worth all threads, and from which several are worth a thread
/// each: burn's own.
const WORTH_ALL_THREADS: usize = 192 * 192 * 192;
const WORTH_THREADS: usize = 128 * 128 * 128;

/// Elements of 4 KiB, at multiples of which lines share a set of the first-level cache of all processors that
/// this was measured on, and of a line.
const CROWDED: usize = 1024;
const LINE: usize = 16;
/// Columns from which a thread's part of a product is worth its packing of the other factor, and what parts
/// are multiples of.
const WORTH_A_PART: usize = 128;
const LANES: usize = 64;
/// Rows from which a transposed weight is worth a copy, and several threads to pack it.
const WORTH_SPREADING: usize = 64;

/// `a·b` of float32 over the last two dimensions, in the order of the indices.
///
/// # Shapes
/// - a `[..., rows, shared]`, b `[..., shared, columns]`, output `[..., rows, columns]`
pub(super) fn product(a: &FlexTensor, b: &FlexTensor) -> FlexTensor {
    in_order(&Product::of(a, b))
}

/// [`product`] whose memory has the order `[batch, rows, heads, columns]`, where there are batches enough for
/// all threads.
///
/// # Shapes
/// - a `[batch, heads, rows, shared]`, b `[batch, heads, shared, columns]`, output `[batch, heads, rows,
///   columns]`
pub(super) fn product_of_heads(a: &FlexTensor, b: &FlexTensor) -> FlexTensor {
    let product = Product::of(a, b);
    match *product.outer() {
        [batch, heads] if batch >= rayon::current_num_threads() => {
            let shape = vec![batch, product.rows, heads, product.columns];
            tensor(product.values(heads), shape).transpose(1, 2)
        }
        _ => in_order(&product),
    }
}

fn in_order(product: &Product<'_>) -> FlexTensor {
    tensor(product.values(1), [product.outer(), &[product.rows, product.columns]].concat())
}

/// `x·Wᵀ`, of a weight `[columns, shared]`.
///
/// # Shapes
/// - x `[rows, shared]`, weight `[columns, shared]`, output `[rows, columns]`
pub(super) fn product_with_rows(x: &FlexTensor, weight: &FlexTensor) -> FlexTensor {
    let rows = x.layout().shape()[0];
    match values_of_crowded(weight).filter(|_| rows >= WORTH_SPREADING) {
        Some((values, width)) => product(x, &spread(values, width).transpose(0, 1)),
        None => product(x, &weight.transpose(0, 1)),
    }
}

/// The values of a weight, and its width, if the same column of all rows falls into one set of the
/// first-level cache, which holds too few lines for the rows that a product reads side by side.
fn values_of_crowded(weight: &FlexTensor) -> Option<(&[f32], usize)> {
    let width = weight.layout().shape()[1];
    weight.as_slice().filter(|_| width > 0 && width.is_multiple_of(CROWDED)).map(|values| (values, width))
}

/// The rows of a weight with a cache line between them.
fn spread(values: &[f32], width: usize) -> FlexTensor {
    let (rows, apart) = (values.len() / width, width + LINE);
    let mut spread = vec![0.0; rows * apart];
    let copies = spread.par_chunks_mut(apart).zip(values.par_chunks(width)).with_min_len(task_rows(width));
    copies.for_each(|(to, from)| to[..width].copy_from_slice(from));
    tensor(spread, [rows, apart]).narrow(1, 0, width)
}

/// The matrices of one factor, wherever their elements lie.
struct Factor<'a> {
    values: &'a [f32],
    shape: &'a [usize],
    strides: &'a [isize],
    first: isize,
}

/// Products of the matrices of two factors.
struct Product<'a> {
    a: Factor<'a>,
    b: Factor<'a>,
    rows: usize,
    columns: usize,
    shared: usize,
}

impl<'a> Factor<'a> {
    /// # Panics
    /// The tensor has elements outside its memory.
    fn of(tensor: &'a FlexTensor) -> Self {
        let layout = tensor.layout();
        let (shape, strides) = (&layout.shape()[..], layout.strides());
        let factor = Self { values: tensor.storage(), shape, strides, first: layout.start_offset() as isize };
        if shape.iter().all(|size| *size > 0) {
            let steps = shape.iter().zip(strides).map(|(size, stride)| (*size as isize - 1) * stride);
            let (back, on): (Vec<isize>, Vec<isize>) = steps.partition(|step| *step < 0);
            let (lowest, highest) = (back.iter().sum::<isize>(), on.iter().sum::<isize>());
            let last = factor.first + highest;
            assert!(factor.first + lowest >= 0 && last < factor.values.len() as isize, "a factor's elements");
        }
        factor
    }

    /// The dimensions before the matrices'.
    fn outer(&self) -> &'a [usize] {
        &self.shape[..self.shape.len() - 2]
    }

    /// Matrix `index`.
    fn matrix(&self, index: usize) -> Matrix {
        let (outer, rows, columns) = match self.strides {
            [outer @ .., rows, columns] => (outer, *rows, *columns),
            _ => (self.strides, 0, 0),
        };
        let (mut rest, mut first) = (index, self.first);
        for (size, stride) in self.outer().iter().zip(outer).rev() {
            first += (rest % size) as isize * stride;
            rest /= size;
        }
        Matrix { first: self.values.as_ptr().wrapping_offset(first), rows, columns }
    }
}

impl<'a> Product<'a> {
    /// # Panics
    /// Factors that do not fit.
    fn of(a: &'a FlexTensor, b: &'a FlexTensor) -> Self {
        let (a, b) = (Factor::of(a), Factor::of(b));
        let ([.., rows, shared], [.., also_shared, columns]) = (a.shape, b.shape) else {
            panic!("a product of {:?} and {:?}", a.shape, b.shape)
        };
        let fits = shared == also_shared && a.outer() == b.outer();
        assert!(fits, "a product of {:?} and {:?}", a.shape, b.shape);
        Self { rows: *rows, columns: *columns, shared: *shared, a, b }
    }

    fn outer(&self) -> &'a [usize] {
        self.a.outer()
    }

    /// All products, `beside` of them next to each other in each row.
    #[expect(unsafe_code, reason = "the output is not written before the products write it")]
    fn values(&self, beside: usize) -> Vec<f32> {
        let matrices: usize = self.outer().iter().product();
        let length = matrices * self.rows * self.columns;
        if length == 0 {
            return Vec::new();
        }
        let mut values = Vec::with_capacity(length);
        let group = beside * self.rows * self.columns;
        let write = |index: usize, into: &mut [MaybeUninit<f32>], threads: Threads| {
            (0..beside).for_each(|at| self.write(index * beside + at, into, [at, beside], threads));
        };
        let output = &mut values.spare_capacity_mut()[..length];
        let (each, groups) = (self.rows * self.columns * self.shared, matrices / beside);
        let all = each * matrices;
        if groups > 1 && all >= WORTH_THREADS && (each < WORTH_ALL_THREADS || groups >= 4) {
            let groups = output.par_chunks_mut(group).enumerate();
            groups.for_each(|(index, into)| write(index, into, Threads::One));
        } else {
            let threads = if each >= WORTH_ALL_THREADS { Threads::All } else { Threads::One };
            let groups = output.chunks_mut(group).enumerate();
            groups.for_each(|(index, into)| write(index, into, threads));
        }
        // SAFETY: `group` divides `length`, so the chunks are all of it; each has been written by `beside`
        // products, which together write all of its elements.
        unsafe { values.set_len(length) };
        values
    }

    /// Writes product `index` as the `at`-th of `beside` next to each other.
    fn write(&self, index: usize, into: &mut [MaybeUninit<f32>], [at, beside]: [usize; 2], threads: Threads) {
        let Self { rows, columns, shared, .. } = *self;
        assert!(at < beside && into.len() == beside * rows * columns, "a product's place");
        let (a, b) = (self.a.matrix(index), self.b.matrix(index));
        let (place, stride) = (into[at * columns..].as_mut_ptr().cast::<f32>(), (beside * columns) as isize);
        let one = OneProduct { rows, shared, a, b, place, stride };
        let parts = rayon::current_num_threads();
        let divides = b.columns != 1 && rows >= WORTH_SPREADING && columns >= parts * WORTH_A_PART;
        match threads {
            // One thread packs all of a transposed factor, where it is left to gemm to use all threads. No
            // part is so narrow that gemm sums it otherwise than the whole.
            Threads::All if divides => {
                let border = |part: usize| columns.min(part * columns.div_ceil(LANES) / parts * LANES);
                let parts = (0..parts).into_par_iter();
                parts.for_each(|part| one.write(border(part)..border(part + 1), Parallelism::None));
            }
            Threads::All => one.write(0..columns, Parallelism::Rayon(0)),
            Threads::One => one.write(0..columns, Parallelism::None),
        }
    }
}

/// How many threads compute a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Threads {
    One,
    All,
}

/// A matrix's first element, and the distances between its rows and between its columns.
#[derive(Clone, Copy)]
struct Matrix {
    first: *const f32,
    rows: isize,
    columns: isize,
}

/// A product of two matrices, and the place of its first element; rows are `stride` apart.
///
/// All elements of the factors are in memory that is borrowed while this lives, those of the output in memory
/// that nobody else has.
struct OneProduct {
    rows: usize,
    shared: usize,
    a: Matrix,
    b: Matrix,
    place: *mut f32,
    stride: isize,
}

// SAFETY: the factors are read alone, and threads write columns that are no other thread's.
#[expect(unsafe_code, reason = "threads write columns of one output")]
unsafe impl Sync for OneProduct {}

impl OneProduct {
    /// Writes some of the columns.
    #[expect(unsafe_code, reason = "gemm takes pointers")]
    fn write(&self, columns: Range<usize>, parallelism: Parallelism) {
        let Self { rows, shared, a, b, place, stride } = *self;
        let (place, b_first) =
            (place.wrapping_add(columns.start), b.first.wrapping_offset(columns.start as isize * b.columns));
        // SAFETY: `Factor::of` has seen that every element of the factors is in their memory, and
        // `Product::write` that the output's are: the last is `(rows - 1) · stride + columns - 1` behind the
        // first. The output is not read.
        unsafe {
            gemm::gemm(
                rows,
                columns.len(),
                shared,
                place,
                1,
                stride,
                false,
                a.first,
                a.columns,
                a.rows,
                b_first,
                b.columns,
                b.rows,
                0.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::backend::TensorMetadata;
    use burn::backend::ops::FloatTensorOps;

    use super::*;
    use crate::fused::flex::{contiguous, values};

    fn wave(shape: &[usize], speed: f32) -> FlexTensor {
        let length = shape.iter().product::<usize>();
        tensor((0..length).map(|at| (at as f32 * speed).sin()).collect(), shape)
    }

    fn bits(tensor: FlexTensor) -> (Vec<usize>, Vec<u32>) {
        let tensor = contiguous(tensor);
        (tensor.shape().to_vec(), values(&tensor).iter().map(|value| value.to_bits()).collect())
    }

    fn assert_equal_burn_s(a: &FlexTensor, b: &FlexTensor) {
        let want = bits(Flex::float_matmul(a.clone(), b.clone()));
        assert_eq!(bits(product(a, b)), want, "{:?}·{:?}", a.layout(), b.layout());
        assert_eq!(bits(product_of_heads(a, b)), want, "heads of {:?}·{:?}", a.layout(), b.layout());
    }

    #[test]
    fn products_have_the_bits_of_burn_s() {
        // One value, one row, one column, one thread, all threads, several blocks of the shared dimension.
        for [rows, shared, columns] in
            [[1, 1, 1], [1, 70, 90], [70, 90, 1], [3, 5, 7], [200, 210, 220], [70, 3000, 80], [70, 600, 1111]]
        {
            let (a, b) = (wave(&[rows, shared], 0.73), wave(&[shared, columns], 0.31));
            assert_equal_burn_s(&a, &b);
            let (a, b) = (wave(&[shared, rows], 0.73), wave(&[columns, shared], 0.31));
            assert_equal_burn_s(&a.transpose(0, 1), &b.transpose(0, 1));
        }
    }

    #[test]
    fn weights_that_crowd_the_cache_are_spread_and_change_no_bit() {
        for (rows, width, is_spread) in [(64, 2048, true), (63, 2048, true), (64, 2047, false)] {
            let (x, weight) = (wave(&[rows, width], 0.73), wave(&[70, width], 0.31));
            assert_eq!(values_of_crowded(&weight).is_some(), is_spread);
            let want = Flex::float_matmul(x.clone(), weight.transpose(0, 1));
            assert_eq!(bits(product_with_rows(&x, &weight)), bits(want), "{rows} rows of {width}");
        }
        let (values, width) = ([1.0, 2.0, 3.0, 4.0], 2);
        let spread = spread(&values, width);
        assert_eq!(spread.layout().strides(), [2 + LINE as isize, 1]);
        assert_eq!(bits(spread).1, values.map(f32::to_bits));
    }

    #[test]
    fn heads_have_the_bits_of_burn_s_wherever_they_lie() {
        for [batch, heads] in [[1, 3], [2, 3], [40, 2]] {
            for [rows, shared, columns] in [[1, 8, 33], [5, 8, 33], [90, 80, 70], [200, 210, 200]] {
                let a = wave(&[batch, rows, heads, shared], 0.73).transpose(1, 2);
                let b = wave(&[batch, columns, heads, shared], 0.31).transpose(1, 2).transpose(2, 3);
                assert_equal_burn_s(&a, &b);
                assert_equal_burn_s(&a.to_contiguous(), &b.to_contiguous());
                let part = wave(&[batch, rows + 3, heads, shared], 0.73).narrow(1, 2, rows).transpose(1, 2);
                assert_equal_burn_s(&part, &b);
            }
        }
    }

    /// The rows of all heads lie in the order in which they are merged.
    #[test]
    fn heads_of_many_batches_are_merged_without_a_copy() {
        let batch = rayon::current_num_threads();
        let (a, b) = (wave(&[batch, 3, 5, 8], 0.73), wave(&[batch, 3, 8, 4], 0.31));
        assert!(product_of_heads(&a, &b).transpose(1, 2).is_contiguous());
    }

    #[test]
    fn nothing_has_no_products() {
        assert_eq!(bits(product(&wave(&[0, 3], 1.0), &wave(&[3, 2], 1.0))), (vec![0, 2], vec![]));
        assert_eq!(bits(product(&wave(&[1, 0], 1.0), &wave(&[0, 2], 1.0))), (vec![1, 2], vec![0, 0]));
    }

    #[test]
    #[should_panic(expected = "a product of [2, 3] and [4, 2]")]
    fn factors_that_do_not_fit_are_refused() {
        product(&wave(&[2, 3], 1.0), &wave(&[4, 2], 1.0));
    }
}
