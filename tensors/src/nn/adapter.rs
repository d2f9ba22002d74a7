//! What low-rank adaptation adds to a linear map (LoRA, arXiv 2106.09685).

use burn::tensor::{DType, Tensor};

use crate::device::cast::in_f32;
use crate::device::compute::Compute;
use crate::fused::{self, Mask, Numbers};
use crate::nn::dropout::Dropout;

/// `scale · B(A(dropout x))` in float32: what is trained beside a frozen map, whatever numbers that is in.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// A, `[rank, in]`.
    down: Tensor<2>,
    /// B, `[out, rank]`.
    up: Tensor<2>,
    scale: f64,
    /// Of what goes in: the same in every pass of this adapter.
    mask: Option<Mask>,
}

impl Adapter {
    /// Of its two matrices; its mask is the next one of `dropout`.
    ///
    /// # Shapes
    /// - down `[rank, in]`, up `[out, rank]`, both float32
    pub fn new(down: Tensor<2>, up: Tensor<2>, scale: f64, dropout: &mut Dropout) -> Self {
        Self { down, up, scale, mask: dropout.next_mask() }
    }

    /// What is added to the map of `x`, in float32; products have factors in `compute`.
    ///
    /// # Shapes
    /// - x `[..., in]`, output `[..., out]`
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>, compute: Compute) -> Tensor<D> {
        let numbers = Numbers { compute, output: DType::F32 };
        let x = in_f32(x);
        let x = match self.mask {
            Some(mask) => fused::dropout(x, mask),
            None => x,
        };
        let inner = fused::linear(x, self.down.clone(), None, numbers);
        fused::linear(inner, self.up.clone(), None, numbers) * self.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cast::in_numbers;
    use crate::device::read_back::floats;
    use crate::nn::layers::Linear;
    use burn::module::Param;
    use burn::tensor::{Device, Int};

    fn wave<const D: usize>(shape: [usize; D], speed: f32) -> Tensor<D> {
        let count = shape.iter().product::<usize>() as i64;
        (Tensor::<1, Int>::arange(0..count, &Device::flex()).float() * speed).sin().reshape(shape)
    }

    fn linear() -> Linear {
        let mut linear = Linear::new(5, 4, true, &Device::flex());
        linear.weight = Param::from_tensor(wave([4, 5], 0.31));
        linear.bias = Some(Param::from_tensor(wave([4], 0.5)));
        linear
    }

    fn adapted(linear: &Linear, up: Tensor<2>, dropout: &mut Dropout) -> Linear {
        Linear { adapter: Some(Adapter::new(wave([2, 5], 0.9), up, 1.5, dropout)), ..linear.clone() }
    }

    #[test]
    fn an_adapter_of_zeros_changes_no_bit() {
        let x = wave([2, 3, 5], 0.73);
        for kept_in in [DType::F32, DType::BF16] {
            let mut plain = linear();
            plain.weight = Param::from_tensor(in_numbers(plain.weight.val(), kept_in));
            let with = adapted(&plain, Tensor::zeros([4, 2], &Device::flex()), &mut Dropout::keyed(0.5, 1));
            for x in [
                in_numbers(x.clone(), kept_in),
                in_numbers(x.clone().narrow(0, 0, 1).narrow(1, 0, 1), kept_in),
            ] {
                assert_eq!(with.forward(x.clone()).into_data(), plain.forward(x).into_data());
            }
        }
    }

    #[test]
    fn an_adapter_is_a_matrix_of_its_rank_that_is_added() {
        let (plain, up, x) = (linear(), wave([4, 2], 1.3), wave([2, 3, 5], 0.73));
        let mut whole = plain.clone();
        whole.weight = Param::from_tensor(plain.weight.val() + up.clone().matmul(wave([2, 5], 0.9)) * 1.5);
        let with = adapted(&plain, up.clone(), &mut Dropout::off());
        let apart = (with.forward(x.clone()) - whole.forward(x.clone())).abs().max().into_scalar::<f32>();
        assert!(apart < 1e-5, "{apart}");
        // A stream's next adapter has another mask, which all its passes share.
        let mut dropout = Dropout::keyed(0.5, 7);
        let [first, second] = [(); 2].map(|()| adapted(&plain, up.clone(), &mut dropout));
        let of = |linear: &Linear| floats(linear.forward(x.clone())).unwrap();
        assert_eq!(of(&first), of(&first));
        assert_ne!(of(&first), of(&second));
        assert_ne!(of(&first), of(&with));
    }

    #[test]
    fn the_gradient_is_that_of_both_matrices_and_of_no_frozen_one() {
        let [down, up] =
            [wave([2, 5], 0.9), wave([4, 2], 1.3)].map(|of| Tensor::from_inner(of).require_grad());
        let mut with = linear();
        with.adapter = Some(Adapter::new(down.clone(), up.clone(), 1.5, &mut Dropout::off()));
        let (x, towards) = (wave([3, 5], 0.73), wave([3, 4], 0.37));
        let output = with.forward(Tensor::<2>::from_inner(x.clone()));
        let mut gradients = (output * Tensor::from_inner(towards.clone())).sum().backward();
        let want_up =
            towards.clone().transpose().matmul(x.clone().matmul(wave([2, 5], 0.9).transpose())) * 1.5;
        let want_down = towards.matmul(wave([4, 2], 1.3)).transpose().matmul(x) * 1.5;
        for (got, want) in [(&down, want_down), (&up, want_up)] {
            let got = got.grad_remove(&mut gradients).unwrap();
            assert!((got - want).abs().max().into_scalar::<f32>() < 1e-5);
        }
        assert!(with.weight.val().grad(&gradients).is_none());
    }
}
