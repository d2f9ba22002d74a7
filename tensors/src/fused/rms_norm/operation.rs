//! Division by the root mean square as a backend has it.

#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};
#[cfg(feature = "fusion")]
use burn::tensor::{DType, Shape};

/// The operation as a backend has it.
#[backend_extension(Flex, Autodiff, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "fusion"))]
pub(crate) trait RmsNormOps: Backend {
    /// `x / √(mean(x²) + ε) · weight` over the last dimension.
    #[fusion(dtype = x, shape = x)]
    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self>;
}

/// What a tape needs of it, as a backend without one has it. *Reciprocals* are those of each row's root mean
/// square, `[rows]`.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "fusion"))]
pub(crate) trait RmsNormGradient: RmsNormOps {
    /// The output of [`fused_rms_norm`](RmsNormOps::fused_rms_norm), and the reciprocals.
    #[fusion(meta = |x, _weight, _epsilon| (x.clone(), reciprocals(x)))]
    fn rms_normalised(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradient of `x` from that of the output.
    #[fusion(dtype = gradient, shape = gradient)]
    fn rms_norm_gradient(
        gradient: FloatTensor<Self>,
        x: FloatTensor<Self>,
        reciprocals: FloatTensor<Self>,
        weight: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// The same, and the gradient of the weight.
    #[fusion(meta = |gradient, _x, _reciprocals, weight| (gradient.clone(), weight.clone()))]
    fn rms_norm_gradients(
        gradient: FloatTensor<Self>,
        x: FloatTensor<Self>,
        reciprocals: FloatTensor<Self>,
        weight: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// What is known of the reciprocals of `x` before they are computed.
#[cfg(feature = "fusion")]
fn reciprocals(x: &TensorSpec) -> TensorSpec {
    let width = x.shape.last().copied().unwrap_or(1);
    TensorSpec::new(Shape::from([x.shape.num_elements() / width]), DType::F32)
}
