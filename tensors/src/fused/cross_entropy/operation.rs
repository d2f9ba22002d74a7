//! Softmax cross-entropy as a backend has it.

#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata, backend_extension};
use burn::tensor::Shape;

use super::kernel::Targets;

/// The operation as a backend has it.
#[backend_extension(Flex, Autodiff, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "fusion"))]
pub(crate) trait CrossEntropyOps: Backend {
    /// The cross-entropy of each row of logits with its label.
    #[fusion(meta = |logits, targets| losses(logits, targets))]
    fn fused_cross_entropy(logits: FloatTensor<Self>, targets: Targets) -> FloatTensor<Self>;
}

/// What a tape needs of it, as a backend without one has it.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "fusion"))]
pub(crate) trait CrossEntropyGradient: CrossEntropyOps {
    /// The loss of each row, and its gradient.
    #[fusion(meta = |logits, targets| (losses(logits, targets), logits.clone()))]
    fn cross_entropy_with_gradient(
        logits: FloatTensor<Self>,
        targets: Targets,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Each row of `gradient`, multiplied by the row's factor.
    #[fusion(default)]
    fn scaled_rows(gradient: FloatTensor<Self>, factors: FloatTensor<Self>) -> FloatTensor<Self> {
        let rows = factors.shape().num_elements();
        Self::float_mul(gradient, Self::float_reshape(factors, Shape::from([rows, 1])))
    }
}

/// What is known of the losses before they are computed.
#[cfg(feature = "fusion")]
fn losses(logits: &TensorSpec, targets: &Targets) -> TensorSpec {
    TensorSpec::new(Shape::from([targets.labels.len()]), logits.dtype)
}
