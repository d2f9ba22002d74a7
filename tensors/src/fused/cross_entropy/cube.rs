//! Softmax cross-entropy on CubeCL's devices.

use burn::backend::TensorMetadata;
use burn::backend::ops::IntTensorOps;
use burn::tensor::{DType, TensorData};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::kernel::Targets;
use super::operation::{CrossEntropyGradient, CrossEntropyOps};
use crate::fused::cube::rows::{largest, sum};
use crate::fused::cube::{contiguous, cube_each_row, unwritten};

/// The loss of the row of this cube, and its gradient if it is asked for.
#[cube(launch)]
fn rows(
    logits: &Tensor<f32>,
    labels: &Tensor<i32>,
    losses: &mut Tensor<f32>,
    gradient: &mut Tensor<f32>,
    smoothing: f32,
    scale: f32,
    #[comptime] with_gradient: bool,
    #[comptime] units: usize,
) {
    let row = CUBE_POS;
    if row >= labels.len() {
        terminate!();
    }
    let classes = logits.len() / labels.len();
    let start = row * classes;
    let unit = UNIT_POS_X as usize;
    let label = labels[row];
    if label < 0 {
        // The whole cube is here: no unit waits for one that has gone.
        if unit == 0 {
            losses[row] = 0.0;
        }
        if with_gradient {
            let mut i = UNIT_POS_X as usize;
            while i < classes {
                gradient[start + i] = 0.0;
                i += units;
            }
        }
        terminate!();
    }
    let mut most = logits[start];
    let mut total = 0.0f32;
    let mut i = UNIT_POS_X as usize;
    while i < classes {
        most = max(most, logits[start + i]);
        total += logits[start + i];
        i += units;
    }
    let shift = largest(most, units);
    let mut exponentials = 0.0f32;
    i = UNIT_POS_X as usize;
    while i < classes {
        exponentials += (logits[start + i] - shift).exp();
        i += units;
    }
    let normaliser = sum(exponentials, units);
    let all = sum(total, units);
    let share = smoothing / f32::cast_from(classes as u32);
    let class = label as usize;
    if unit == 0 {
        let hit = (1.0 - smoothing) * logits[start + class];
        losses[row] = scale * (normaliser.ln() + shift - hit - share * all);
    }
    if with_gradient {
        let factor = scale / normaliser;
        i = UNIT_POS_X as usize;
        while i < classes {
            let hit = select(i == class, scale * (1.0 - smoothing), 0.0);
            gradient[start + i] = (logits[start + i] - shift).exp() * factor - scale * share - hit;
            i += units;
        }
    }
}

/// The losses, and the gradient or one value that stands for none.
fn launch(logits: CubeTensor, targets: &Targets, with_gradient: bool) -> (CubeTensor, CubeTensor) {
    let logits = contiguous(logits);
    let count = targets.labels.len();
    let labels = TensorData::new(targets.labels.clone(), [count]);
    let labels = CubeBackend::int_from_data(labels, &logits.device);
    let losses = unwritten(&logits, [count], DType::F32);
    let gradient = match with_gradient {
        true => unwritten(&logits, logits.shape(), logits.dtype),
        false => unwritten(&logits, [1], logits.dtype),
    };
    let (cubes, dim, units) = cube_each_row(&logits);
    rows::launch(
        &logits.client.clone(),
        cubes,
        dim,
        logits.into_tensor_arg(),
        labels.into_tensor_arg(),
        losses.clone().into_tensor_arg(),
        gradient.clone().into_tensor_arg(),
        targets.smoothing,
        targets.scale,
        with_gradient,
        units,
    );
    (losses, gradient)
}

impl CrossEntropyOps for CubeBackend {
    fn fused_cross_entropy(logits: CubeTensor, targets: Targets) -> CubeTensor {
        launch(logits, &targets, false).0
    }
}

impl CrossEntropyGradient for CubeBackend {
    fn cross_entropy_with_gradient(logits: CubeTensor, targets: Targets) -> (CubeTensor, CubeTensor) {
        launch(logits, &targets, true)
    }
}
