//! Rows of scores to probabilities on CubeCL's devices, one launch each way.

#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata, backend_extension};
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::operation::Settings;
use crate::fused::cube::rows::{largest, sum};
use crate::fused::cube::{contiguous, cube_each_row, numbers, rows_of, unwritten};
use crate::fused::dropout::Mask;
use crate::fused::dropout::cube::factor_of;

/// Softmax as attention has it, over the last of four dimensions: scores in float32 or bf16, computed in
/// float32, and written in the numbers that are asked for.
#[backend_extension(Cube, Fusion: cfg(feature = "fusion"))]
pub(crate) trait SoftmaxOps: Backend {
    /// `dropout(softmax(scale · scores))`.
    #[fusion(meta = |scores, _settings, numbers| in_numbers(scores, *numbers))]
    fn softmax_of_scores(scores: FloatTensor<Self>, settings: Settings, numbers: DType) -> FloatTensor<Self>;

    /// `dropout(softmax(scale · scores + mask))`.
    #[fusion(meta = |scores, _mask, _settings, numbers| in_numbers(scores, *numbers))]
    fn softmax_of_masked_scores(
        scores: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        settings: Settings,
        numbers: DType,
    ) -> FloatTensor<Self>;

    /// The gradient of the scores, in the numbers of that of what is left of the probabilities, from this and
    /// all of them.
    #[fusion(dtype = gradient, shape = gradient)]
    fn gradient_of_scores(
        gradient: FloatTensor<Self>,
        probabilities: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self>;
}

/// What is known of a tensor of the shape of `x` before it is computed.
#[cfg(feature = "fusion")]
fn in_numbers(x: &TensorSpec, numbers: DType) -> TensorSpec {
    TensorSpec::new(x.shape.clone(), numbers)
}

/// What is dropped, as kernels are told it.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
struct Dropping {
    key: u32,
    threshold: u32,
    factor: f32,
}

/// Where the mask's row for a row of the scores `[batch, heads, queries, keys]` lies: rows of the mask from
/// one batch entry, head and query to the next, 0 where all share a row.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
struct MaskRows {
    heads: u32,
    queries: u32,
    per_batch: u32,
    per_head: u32,
    per_query: u32,
}

/// The score of an element as it goes into the softmax.
#[cube]
fn score<S: Float>(
    scores: &Tensor<S>,
    mask: &Tensor<f32>,
    at: usize,
    of_mask: usize,
    scale: f32,
    #[comptime] masked: bool,
) -> f32 {
    let scaled = f32::cast_from(scores[at]) * scale;
    if masked { scaled + mask[of_mask] } else { scaled }
}

#[cube(launch)]
fn softmax<S: Float, P: Float>(
    scores: &Tensor<S>,
    mask: &Tensor<f32>,
    output: &mut Tensor<P>,
    width: u32,
    scale: f32,
    mask_rows: MaskRows,
    dropping: Dropping,
    #[comptime] masked: bool,
    #[comptime] dropped: bool,
    #[comptime] units: usize,
    #[define(S)] _of_scores: ElemType,
    #[define(P)] _of_output: ElemType,
) {
    let width = width as usize;
    let start = CUBE_POS * width;
    if start >= output.len() {
        terminate!();
    }
    let row = CUBE_POS as u32;
    let query = row % mask_rows.queries;
    let head = row / mask_rows.queries % mask_rows.heads;
    let batch = row / mask_rows.queries / mask_rows.heads;
    let row_of_mask = batch * mask_rows.per_batch + head * mask_rows.per_head + query * mask_rows.per_query;
    let first = row_of_mask as usize * width;
    // Units that have no element take the first.
    let mut most = score(scores, mask, start, first, scale, masked);
    let mut i = UNIT_POS_X as usize;
    while i < width {
        most = max(most, score(scores, mask, start + i, first + i, scale, masked));
        i += units;
    }
    let shift = largest(most, units);
    let mut total = 0.0f32;
    i = UNIT_POS_X as usize;
    while i < width {
        total += (score(scores, mask, start + i, first + i, scale, masked) - shift).exp();
        i += units;
    }
    let factor = 1.0 / sum(total, units);
    i = UNIT_POS_X as usize;
    while i < width {
        let at = start + i;
        let exponential = (score(scores, mask, at, first + i, scale, masked) - shift).exp();
        let mut weight = exponential * factor;
        if dropped {
            weight *= factor_of(at as u32, dropping.key, dropping.threshold, dropping.factor);
        }
        output[at] = P::cast_from(weight);
        i += units;
    }
}

/// The gradient of a probability, from that of what dropout left of it.
#[cube]
fn of_probability<G: Float>(
    gradient: &Tensor<G>,
    at: usize,
    dropping: &Dropping,
    #[comptime] dropped: bool,
) -> f32 {
    let mut of_weight = f32::cast_from(gradient[at]);
    if dropped {
        of_weight *= factor_of(at as u32, dropping.key, dropping.threshold, dropping.factor);
    }
    of_weight
}

/// `scale · p · (g - Σ g p)` with the gradients `g` of what was not dropped.
#[cube(launch)]
fn softmax_backward<G: Float>(
    gradient: &Tensor<G>,
    probabilities: &Tensor<f32>,
    output: &mut Tensor<G>,
    width: u32,
    scale: f32,
    dropping: Dropping,
    #[comptime] dropped: bool,
    #[comptime] units: usize,
    #[define(G)] _numbers: ElemType,
) {
    let width = width as usize;
    let start = CUBE_POS * width;
    if start >= output.len() {
        terminate!();
    }
    let mut total = 0.0f32;
    let mut i = UNIT_POS_X as usize;
    while i < width {
        let at = start + i;
        total += of_probability(gradient, at, &dropping, dropped) * probabilities[at];
        i += units;
    }
    let shared = sum(total, units);
    i = UNIT_POS_X as usize;
    while i < width {
        let at = start + i;
        let own = of_probability(gradient, at, &dropping, dropped);
        output[at] = G::cast_from(scale * probabilities[at] * (own - shared));
        i += units;
    }
}

/// What a kernel is told of dropout; nothing that it looks at, where there is none.
fn dropping(mask: Option<Mask>) -> DroppingLaunch {
    let mask = mask.unwrap_or(Mask { key: 0, threshold: 0, factor: 1.0 });
    DroppingLaunch::new(mask.key, mask.threshold, mask.factor)
}

/// The scores to probabilities, with a mask or none.
fn launch(scores: CubeTensor, mask: Option<CubeTensor>, settings: Settings, to: DType) -> CubeTensor {
    let scores = contiguous(scores);
    let (width, _) = rows_of(&scores);
    let shape = scores.shape();
    let masked = mask.is_some();
    // A kernel without a mask looks at no element of what stands for it.
    let mask = mask.map_or_else(|| unwritten(&scores, [1, 1, 1, 1], DType::F32), contiguous);
    // The mask's dimensions are those of the scores, or 1.
    let of = mask.shape();
    let rows_of_mask = |dimension: usize, after: usize| match of[dimension] {
        1 => 0,
        _ => after as u32,
    };
    let mask_rows = MaskRowsLaunch::new(
        shape[1] as u32,
        shape[2] as u32,
        rows_of_mask(0, of[1] * of[2]),
        rows_of_mask(1, of[2]),
        rows_of_mask(2, 1),
    );
    let output = unwritten(&scores, shape, to);
    let ((cubes, dim, units), from, to) = (cube_each_row(&scores), numbers(&scores), numbers(&output));
    softmax::launch(
        &scores.client.clone(),
        cubes,
        dim,
        scores.into_tensor_arg(),
        mask.into_tensor_arg(),
        output.clone().into_tensor_arg(),
        width as u32,
        settings.scale,
        mask_rows,
        dropping(settings.dropout),
        masked,
        settings.dropout.is_some(),
        units,
        from,
        to,
    );
    output
}

impl SoftmaxOps for CubeBackend {
    fn softmax_of_scores(scores: CubeTensor, settings: Settings, numbers: DType) -> CubeTensor {
        launch(scores, None, settings, numbers)
    }

    fn softmax_of_masked_scores(
        scores: CubeTensor,
        mask: CubeTensor,
        settings: Settings,
        numbers: DType,
    ) -> CubeTensor {
        launch(scores, Some(mask), settings, numbers)
    }

    fn gradient_of_scores(gradient: CubeTensor, probabilities: CubeTensor, settings: Settings) -> CubeTensor {
        let (gradient, probabilities) = (contiguous(gradient), contiguous(probabilities));
        let (width, _) = rows_of(&gradient);
        let output = unwritten(&gradient, gradient.shape(), gradient.dtype);
        let ((cubes, dim, units), numbers) = (cube_each_row(&gradient), numbers(&gradient));
        softmax_backward::launch(
            &gradient.client.clone(),
            cubes,
            dim,
            gradient.into_tensor_arg(),
            probabilities.into_tensor_arg(),
            output.clone().into_tensor_arg(),
            width as u32,
            settings.scale,
            dropping(settings.dropout),
            settings.dropout.is_some(),
            units,
            numbers,
        );
        output
    }
}
