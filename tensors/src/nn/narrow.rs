//! Matrices kept in fewer bits than float32, for generation on the CPU, which reads all of them for every
//! token: what is multiplied with them, and summed, stays float32.

use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData, module};
use half::bf16;
use rayon::prelude::*;

use crate::device::compute::Compute;
use crate::device::placement::NarrowDtype;
use crate::device::read_back::{floats, ints};
use crate::fused;
use crate::fused::few_rows::{FEW, Matrix, bits, product};

/// Rows whose products read a matrix as it is: with more, general products of all of it widened are faster.
const ROWS: usize = 4 * FEW;

/// A matrix `[out, in]` in fewer bits; copies share its numbers.
#[derive(Debug, Clone)]
pub struct NarrowMatrix {
    numbers: Arc<Numbers>,
    width: usize,
}

#[derive(Debug)]
enum Numbers {
    Bf16(Vec<bf16>),
    Int8(Vec<i8>, Vec<f32>),
}

impl NarrowMatrix {
    /// The nearest that `dtype` has to `values`, rows of `width` numbers.
    pub fn new(values: &[f32], width: usize, dtype: NarrowDtype) -> Self {
        let numbers = match dtype {
            NarrowDtype::Bf16 => {
                Numbers::Bf16(values.par_iter().map(|value| bf16::from_f32(*value)).collect())
            }
            NarrowDtype::Int8 => {
                let scales: Vec<f32> = values.par_chunks(width).map(scale).collect();
                let rows = values.par_chunks(width).zip(&scales);
                let whole = rows.flat_map_iter(|(row, scale)| {
                    let scale = *scale;
                    // At most 127, since the scale is the largest of the row over 127.
                    row.iter().map(move |value| (value / scale).round_ties_even() as i8)
                });
                Numbers::Int8(whole.collect(), scales)
            }
        };
        Self { numbers: Arc::new(numbers), width }
    }

    /// `[out, in]`.
    pub fn dims(&self) -> [usize; 2] {
        let numbers = match &*self.numbers {
            Numbers::Bf16(numbers) => numbers.len(),
            Numbers::Int8(numbers, _) => numbers.len(),
        };
        [numbers / self.width, self.width]
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        match &*self.numbers {
            Numbers::Bf16(numbers) => 2 * numbers.len(),
            Numbers::Int8(numbers, scales) => numbers.len() + 4 * scales.len(),
        }
    }

    /// The matrix with more rows behind its own, each the mean of these.
    pub fn grown(&self, rows: usize) -> Self {
        let [present, width] = self.dims();
        let mut values = self.widened();
        let mean: Vec<f32> = (0..width)
            .map(|at| {
                let sum: f64 = values.iter().skip(at).step_by(width).map(|value| f64::from(*value)).sum();
                (sum / present as f64) as f32
            })
            .collect();
        (present..rows).for_each(|_| values.extend_from_slice(&mean));
        let dtype = match *self.numbers {
            Numbers::Bf16(_) => NarrowDtype::Bf16,
            Numbers::Int8(..) => NarrowDtype::Int8,
        };
        Self::new(&values, width, dtype)
    }

    /// All of it as float32.
    pub fn widened(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.dims().iter().product()];
        let rows = values.par_chunks_mut(self.width).enumerate();
        rows.for_each(|(row, values)| self.widen_row(row, values));
        values
    }

    /// The rows with these numbers.
    ///
    /// # Shapes
    /// - ids `[batch, length]`, each below `out`; output `[batch, length, in]`
    pub(crate) fn select(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let ([batch, length], device) = (ids.dims(), ids.device());
        let Ok(rows) = ints(ids.clone()) else {
            return module::embedding(self.tensor(&device), ids);
        };
        let mut values = vec![0.0; batch * length * self.width];
        for (row, values) in rows.into_iter().zip(values.chunks_mut(self.width)) {
            self.widen_row(row as usize, values);
        }
        Tensor::from_data(TensorData::new(values, [batch, length, self.width]), &device)
    }

    fn widen_row(&self, row: usize, values: &mut [f32]) {
        let range = row * self.width..(row + 1) * self.width;
        match &*self.numbers {
            Numbers::Bf16(numbers) => {
                values.iter_mut().zip(&numbers[range]).for_each(|(value, number)| *value = number.to_f32());
            }
            Numbers::Int8(numbers, scales) => {
                let scale = scales[row];
                let numbers = numbers[range].iter().map(|number| f32::from(*number) * scale);
                values.iter_mut().zip(numbers).for_each(|(value, number)| *value = number);
            }
        }
    }

    /// All of it on a device, as float32.
    pub fn tensor(&self, device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(self.widened(), self.dims()), device)
    }

    /// `x·Wᵀ + b` in float32: of a few rows on no tape by the matrix as it is, else by all of it widened.
    ///
    /// # Shapes
    /// - x `[..., in]`, bias `[out]`, output `[..., out]`
    pub(crate) fn product<const D: usize>(&self, x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        self.of_few_rows(&x, bias.as_ref()).unwrap_or_else(|| {
            let weight = self.tensor(&x.device().inner());
            fused::linear(x, weight, bias, fused::Numbers { compute: Compute::F32, output: DType::F32 })
        })
    }

    fn of_few_rows<const D: usize>(&self, x: &Tensor<D>, bias: Option<&Tensor<1>>) -> Option<Tensor<D>> {
        let mut shape = x.dims();
        if x.device().is_autodiff() || shape[..D - 1].iter().product::<usize>() > ROWS {
            return None;
        }
        let [output, width] = self.dims();
        let bias = bias.map(|bias| floats(bias.clone())).transpose().ok()?;
        let (device, x) = (x.device(), floats(x.clone()).ok()?);
        let bias = bias.as_deref();
        let values = match &*self.numbers {
            Numbers::Bf16(numbers) => {
                product(&x, Matrix { numbers: bits(numbers), width, scales: None }, bias)
            }
            Numbers::Int8(numbers, scales) => {
                product(&x, Matrix { numbers: numbers.as_slice(), width, scales: Some(scales) }, bias)
            }
        };
        shape[D - 1] = output;
        Some(Tensor::from_data(TensorData::new(values, shape), &device))
    }
}

/// What a row's whole numbers are multiplied by; 1 of zeros alone, no number of damaged weights.
fn scale(row: &[f32]) -> f32 {
    if !row.iter().all(|value| value.is_finite()) {
        return f32::NAN;
    }
    let largest = row.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
    if largest > 0.0 { largest / 127.0 } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::layers::Linear;

    fn wave(count: usize, speed: f32) -> Vec<f32> {
        (0..count).map(|at| (at as f32 * speed).sin() * 0.1).collect()
    }

    #[test]
    fn values_are_the_nearest_that_there_are() {
        let values = wave(6 * 50, 0.37);
        for (dtype, most) in [(NarrowDtype::Bf16, 0.1 / 256.0), (NarrowDtype::Int8, 0.1 / 254.0)] {
            let matrix = NarrowMatrix::new(&values, 50, dtype);
            assert_eq!(matrix.dims(), [6, 50]);
            let widened = matrix.widened();
            let apart = |(a, b): (&f32, &f32)| (a - b).abs();
            let largest = widened.iter().zip(&values).map(apart).fold(0.0, f32::max);
            assert!(largest > 0.0 && largest <= most * 1.001, "{dtype:?}: {largest}");
        }
        assert_eq!(NarrowMatrix::new(&values, 50, NarrowDtype::Bf16).bytes(), 600);
        assert_eq!(NarrowMatrix::new(&values, 50, NarrowDtype::Int8).bytes(), 300 + 24);
        let zeros = NarrowMatrix::new(&[0.0; 4], 2, NarrowDtype::Int8);
        assert_eq!(zeros.widened(), [0.0; 4]);
    }

    #[test]
    fn damaged_weights_stay_damaged() {
        for odd in [f32::NAN, f32::INFINITY] {
            let int8 = NarrowMatrix::new(&[1.0, odd, 2.0, 3.0], 2, NarrowDtype::Int8).widened();
            assert!(int8[..2].iter().all(|value| value.is_nan()) && int8[2..].iter().all(|v| v.is_finite()));
        }
    }

    #[test]
    fn a_map_of_few_rows_and_of_many_is_that_of_the_widened_matrix() {
        let device = Device::flex();
        let tensor =
            |values, shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(values, shape), &device);
        let bias = Tensor::<1>::from_data(TensorData::new(wave(9, 0.5), [9]), &device);
        for dtype in [NarrowDtype::Bf16, NarrowDtype::Int8] {
            let matrix = NarrowMatrix::new(&wave(9 * 40, 0.31), 40, dtype);
            let weight = matrix.tensor(&device);
            for rows in [1, 5, FEW, FEW + 1, ROWS, ROWS + 1] {
                let x = tensor(wave(rows * 40, 0.73), [rows, 40]);
                let want = x.clone().matmul(weight.clone().transpose()) + bias.clone().unsqueeze();
                let got = matrix.product(x, Some(bias.clone()));
                let apart = (got - want).abs().max().into_scalar::<f32>();
                assert!(apart < 1e-6, "{dtype:?}, {rows} rows: {apart}");
            }
            // On a tape the gradient is that of the widened matrix.
            let x = Tensor::<2>::from_inner(tensor(wave(80, 0.73), [2, 40])).require_grad();
            let gradient = x.grad(&matrix.product(x.clone(), None).sum().backward()).unwrap();
            let want = weight.sum_dim(0).expand([2, 40]);
            assert!((gradient - want).abs().max().into_scalar::<f32>() < 1e-6);
        }
    }

    #[test]
    fn rows_are_selected_and_added() {
        let ids = Tensor::<2, Int>::from_ints([[2, 0]], &Device::flex());
        for dtype in [NarrowDtype::Bf16, NarrowDtype::Int8] {
            let matrix = NarrowMatrix::new(&[1.0, -2.0, 3.0, 4.0, 5.0, -6.0], 2, dtype);
            let widened = matrix.widened();
            let selected = floats(matrix.select(ids.clone())).unwrap();
            assert_eq!(selected, [&widened[4..], &widened[..2]].concat());
            let grown = matrix.grown(5);
            assert_eq!((grown.dims(), &grown.widened()[..6]), ([5, 2], &widened[..]));
            assert!((grown.widened()[8] - 3.0).abs() < 0.02 && (grown.widened()[9] + 1.333).abs() < 0.02);
        }
    }

    #[test]
    fn a_linear_map_uses_it() {
        let mut linear = Linear::new(4, 3, false, &Device::flex());
        let values = wave(12, 0.31);
        linear.narrow = Some(NarrowMatrix::new(&values, 4, NarrowDtype::Int8));
        let x = Tensor::<2>::ones([1, 4], &Device::flex());
        let got = floats(linear.forward(x)).unwrap();
        for (got, row) in got.iter().zip(values.chunks(4)) {
            assert!((got - row.iter().sum::<f32>()).abs() < 2e-3, "{got}");
        }
        assert_eq!(linear.kept_in(), DType::F32, "the activations stay float32");
    }
}
