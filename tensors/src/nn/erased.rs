//! Visits of tensors through an object, for models whose kind is known at run time alone.

use std::any::Any;

use burn::module::Param;
use burn::tensor::Tensor;

use crate::device::compute::Compute;
use crate::error::TensorError;
use crate::nn::adapter::Adapter;
use crate::nn::narrow::NarrowMatrix;
use crate::nn::tensors::TensorVisitor;

/// A tensor of any number of dimensions.
#[derive(Debug)]
pub enum AnyTensor<'a> {
    /// Of one.
    D1(&'a mut Param<Tensor<1>>),
    /// Of two.
    D2(&'a mut Param<Tensor<2>>),
    /// Of three.
    D3(&'a mut Param<Tensor<3>>),
    /// Of four.
    D4(&'a mut Param<Tensor<4>>),
}

/// The visitor behind an object failed, and keeps its error.
#[derive(Debug)]
pub struct Stopped(Option<TensorError>);

impl From<TensorError> for Stopped {
    fn from(error: TensorError) -> Self {
        Self(Some(error))
    }
}

/// A [`TensorVisitor`] as an object.
pub trait ErasedVisitor {
    /// [`TensorVisitor::visit`].
    fn visit_any(&mut self, name: &str, tensor: AnyTensor<'_>) -> Result<(), Stopped>;
    /// [`TensorVisitor::visit_bias`].
    fn visit_any_bias(&mut self, name: &str, bias: &mut Param<Tensor<1>>) -> Result<(), Stopped>;
    /// [`TensorVisitor::visit_matrix`].
    fn visit_any_matrix(
        &mut self,
        name: &str,
        matrix: &mut Param<Tensor<2>>,
        narrow: &mut Option<NarrowMatrix>,
    ) -> Result<(), Stopped>;
    /// [`TensorVisitor::visit_compute`].
    fn visit_any_compute(&mut self, compute: &mut Compute);
    /// [`TensorVisitor::visit_map`].
    fn visit_any_map(&mut self, name: &str, shape: [usize; 2], adapter: &mut Option<Adapter>);
}

/// A visitor, and what ended its visit.
struct Kept<'a, V: TensorVisitor> {
    visitor: &'a mut V,
    error: Option<V::Error>,
}

impl<V: TensorVisitor> Kept<'_, V> {
    fn keep(&mut self, visited: Result<(), V::Error>) -> Result<(), Stopped> {
        visited.map_err(|error| {
            self.error = Some(error);
            Stopped(None)
        })
    }
}

impl<V: TensorVisitor> ErasedVisitor for Kept<'_, V> {
    fn visit_any(&mut self, name: &str, tensor: AnyTensor<'_>) -> Result<(), Stopped> {
        let visited = match tensor {
            AnyTensor::D1(tensor) => self.visitor.visit(name, tensor),
            AnyTensor::D2(tensor) => self.visitor.visit(name, tensor),
            AnyTensor::D3(tensor) => self.visitor.visit(name, tensor),
            AnyTensor::D4(tensor) => self.visitor.visit(name, tensor),
        };
        self.keep(visited)
    }

    fn visit_any_bias(&mut self, name: &str, bias: &mut Param<Tensor<1>>) -> Result<(), Stopped> {
        let visited = self.visitor.visit_bias(name, bias);
        self.keep(visited)
    }

    fn visit_any_matrix(
        &mut self,
        name: &str,
        matrix: &mut Param<Tensor<2>>,
        narrow: &mut Option<NarrowMatrix>,
    ) -> Result<(), Stopped> {
        let visited = self.visitor.visit_matrix(name, matrix, narrow);
        self.keep(visited)
    }

    fn visit_any_compute(&mut self, compute: &mut Compute) {
        self.visitor.visit_compute(compute);
    }

    fn visit_any_map(&mut self, name: &str, shape: [usize; 2], adapter: &mut Option<Adapter>) {
        self.visitor.visit_map(name, shape, adapter);
    }
}

/// Has `visitor` visit what an object visits.
///
/// # Errors
/// The visitor's own; a visit that stopped for another reason.
pub fn visit_behind<V: TensorVisitor>(
    visitor: &mut V,
    visit: impl FnOnce(&mut dyn ErasedVisitor) -> Result<(), Stopped>,
) -> Result<(), V::Error> {
    let mut kept = Kept { visitor, error: None };
    match visit(&mut kept) {
        Ok(()) => Ok(()),
        Err(Stopped(Some(error))) => Err(error.into()),
        Err(Stopped(None)) => {
            Err(kept.error.unwrap_or_else(|| TensorError::input("visit", "stopped").into()))
        }
    }
}

/// The visitor behind an object.
pub struct Behind<'a>(pub &'a mut dyn ErasedVisitor);

impl TensorVisitor for Behind<'_> {
    type Error = Stopped;

    fn visit<const D: usize>(&mut self, name: &str, tensor: &mut Param<Tensor<D>>) -> Result<(), Stopped> {
        let tensor: &mut dyn Any = tensor;
        let tensor = match D {
            1 => tensor.downcast_mut().map(AnyTensor::D1),
            2 => tensor.downcast_mut().map(AnyTensor::D2),
            3 => tensor.downcast_mut().map(AnyTensor::D3),
            4 => tensor.downcast_mut().map(AnyTensor::D4),
            _ => None,
        };
        let tensor = tensor.ok_or_else(|| TensorError::input(name, "it has more than four dimensions"))?;
        self.0.visit_any(name, tensor)
    }

    fn visit_bias(&mut self, name: &str, bias: &mut Param<Tensor<1>>) -> Result<(), Stopped> {
        self.0.visit_any_bias(name, bias)
    }

    fn visit_matrix(
        &mut self,
        name: &str,
        matrix: &mut Param<Tensor<2>>,
        narrow: &mut Option<NarrowMatrix>,
    ) -> Result<(), Stopped> {
        self.0.visit_any_matrix(name, matrix, narrow)
    }

    fn visit_compute(&mut self, compute: &mut Compute) {
        self.0.visit_any_compute(compute);
    }

    fn visit_map(&mut self, name: &str, shape: [usize; 2], adapter: &mut Option<Adapter>) {
        self.0.visit_any_map(name, shape, adapter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::placement::NarrowDtype;
    use crate::nn::layers::Linear;
    use crate::nn::tensors::NamedTensors;
    use burn::tensor::Device;

    #[test]
    fn a_visitor_behind_an_object_is_called_as_it_is_itself() {
        #[derive(Default)]
        struct Calls(Vec<String>);
        impl TensorVisitor for Calls {
            type Error = TensorError;

            fn visit<const D: usize>(
                &mut self,
                name: &str,
                _: &mut Param<Tensor<D>>,
            ) -> Result<(), TensorError> {
                self.0.push(format!("{name} {D}"));
                Ok(())
            }

            fn visit_bias(&mut self, name: &str, _: &mut Param<Tensor<1>>) -> Result<(), TensorError> {
                self.0.push(format!("bias {name}"));
                Ok(())
            }

            fn visit_matrix(
                &mut self,
                name: &str,
                matrix: &mut Param<Tensor<2>>,
                narrow: &mut Option<NarrowMatrix>,
            ) -> Result<(), TensorError> {
                let shape = matrix.lazy_shape();
                let values = vec![0.0; shape[0] * shape[1]];
                *narrow = Some(NarrowMatrix::new(&values, shape[1], NarrowDtype::Int8));
                self.visit(name, matrix)
            }

            fn visit_compute(&mut self, compute: &mut Compute) {
                *compute = Compute::Bf16;
            }

            fn visit_map(&mut self, name: &str, [output, input]: [usize; 2], _: &mut Option<Adapter>) {
                self.0.push(format!("map {name} {input} to {output}"));
            }
        }
        impl Calls {
            fn through(
                &mut self,
                visit: impl FnOnce(&mut Behind<'_>) -> Result<(), Stopped>,
            ) -> Result<(), TensorError> {
                visit_behind(self, |object| visit(&mut Behind(object)))
            }
        }
        let mut linear = Linear::new(3, 2, true, &Device::flex());
        let mut calls = Calls::default();
        calls.through(|behind| linear.visit_tensors("map", behind)).unwrap();
        assert_eq!(calls.0, ["map map 3 to 2", "map.weight 2", "bias map.bias"]);
        assert_eq!(linear.compute, Compute::Bf16);
        assert_eq!(linear.narrow.as_ref().map(NarrowMatrix::dims), Some([2, 3]));
        let mut four = Param::from_tensor(Tensor::<4>::zeros([1, 1, 1, 1], &Device::flex()));
        calls.through(|behind| behind.visit("four", &mut four)).unwrap();
        assert_eq!(calls.0[3], "four 4");
        let mut five = Param::from_tensor(Tensor::<5>::zeros([1, 1, 1, 1, 1], &Device::flex()));
        let said = calls.through(|behind| behind.visit("five", &mut five)).unwrap_err().to_string();
        assert_eq!(said, "five: it has more than four dimensions");
    }

    #[test]
    fn the_error_of_a_visitor_behind_an_object_is_its_own() {
        struct Refuses;
        impl TensorVisitor for Refuses {
            type Error = TensorError;

            fn visit<const D: usize>(
                &mut self,
                name: &str,
                _: &mut Param<Tensor<D>>,
            ) -> Result<(), TensorError> {
                Err(TensorError::Missing { name: name.into() })
            }
        }
        let mut linear = Linear::new(3, 2, true, &Device::flex());
        let visited = visit_behind(&mut Refuses, |object| linear.visit_tensors("map", &mut Behind(object)));
        assert!(matches!(visited, Err(TensorError::Missing { name }) if name == "map.weight"));
    }
}
