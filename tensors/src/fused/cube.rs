//! Tensors of CubeCL's devices, as the operations take and give them, and how kernels share their work.
//!
//! A kernel is launched as *cubes* of *units* (blocks of threads). Each row of a tensor has a cube, whose
//! units take every so many of its elements; what they have of a sum is added up in one order (`rows`), so
//! that a result depends on the values alone.

pub(super) mod layout;
pub(super) mod rows;

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::CubeDim;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::CubeCount;

/// Units of a cube whose units have an element each.
const UNITS: usize = 256;
/// Cubes side by side in a launch: every device takes as many, and they lie in more than one row above it.
const CUBES_IN_ROW: usize = 32_768;

/// The tensor with its values in the order of their indices.
pub(super) fn contiguous(tensor: CubeTensor) -> CubeTensor {
    into_contiguous(tensor)
}

/// A tensor in these numbers on the device of `like`, which a kernel is to write in full.
pub(super) fn unwritten(like: &CubeTensor, shape: impl Into<Shape>, numbers: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), numbers)
}

/// The numbers of a tensor, as kernels are told them: they read and write bf16 or float32, and compute in
/// float32.
pub(super) fn numbers(tensor: &CubeTensor) -> ElemType {
    ElemType::Float(match tensor.dtype {
        DType::BF16 => FloatKind::BF16,
        _ => FloatKind::F32,
    })
}

/// The width of the tensor's rows, and how many there are.
pub(super) fn rows_of(tensor: &CubeTensor) -> (usize, usize) {
    let shape = tensor.shape();
    let width = shape.last().copied().unwrap_or(1);
    (width, shape.num_elements() / width.max(1))
}

/// One unit for each of `elements`; those of the last cube that are too many do nothing.
pub(super) fn unit_each(elements: usize) -> (CubeCount, CubeDim) {
    (cube_each(elements.div_ceil(UNITS)), CubeDim::new_1d(UNITS as u32))
}

/// One cube for each row of the tensor, and the units of a cube: a power of two, so that halves can be put
/// together.
pub(super) fn cube_each_row(tensor: &CubeTensor) -> (CubeCount, CubeDim, usize) {
    let (width, rows) = rows_of(tensor);
    let units = width.next_power_of_two().clamp(32, UNITS);
    (cube_each(rows), CubeDim::new_1d(units as u32), units)
}

/// One cube for each of `count`; those of the last row of cubes that are too many do nothing.
fn cube_each(count: usize) -> CubeCount {
    let wide = count.clamp(1, CUBES_IN_ROW);
    CubeCount::Static(wide as u32, count.div_ceil(wide).max(1) as u32, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_cubes_for_all_and_no_side_is_longer_than_devices_take() {
        for count in [0, 1, 32_768, 32_769, 100_000, 5_000_000] {
            let CubeCount::Static(x, y, z) = cube_each(count) else { panic!("not fixed") };
            let all = x as usize * y as usize * z as usize;
            assert!(all >= count && all < count + CUBES_IN_ROW + 1, "{count}: {x} by {y}");
            assert!(x <= 65_535 && y <= 65_535, "{count}: {x} by {y}");
        }
    }
}
