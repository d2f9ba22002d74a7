//! What burn composes of many operations, or computes in another layout, each as one operation with its own
//! backward pass: GELU, layer normalisation (of a sum), division by the root mean square, dropout, attention,
//! softmax cross-entropy, the affine map (of a GELU); on the CPU ReLU and a gated GELU as well.
//!
//! An operation is a folder: what a backend has of it (`operation`), the CPU's loops (`kernel`, `flex`), the
//! kernels of CubeCL's devices, which are CUDA and Vulkan (`cube`), the nodes of its backward pass
//! (`autodiff`) and, beside it, its composition of burn's own operations, which it computes in other
//! precisions and is tested against. A result depends on the values alone: sums run over fixed chunks and
//! lanes, whatever the number of threads and the width of the processor's vectors.

mod activation;
mod affine;
#[cfg(test)]
pub(crate) mod agreement;
mod attention;
mod cross_entropy;
#[cfg(feature = "cube")]
mod cube;
mod dropout;
mod flex;
mod gelu;
mod kernels;
mod layer_norm;
mod place;
mod product;
mod rms_norm;

pub(crate) use activation::{gated_gelu, relu};
pub(crate) use affine::{Numbers, has_few_rows, linear, linear_of_gelu};
pub(crate) use attention::attention;
pub(crate) use cross_entropy::{Targets, cross_entropy};
pub(crate) use dropout::{Mask, dropout, hash};
pub use gelu::gelu;
pub use layer_norm::layer_norm;
pub(crate) use rms_norm::rms_norm;

/// Products of a few rows with matrices in any numbers.
pub(crate) mod few_rows {
    pub(crate) use super::kernels::few_rows::{FEW, Matrix, product};
    pub(crate) use super::kernels::sixteen::bits;
}
