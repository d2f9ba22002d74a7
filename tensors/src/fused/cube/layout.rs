//! Tensors as products take them: in the order of their indices, in the numbers that are multiplied.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata, backend_extension};
use burn::tensor::{DType, FloatDType};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubecl::std::tensor::layout::linear::LinearView;

use super::{numbers, unit_each, unwritten};

/// The operation as a backend has it.
#[backend_extension(Cube, Fusion: cfg(feature = "fusion"))]
pub(crate) trait LayoutOps: Backend {
    /// The tensor in these numbers and in the order of its indices: itself where it is so, else one launch.
    /// Heads that are cut out of rows are copied before each product otherwise.
    #[fusion(meta = |x, numbers| burn::backend::fusion::custom::TensorSpec::new(x.shape.clone(), *numbers))]
    fn laid_out(x: FloatTensor<Self>, numbers: DType) -> FloatTensor<Self>;
}

/// The tensor in these numbers, in the order that it has.
pub(in crate::fused) fn in_numbers<B: Backend>(x: FloatTensor<B>, numbers: DType) -> FloatTensor<B> {
    match (x.dtype() == numbers, numbers) {
        (true, _) => x,
        (false, DType::BF16) => B::float_cast(x, FloatDType::BF16),
        (false, _) => B::float_cast(x, FloatDType::F32),
    }
}

#[cube(launch)]
fn lay_out<I: Float, O: Float>(
    x: LinearView<'_, I>,
    output: &mut Tensor<O>,
    #[define(I)] _from: ElemType,
    #[define(O)] _to: ElemType,
) {
    if ABSOLUTE_POS < output.len() {
        output[ABSOLUTE_POS] = O::cast_from(x.read(ABSOLUTE_POS));
    }
}

impl LayoutOps for CubeBackend {
    fn laid_out(x: CubeTensor, to: DType) -> CubeTensor {
        if x.dtype == to && x.is_contiguous() {
            return x;
        }
        let shape = x.shape();
        let output = unwritten(&x, shape.clone(), to);
        let (count, units) = unit_each(shape.num_elements());
        let (from, to) = (numbers(&x), numbers(&output));
        lay_out::launch(
            &x.client.clone(),
            count,
            units,
            x.into_linear_view(),
            output.clone().into_tensor_arg(),
            from,
            to,
        );
        output
    }
}
