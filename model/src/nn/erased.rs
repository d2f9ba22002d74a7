//! Visits of tensors through an object, for models whose kind is known at run time alone.

use std::any::Any;

use burn::module::Param;
use burn::tensor::Tensor;

use crate::device::compute::Compute;
use crate::error::ModelError;
use crate::nn::tensors::TensorVisitor;

/// A tensor of any number of dimensions.
pub(crate) enum AnyTensor<'a> {
    D1(&'a mut Param<Tensor<1>>),
    D2(&'a mut Param<Tensor<2>>),
    D3(&'a mut Param<Tensor<3>>),
    D4(&'a mut Param<Tensor<4>>),
}

/// A [`TensorVisitor`] as an object.
pub(crate) trait ErasedVisitor {
    fn visit_any(&mut self, name: &str, tensor: AnyTensor<'_>) -> Result<(), ModelError>;
    fn visit_any_bias(&mut self, name: &str, bias: &mut Param<Tensor<1>>) -> Result<(), ModelError>;
    fn visit_any_compute(&mut self, compute: &mut Compute);
}

impl<V: TensorVisitor> ErasedVisitor for V {
    fn visit_any(&mut self, name: &str, tensor: AnyTensor<'_>) -> Result<(), ModelError> {
        match tensor {
            AnyTensor::D1(tensor) => self.visit(name, tensor),
            AnyTensor::D2(tensor) => self.visit(name, tensor),
            AnyTensor::D3(tensor) => self.visit(name, tensor),
            AnyTensor::D4(tensor) => self.visit(name, tensor),
        }
    }

    fn visit_any_bias(&mut self, name: &str, bias: &mut Param<Tensor<1>>) -> Result<(), ModelError> {
        self.visit_bias(name, bias)
    }

    fn visit_any_compute(&mut self, compute: &mut Compute) {
        self.visit_compute(compute);
    }
}

/// The visitor behind an object.
pub(crate) struct Behind<'a>(pub(crate) &'a mut dyn ErasedVisitor);

impl TensorVisitor for Behind<'_> {
    fn visit<const D: usize>(&mut self, name: &str, tensor: &mut Param<Tensor<D>>) -> Result<(), ModelError> {
        let tensor: &mut dyn Any = tensor;
        let tensor = match D {
            1 => tensor.downcast_mut().map(AnyTensor::D1),
            2 => tensor.downcast_mut().map(AnyTensor::D2),
            3 => tensor.downcast_mut().map(AnyTensor::D3),
            4 => tensor.downcast_mut().map(AnyTensor::D4),
            _ => None,
        };
        let tensor = tensor.ok_or_else(|| ModelError::input(name, "it has more than four dimensions"))?;
        self.0.visit_any(name, tensor)
    }

    fn visit_bias(&mut self, name: &str, bias: &mut Param<Tensor<1>>) -> Result<(), ModelError> {
        self.0.visit_any_bias(name, bias)
    }

    fn visit_compute(&mut self, compute: &mut Compute) {
        self.0.visit_any_compute(compute);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::layers::Linear;
    use crate::nn::tensors::NamedTensors;
    use burn::tensor::Device;

    #[test]
    fn a_visitor_behind_an_object_is_called_as_it_is_itself() {
        #[derive(Default)]
        struct Calls(Vec<String>);
        impl TensorVisitor for Calls {
            fn visit<const D: usize>(
                &mut self,
                name: &str,
                _: &mut Param<Tensor<D>>,
            ) -> Result<(), ModelError> {
                self.0.push(format!("{name} {D}"));
                Ok(())
            }

            fn visit_bias(&mut self, name: &str, _: &mut Param<Tensor<1>>) -> Result<(), ModelError> {
                self.0.push(format!("bias {name}"));
                Ok(())
            }

            fn visit_compute(&mut self, compute: &mut Compute) {
                *compute = Compute::Bf16;
            }
        }
        let mut linear = Linear::new(3, 2, true, &Device::flex());
        let mut calls = Calls::default();
        linear.visit_tensors("map", &mut Behind(&mut calls)).unwrap();
        assert_eq!(calls.0, ["map.weight 2", "bias map.bias"]);
        assert_eq!(linear.compute, Compute::Bf16);
        let mut four = Param::from_tensor(Tensor::<4>::zeros([1, 1, 1, 1], &Device::flex()));
        Behind(&mut calls).visit("four", &mut four).unwrap();
        assert_eq!(calls.0[2], "four 4");
        let mut five = Param::from_tensor(Tensor::<5>::zeros([1, 1, 1, 1, 1], &Device::flex()));
        assert!(Behind(&mut calls).visit("five", &mut five).is_err());
    }
}
