//! Passes over the rows of a matrix; sums run over fixed chunks, whatever the number of threads.

use rayon::prelude::*;

use super::{PARTIAL_ROWS, task_rows};

/// Adds `row` to each row.
pub(in crate::fused) fn add_to_each(values: &mut [f32], row: &[f32]) {
    let width = row.len();
    let arch = pulp::Arch::new();
    values.par_chunks_mut(task_rows(width) * width).for_each(|values| {
        arch.dispatch(
            #[inline(always)]
            || {
                for values in values.chunks_exact_mut(width) {
                    values.iter_mut().zip(row).for_each(|(value, add)| *value += add);
                }
            },
        );
    });
}

/// The sum of the rows of `width` elements.
pub(in crate::fused) fn sum(values: &[f32], width: usize) -> Vec<f32> {
    let arch = pulp::Arch::new();
    let add = |sum: &mut [f32], row: &[f32]| sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    let partial: Vec<Vec<f32>> = values
        .par_chunks(PARTIAL_ROWS * width)
        .map(|values| {
            let mut sum = vec![0.0; width];
            arch.dispatch(
                #[inline(always)]
                || values.chunks_exact(width).for_each(|row| add(&mut sum, row)),
            );
            sum
        })
        .collect();
    let mut sum = vec![0.0; width];
    partial.iter().for_each(|row| add(&mut sum, row));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_is_left_out() {
        for (rows, width) in [(1, 1), (3, 40_000), (64, 3), (65, 3), (200, 7)] {
            let mut values = vec![1.0; rows * width];
            let row: Vec<f32> = (0..width).map(|at| (at % 8) as f32).collect();
            add_to_each(&mut values, &row);
            let want: Vec<f32> = row.iter().map(|value| rows as f32 * (value + 1.0)).collect();
            assert_eq!(sum(&values, width), want, "{rows} rows of {width}");
        }
    }
}
