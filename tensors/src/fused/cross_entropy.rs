//! Softmax cross-entropy with label smoothing.

mod autodiff;
#[cfg(feature = "cube")]
mod cube;
mod flex;
mod kernel;
mod operation;

pub(crate) use kernel::Targets;

use burn::backend::Dispatch;
use burn::tensor::{DType, Tensor};

use crate::fused::place::is_fused;
use operation::CrossEntropyOps;

/// The cross-entropy of each row of logits with its label, `scale · [(1-ε)·nll + ε/V·Σ_v −log p_v]`, and 0
/// for labels below 0 (PyTorch's `CrossEntropyLoss` with `label_smoothing` and `reduction="none"`). None
/// where this is not fused: the gradient is known without a tape, so a composition of operations would
/// compute more than the loss needs.
///
/// # Shapes
/// - logits `[rows, classes]`; one label a row, below `classes`; output `[rows]`
pub(crate) fn cross_entropy(logits: &Tensor<2>, targets: Targets) -> Option<Tensor<1>> {
    let fused = || Dispatch::fused_cross_entropy(logits.clone().into_dispatch(), targets);
    (is_fused(logits) && logits.dtype() == DType::F32).then(|| Tensor::from_dispatch(fused()))
}
