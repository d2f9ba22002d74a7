//! The feed-forward part of a transformer layer, plain or gated, under the names that each family gives it.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::nn::activation::Activation;
use crate::nn::dropout::Dropout;
use crate::nn::layers::Linear;
use crate::nn::tensors::{NamedTensors, TensorVisitor, join};

/// `last(act(first x))`, or `last(act(first x) · gate x)` where it is gated.
#[derive(Module, Debug)]
pub struct FeedForward {
    first: Linear,
    gate: Option<Linear>,
    last: Linear,
    #[module(skip)]
    activation: Activation,
}

impl FeedForward {
    /// Two maps with biases.
    pub fn plain(width: usize, inner: usize, activation: Activation, device: &Device) -> Self {
        let (first, last) =
            (Linear::new(width, inner, true, device), Linear::new(inner, width, true, device));
        Self { first, gate: None, last, activation }
    }

    /// Three maps without biases.
    pub fn gated(width: usize, inner: usize, activation: Activation, device: &Device) -> Self {
        let inward = || Linear::new(width, inner, false, device);
        let last = Linear::new(inner, width, false, device);
        Self { first: inward(), gate: Some(inward()), last, activation }
    }

    /// # Shapes
    /// - x and output `[b, length, width]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.forward_dropped(x, &mut Dropout::off())
    }

    /// [`FeedForward::forward`] with dropout before the last map.
    pub fn forward_dropped(&self, x: Tensor<3>, dropout: &mut Dropout) -> Tensor<3> {
        let first = self.first.forward(x.clone());
        let inner = match &self.gate {
            Some(gate) => self.activation.gated(first, gate.forward(x)),
            None => self.activation.forward(first),
        };
        self.last.forward(dropout.forward(inner))
    }

    /// Visits the maps; `names` are those of the first, the gate where there is one, and the last.
    pub fn visit_named<V: TensorVisitor>(
        &mut self,
        prefix: &str,
        names: &[&str],
        visitor: &mut V,
    ) -> Result<(), V::Error> {
        let maps = [Some(&mut self.first), self.gate.as_mut(), Some(&mut self.last)];
        maps.into_iter()
            .flatten()
            .zip(names)
            .try_for_each(|(map, name)| map.visit_tensors(&join(prefix, name), visitor))
    }
}
