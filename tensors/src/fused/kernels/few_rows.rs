//! Products of a few rows with a matrix in PyTorch's layout, as in generation, where a token is a row.
//!
//! General products copy both factors into panels first; with a few rows that costs more than the product.
//! Here the matrix is read once, in its own order, and meets all rows while it is near. A sum runs over the
//! inner dimension in [`LANES`] lanes and then from lane to lane, so that it depends on its row and its
//! column alone: not on the other rows, on threads or on the width of vectors.

use rayon::prelude::*;

use super::sixteen::{LANES, Lanewise, Number, Sixteen, compute};

/// Rows that are few: with more, general products are faster.
pub(crate) const FEW: usize = 16;

/// Rows whose sums are held in registers at a time.
const BLOCK: usize = 4;

/// Elements of the matrix that a task reads, about.
const TASK: usize = 1 << 15;

/// Bytes of the matrix that are fetched ahead.
const AHEAD: usize = 4096;

/// `[columns, width]`, numbers in their order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    pub(crate) numbers: &'a [T],
    pub(crate) width: usize,
    /// What each column's sum is multiplied by.
    pub(crate) scales: Option<&'a [f32]>,
}

/// `x·Wᵀ` of rows as wide as the matrix, times its scales, plus `bias`: `[rows, columns]`.
pub(crate) fn product<T: Number>(x: &[f32], matrix: Matrix<'_, T>, bias: Option<&[f32]>) -> Vec<f32> {
    product_in(x, matrix, bias, |task: Task<'_, T>| compute(task))
}

fn product_in<T: Number>(
    x: &[f32],
    matrix: Matrix<'_, T>,
    bias: Option<&[f32]>,
    compute: impl Fn(Task<'_, T>) + Sync,
) -> Vec<f32> {
    let Matrix { numbers, width, scales } = matrix;
    let (rows, columns) = (x.len() / width, numbers.len() / width);
    let x = Rows::new(x, width);
    let of_task = (TASK / width).clamp(1, columns);
    let mut sums = vec![0.0; rows * columns];
    let compute = |(sums, numbers): (&mut [f32], &[T])| {
        compute(Task { x: &x, numbers, width, stride: width, columns: numbers.len() / width, sums });
    };
    if rows * numbers.len() <= TASK {
        sums.chunks_mut(rows * of_task).zip(numbers.chunks(width * of_task)).for_each(compute);
    } else {
        sums.par_chunks_mut(rows * of_task).zip(numbers.par_chunks(width * of_task)).for_each(compute);
    }
    if rows > 1 {
        sums = in_rows(&sums, rows, of_task);
    }
    for row in sums.chunks_exact_mut(columns) {
        if let Some(scales) = scales {
            row.iter_mut().zip(scales).for_each(|(sum, scale)| *sum *= scale);
        }
        if let Some(bias) = bias {
            row.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
        }
    }
    sums
}

/// What tasks of `columns` columns have computed, each `[rows, columns]`, as rows.
fn in_rows(tasks: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut output = Vec::with_capacity(tasks.len());
    for row in 0..rows {
        for task in tasks.chunks(rows * columns) {
            let columns = task.len() / rows;
            output.extend_from_slice(&task[row * columns..][..columns]);
        }
    }
    output
}

/// A line of memory.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line([f32; LANES]);

/// Rows in blocks, of each block the same lanes of all its rows side by side; zeros behind their end.
pub(in crate::fused) struct Rows {
    blocks: Vec<Vec<Line>>,
    count: usize,
}

impl Rows {
    pub(in crate::fused) fn new(x: &[f32], width: usize) -> Self {
        let pack = |x: &[f32]| {
            let rows = x.len() / width;
            let mut lines = vec![Line([0.0; LANES]); rows * width.div_ceil(LANES)];
            for (row, x) in x.chunks_exact(width).enumerate() {
                for (line, x) in lines[row..].iter_mut().step_by(rows).zip(x.chunks(LANES)) {
                    line.0[..x.len()].copy_from_slice(x);
                }
            }
            lines
        };
        Self { blocks: x.chunks(BLOCK * width).map(pack).collect(), count: x.len() / width }
    }
}

/// The sums of some of the columns.
pub(in crate::fused) struct Task<'a, T> {
    pub(in crate::fused) x: &'a Rows,
    /// `[columns, width]`.
    pub(in crate::fused) numbers: &'a [T],
    pub(in crate::fused) width: usize,
    /// From one column's numbers to the next.
    pub(in crate::fused) stride: usize,
    pub(in crate::fused) columns: usize,
    /// `[rows, columns]`.
    pub(in crate::fused) sums: &'a mut [f32],
}

impl<T: Number> Lanewise for Task<'_, T> {
    #[inline(always)]
    fn compute<V: Sixteen>(self, vectors: V) {
        let Task { x, numbers, width, stride, columns, sums } = self;
        for column in 0..columns {
            let rest = &numbers[column * stride..];
            for (index, block) in x.blocks.iter().enumerate() {
                let rows = (x.count - index * BLOCK).min(BLOCK);
                let sums = &mut sums[index * BLOCK * columns + column..];
                match rows {
                    1 => put(sums, columns, of_block(vectors, block.as_chunks::<1>().0, rest, width)),
                    2 => put(sums, columns, of_block(vectors, block.as_chunks::<2>().0, rest, width)),
                    3 => put(sums, columns, of_block(vectors, block.as_chunks::<3>().0, rest, width)),
                    _ => put(sums, columns, of_block(vectors, block.as_chunks::<BLOCK>().0, rest, width)),
                }
            }
        }
    }
}

/// Puts a column's sums below each other.
#[inline(always)]
fn put<const R: usize>(sums: &mut [f32], columns: usize, of_rows: [f32; R]) {
    for (row, sum) in of_rows.into_iter().enumerate() {
        sums[row * columns] = sum;
    }
}

/// The sums of one column, with which `numbers` begin, over the rows of a block.
#[inline(always)]
fn of_block<V: Sixteen, T: Number, const R: usize>(
    vectors: V,
    x: &[[Line; R]],
    numbers: &[T],
    width: usize,
) -> [f32; R] {
    let ahead = AHEAD / size_of::<T>();
    let (whole, rest) = numbers[..width].as_chunks::<LANES>();
    let mut sums = [vectors.zeros(); R];
    for (at, (lanes, x)) in whole.iter().zip(x).enumerate() {
        // One line holds one, two or four times the lanes.
        if at % (64 / (LANES * size_of::<T>())).max(1) == 0 {
            vectors.fetch(&numbers[(at * LANES + ahead).min(numbers.len())..]);
        }
        let lanes = T::widened(vectors, lanes);
        for row in 0..R {
            sums[row] = vectors.add_product(sums[row], vectors.floats(&x[row].0), lanes);
        }
    }
    if !rest.is_empty() {
        let mut lanes = [T::default(); LANES];
        lanes[..rest.len()].copy_from_slice(rest);
        let (lanes, x) = (T::widened(vectors, &lanes), &x[whole.len()]);
        for row in 0..R {
            sums[row] = vectors.add_product(sums[row], vectors.floats(&x[row].0), lanes);
        }
    }
    let mut totals = [0.0; R];
    for row in 0..R {
        totals[row] = vectors.total(sums[row]);
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fused::kernels::sixteen::{Portable, bits};
    use half::bf16;

    fn wave(count: usize, speed: f32) -> Vec<f32> {
        (0..count).map(|at| (at as f32 * speed).sin() * 3.0).collect()
    }

    fn plain<T>(numbers: &[T], width: usize) -> Matrix<'_, T> {
        Matrix { numbers, width, scales: None }
    }

    /// `x·Wᵀ` in float64.
    fn exact(x: &[f32], matrix: &[f32], width: usize) -> Vec<f64> {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        x.chunks(width).flat_map(|x| matrix.chunks(width).map(move |row| dot(x, row))).collect()
    }

    fn assert_close(got: &[f32], want: &[f64], width: usize) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-5 * width as f64, "{got} {want}");
        }
    }

    #[test]
    fn no_element_row_or_column_is_left_out() {
        for (rows, width, columns) in
            [(1, 1, 1), (1, 16, 3), (2, 17, 5), (3, 40, 7), (4, 64, 600), (5, 48, 2), (FEW, 33, 2100)]
        {
            let (x, matrix) = (wave(rows * width, 0.73), wave(columns * width, 0.31));
            let got = product(&x, plain(&matrix, width), None);
            assert_close(&got, &exact(&x, &matrix, width), width);
        }
    }

    #[test]
    fn scales_multiply_and_the_bias_is_added_behind() {
        let matrix: Vec<i8> = vec![1, -2, 3, 127, -128, 0];
        let scales = Matrix { numbers: &matrix, width: 3, scales: Some(&[2.0, 0.5]) };
        let got = product(&[1.0, 1.0, 1.0, 2.0, 0.0, 1.0], scales, Some(&[10.0, -1.0]));
        assert_eq!(got, [14.0, -1.5, 20.0, 126.0]);
    }

    /// Equal bits: of a row alone and among others, of bf16 and what it widens to, with and without AVX2.
    #[test]
    fn a_sum_depends_on_its_row_and_its_column_alone() {
        let (rows, width, columns) = (7, 77, 900);
        let x = wave(rows * width, 0.73);
        let narrow: Vec<bf16> = wave(columns * width, 0.31).into_iter().map(bf16::from_f32).collect();
        let matrix: Vec<f32> = narrow.iter().map(|value| value.to_f32()).collect();
        let together = product(&x, plain(&matrix, width), None);
        let alone: Vec<f32> =
            x.chunks(width).flat_map(|row| product(row, plain(&matrix, width), None)).collect();
        assert_eq!(together, alone);
        assert_eq!(together, product(&x, plain(bits(&narrow), width), None));
        let portable = |task: Task<'_, f32>| task.compute(Portable);
        assert_eq!(together, product_in(&x, plain(&matrix, width), None, portable));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(together, pool.install(|| product(&x, plain(&matrix, width), None)));
        let whole: Vec<i8> = (0..columns * width).map(|at| (at * 7 % 256) as u8 as i8).collect();
        let floats: Vec<f32> = whole.iter().map(|value| f32::from(*value)).collect();
        assert_eq!(product(&x, plain(&whole, width), None), product(&x, plain(&floats, width), None));
    }
}
