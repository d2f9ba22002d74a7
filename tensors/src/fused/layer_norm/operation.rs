//! Layer normalisation as a backend has it.

#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};
#[cfg(feature = "fusion")]
use burn::tensor::{DType, Shape};

/// The operation as a backend has it.
#[backend_extension(Flex, Autodiff, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "fusion"))]
pub(crate) trait LayerNormOps: Backend {
    /// `norm(x) · weight + bias` over the last dimension.
    #[fusion(dtype = x, shape = x)]
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// `norm(x + residual) · weight + bias` over the last dimension.
    #[fusion(dtype = x, shape = x)]
    fn fused_layer_norm_of_sum(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;
}

/// What a tape needs of it, as a backend without one has it. *Moments* are each row's mean and
/// `1 / √(variance + ε)`, `[rows, 2]`.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "fusion"))]
pub(crate) trait LayerNormGradient: LayerNormOps {
    /// The output of [`fused_layer_norm`](LayerNormOps::fused_layer_norm), and the moments.
    #[fusion(meta = |x, _weight, _bias, _epsilon| (x.clone(), moments(x)))]
    fn normalised(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The output of [`fused_layer_norm_of_sum`](LayerNormOps::fused_layer_norm_of_sum), `x + residual`, and
    /// its moments.
    #[fusion(meta = |x, _residual, _weight, _bias, _epsilon| (x.clone(), x.clone(), moments(x)))]
    fn normalised_sum(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The gradient of what was normalised from that of the output.
    #[fusion(dtype = gradient, shape = gradient)]
    fn layer_norm_gradient(
        gradient: FloatTensor<Self>,
        sum: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        weight: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// The gradients of what was normalised, of the weight and of the bias from that of the output.
    #[fusion(meta = |gradient, _sum, _moments, weight| (gradient.clone(), weight.clone(), weight.clone()))]
    fn layer_norm_gradients(
        gradient: FloatTensor<Self>,
        sum: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        weight: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// What is known of the moments of `x` before they are computed.
#[cfg(feature = "fusion")]
fn moments(x: &TensorSpec) -> TensorSpec {
    let width = x.shape.last().copied().unwrap_or(1);
    TensorSpec::new(Shape::from([x.shape.num_elements() / width, 2]), DType::F32)
}
