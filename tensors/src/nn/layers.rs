//! The layers all models share, with weights in PyTorch's layout.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, Int, Tensor, module};

use crate::device::cast::{in_f32, in_numbers};
use crate::device::compute::Compute;
use crate::fused::{self, Numbers, gelu};
use crate::nn::adapter::Adapter;
use crate::nn::narrow::NarrowMatrix;
use crate::nn::tensors::{NamedTensors, TensorVisitor, join};

/// A parameter of zeros that takes no memory before its values are used.
pub fn zeros<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    let zeros =
        move |device: &Device, require_grad| Tensor::zeros(shape, device).set_require_grad(require_grad);
    Param::uninitialized(ParamId::new(), zeros, device.clone(), true, shape.into())
}

/// An affine map, `y = x·Wᵀ + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Numbers of the product's inputs.
    #[module(skip)]
    pub compute: Compute,
    /// What is added to a map that is frozen, where it is adapted.
    #[module(skip)]
    pub adapter: Option<Adapter>,
    /// The weight, where it is kept in fewer bits; [`Linear::weight`] is then nothing but its shape.
    #[module(skip)]
    pub narrow: Option<NarrowMatrix>,
}

impl Linear {
    /// A map of zeros, to be loaded or initialised.
    pub fn new(input: usize, output: usize, bias: bool, device: &Device) -> Self {
        let bias = bias.then(|| zeros([output], device));
        let weight = zeros([output, input], device);
        Self { weight, bias, compute: Compute::F32, adapter: None, narrow: None }
    }

    /// # Shapes
    /// - input `[..., in]`, output `[..., out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let output = x.dtype();
        self.product(x, output)
    }

    /// The same in float32, whatever `x` is in: for an output map, since bf16 has too few digits for scores.
    ///
    /// # Shapes
    /// - input `[..., in]`, output `[..., out]`
    pub fn scores<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.product(x, DType::F32)
    }

    /// [`Linear::forward`] of `gelu(x)`.
    ///
    /// # Shapes
    /// - input `[..., in]`, output `[..., out]`
    pub fn forward_gelu<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if self.adapter.is_some() || self.narrow.is_some() || is_one_row(&x) {
            return self.forward(gelu(x));
        }
        let (weight, output) = (self.weight.val(), x.dtype());
        if weight.dtype() == DType::BF16 {
            return self.forward(gelu(x));
        }
        let numbers = Numbers { compute: self.compute, output };
        fused::linear_of_gelu(x, weight, self.bias.as_ref().map(|bias| bias.val()), numbers)
    }

    fn product<const D: usize>(&self, x: Tensor<D>, output: DType) -> Tensor<D> {
        let numbers = Numbers { compute: self.compute, output };
        let bias = self.bias.as_ref().map(|bias| bias.val());
        let map = |x| match &self.narrow {
            Some(narrow) => narrow.product(x, bias),
            None => linear(x, self.weight.val(), bias, numbers),
        };
        match &self.adapter {
            Some(adapter) => map(x.clone()) + in_numbers(adapter.forward(x, self.compute), output),
            None => map(x),
        }
    }

    /// The numbers that the weight is kept in, which are those of a frozen model's residual stream.
    /// Where the weight is kept in fewer bits for reading alone, that is float32.
    pub fn kept_in(&self) -> DType {
        match self.narrow {
            Some(_) => DType::F32,
            None => self.weight.val().dtype(),
        }
    }

    /// Gives the map `rows` outputs; the new ones are as in [`Embedding::grown`].
    pub fn grow(&mut self, rows: usize) {
        (self.weight, self.narrow) = grown(&self.weight, self.narrow.as_ref(), rows);
    }
}

/// `x·Wᵀ + b` with the weight as PyTorch has it.
///
/// # Shapes
/// - x `[..., in]`, weight `[out, in]`, bias `[out]`, output `[..., out]`
///
/// A frozen weight in bf16 is multiplied in bf16, by `x` rounded to it.
fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    Numbers { compute, output }: Numbers,
) -> Tensor<D> {
    let compute = if weight.dtype() == DType::BF16 { Compute::Bf16 } else { compute };
    if compute == Compute::Bf16 || !is_one_row(&x) || fused::has_few_rows(&x, &weight) {
        return fused::linear(x, weight, bias, Numbers { compute, output });
    }
    let [output, input] = weight.dims();
    // A single row: W·x reads the weight in its own order.
    let mut shape = x.dims();
    shape[D - 1] = output;
    let y = weight.matmul(x.reshape([input, 1])).reshape(shape);
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}

/// Whether `x` is a single row.
fn is_one_row<const D: usize>(x: &Tensor<D>) -> bool {
    x.dims()[..D - 1].iter().all(|size| *size == 1)
}

impl NamedTensors for Linear {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        visitor.visit_compute(&mut self.compute);
        let [output, input] = [0, 1].map(|dimension| self.weight.lazy_shape()[dimension]);
        visitor.visit_map(prefix, [output, input], &mut self.adapter);
        visitor.visit_matrix(&join(prefix, "weight"), &mut self.weight, &mut self.narrow)?;
        match &mut self.bias {
            Some(bias) => visitor.visit_bias(&join(prefix, "bias"), bias),
            None => Ok(()),
        }
    }
}

/// Layer normalisation over the last dimension.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Scale, `[width]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[width]`.
    pub bias: Param<Tensor<1>>,
    epsilon: f64,
}

impl LayerNorm {
    /// Scale 1, shift 0.
    pub fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            weight: Param::from_tensor(Tensor::ones([width], device)),
            bias: Param::from_tensor(Tensor::zeros([width], device)),
            epsilon,
        }
    }

    /// # Shapes
    /// - input and output `[..., width]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        fused::layer_norm(x, None, self.weight.val(), self.bias.val(), self.epsilon)
    }

    /// Normalises `x + residual`.
    ///
    /// # Shapes
    /// - inputs and output `[..., width]`
    pub fn forward_sum<const D: usize>(&self, x: Tensor<D>, residual: Tensor<D>) -> Tensor<D> {
        fused::layer_norm(x, Some(residual), self.weight.val(), self.bias.val(), self.epsilon)
    }
}

impl NamedTensors for LayerNorm {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        visitor.visit(&join(prefix, "weight"), &mut self.weight)?;
        visitor.visit(&join(prefix, "bias"), &mut self.bias)
    }
}

/// Division by the root mean square of the last dimension, without a shift.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// Scale, `[width]`.
    pub weight: Param<Tensor<1>>,
    epsilon: f64,
}

impl RmsNorm {
    /// Scale 1.
    pub fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        Self { weight: Param::from_tensor(Tensor::ones([width], device)), epsilon }
    }

    /// # Shapes
    /// - input and output `[..., width]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        fused::rms_norm(x, self.weight.val(), self.epsilon)
    }
}

impl NamedTensors for RmsNorm {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        visitor.visit(&join(prefix, "weight"), &mut self.weight)
    }
}

/// A table of learned vectors, which are float32 outside whatever numbers the table is kept in.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[rows, width]`.
    pub weight: Param<Tensor<2>>,
    /// Numbers of the product's inputs, where the table is an output map.
    #[module(skip)]
    compute: Compute,
    /// The table, where it is kept in fewer bits; [`Embedding::weight`] is then nothing but its shape.
    #[module(skip)]
    narrow: Option<NarrowMatrix>,
}

impl Embedding {
    /// A table of zeros.
    pub fn new(rows: usize, width: usize, device: &Device) -> Self {
        Self { weight: zeros([rows, width], device), compute: Compute::F32, narrow: None }
    }

    /// The products of vectors with the rows, in float32: the table as an output map.
    ///
    /// # Shapes
    /// - x `[..., width]`, bias `[rows]`, output `[..., rows]`
    pub fn scores<const D: usize>(&self, x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        match &self.narrow {
            Some(narrow) => narrow.product(in_f32(x), bias),
            None => linear(x, self.weight.val(), bias, Numbers { compute: self.compute, output: DType::F32 }),
        }
    }

    /// # Shapes
    /// - ids `[batch, length]`, each below `rows`; output `[batch, length, width]`
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        match &self.narrow {
            Some(narrow) => narrow.select(ids),
            None => in_f32(module::embedding(self.weight.val(), ids)),
        }
    }

    /// The first `length` rows, `[1, length, width]`.
    pub fn first(&self, length: usize) -> Tensor<3> {
        self.range(0, length)
    }

    /// Rows `start..start + length`, `[1, length, width]`.
    pub fn range(&self, start: usize, length: usize) -> Tensor<3> {
        in_f32(self.weight.val().narrow(0, start, length)).unsqueeze::<3>()
    }

    /// The table with `rows` rows; the new ones are the mean of the others, so that no new token is ever
    /// likelier than the likeliest of the old where the table is an output map.
    pub fn grown(&self, rows: usize) -> Self {
        let (weight, narrow) = grown(&self.weight, self.narrow.as_ref(), rows);
        Self { weight, compute: self.compute, narrow }
    }

    /// As [`NamedTensors::visit_tensors`], of a table of tokens' vectors, which may be kept in fewer bits.
    pub fn visit_tokens<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        visitor.visit_compute(&mut self.compute);
        visitor.visit_matrix(&join(prefix, "weight"), &mut self.weight, &mut self.narrow)
    }
}

/// A table `[rows, width]` with additional rows, each the mean of the others.
fn grown(
    table: &Param<Tensor<2>>,
    narrow: Option<&NarrowMatrix>,
    rows: usize,
) -> (Param<Tensor<2>>, Option<NarrowMatrix>) {
    if let Some(narrow) = narrow {
        let narrow = narrow.grown(rows);
        return (zeros(narrow.dims(), &table.lazy_device()), Some(narrow));
    }
    let table = table.val();
    let [present, width] = table.dims();
    let mean =
        in_f32(table.clone()).mean_dim(0).cast(table.dtype()).expand([rows.saturating_sub(present), width]);
    (Param::from_tensor(Tensor::cat(vec![table, mean], 0)), None)
}

impl NamedTensors for Embedding {
    fn visit_tensors<V: TensorVisitor>(&mut self, prefix: &str, visitor: &mut V) -> Result<(), V::Error> {
        visitor.visit_compute(&mut self.compute);
        visitor.visit(&join(prefix, "weight"), &mut self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_alone_equals_the_same_row_among_others() {
        let device = Device::flex();
        let wave = |count: i64| Tensor::<1, Int>::arange(0..count, &device).float().sin();
        let (weight, bias) = (wave(15).reshape([3, 5]), wave(3));
        let rows = (wave(10) * 2.0).reshape([2, 1, 5]);
        let numbers = Numbers { compute: Compute::F32, output: DType::F32 };
        let all = linear(rows.clone(), weight.clone(), Some(bias.clone()), numbers);
        let one = linear(rows.narrow(0, 1, 1), weight, Some(bias), numbers);
        let difference = (all.narrow(0, 1, 1) - one).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-6, "{difference}");
    }
}
