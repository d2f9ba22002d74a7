//! Position tables for images of another size.

use burn::tensor::{Device, Tensor, TensorData};

use blip2_model_files::error::ModelError;
use blip2_model_files::weights::WeightSource;
use blip2_tensors::device::cast::in_f32;
use blip2_tensors::device::read_back::floats;

/// Which points of the old and the new grid lie on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alignment {
    /// The outer edges of the corner patches: LAVIS's EVA encoder, and `transformers` on request.
    Edges,
    /// The centres of the corner patches: LAVIS's CLIP encoder.
    Corners,
}

impl Alignment {
    /// That of the position table of a trained encoder, by its name; none of another tensor.
    fn of_table(name: &str) -> Option<Self> {
        match name {
            "visual_encoder.pos_embed" => Some(Self::Edges),
            "visual_encoder.embeddings.position_embedding.weight" => Some(Self::Corners),
            _ => None,
        }
    }
}

/// The values of the tensor `name` of a model that is trained with its image encoder, in `shape`: a position
/// table that is stored for images of another size is resized.
///
/// # Errors
/// Those of [`WeightSource::read`].
pub fn read_with_positions(
    source: &WeightSource,
    name: &str,
    shape: &[usize],
) -> Result<Vec<f32>, ModelError> {
    let stored = source.shape(name).filter(|stored| stored.last() == shape.last());
    match stored.filter(|stored| Alignment::of_table(name).is_some() && rows(stored) != rows(shape)) {
        Some(stored) => {
            let values = source.read(name, stored)?;
            resized(name, values, stored, shape)?.map_or_else(|| source.read(name, shape), Ok)
        }
        None => source.read(name, shape),
    }
}

/// The values of the tensor `name`, which has a shape, in another model that is trained with its image
/// encoder and has it in `shape`: a position table is resized. None of a tensor of another shape.
///
/// # Errors
/// A position table that is not of a square of patches.
pub fn with_positions(
    name: &str,
    (values, stored): (&[f32], &[usize]),
    shape: &[usize],
) -> Result<Option<Vec<f32>>, ModelError> {
    match stored == shape {
        true => Ok(Some(values.to_vec())),
        false => resized(name, values.to_vec(), stored, shape),
    }
}

/// A position table of the shape `stored` in `shape`; none of another tensor.
fn resized(
    name: &str,
    values: Vec<f32>,
    stored: &[usize],
    shape: &[usize],
) -> Result<Option<Vec<f32>>, ModelError> {
    let width = shape.last().copied().unwrap_or_default();
    let table = Alignment::of_table(name).filter(|_| stored.last() == Some(&width));
    let Some(alignment) = table else { return Ok(None) };
    let [from, to] = [stored, shape].map(rows);
    let table = Tensor::<2>::from_data(TensorData::new(values, [from, width]), &Device::flex());
    let [from, to] = [from, to].map(|rows| rows.saturating_sub(1).isqrt());
    Ok(Some(floats(resize_positions(table, from, to, alignment)?)?))
}

/// Rows of a table of this shape.
fn rows(shape: &[usize]) -> usize {
    shape.iter().rev().nth(1).copied().unwrap_or_default()
}

/// Requires that [`read_with_positions`] would find the tensor; no values are read.
///
/// # Errors
/// Those of [`WeightSource::expect`].
pub fn expect_with_positions(source: &WeightSource, name: &str, shape: &[usize]) -> Result<(), ModelError> {
    let is_table = Alignment::of_table(name).is_some();
    match source.shape(name).filter(|stored| is_table && stored.last() == shape.last()) {
        Some(_) => Ok(()),
        None => source.expect(name, shape),
    }
}

/// A table `[1 + from², width]` (class row first) for a grid of `to × to` patches.
///
/// The class row stays; the others are resized bicubically without antialiasing, as LAVIS does at load.
pub(crate) fn resize_positions(
    table: Tensor<2>,
    from: usize,
    to: usize,
    alignment: Alignment,
) -> Result<Tensor<2>, ModelError> {
    let [rows, width] = table.dims();
    if rows != from * from + 1 {
        let reason = format!(
            "{rows} rows, a grid of {from}×{from} patches and a class token need {}",
            from * from + 1
        );
        return Err(ModelError::input("position table", reason));
    }
    if from == to {
        return Ok(table);
    }
    let (device, table) = (table.device(), in_f32(table));
    let class = table.clone().narrow(0, 0, 1);
    let grid = floats(table.narrow(0, 1, from * from))?;
    let resized = bicubic(&grid, from, to, width, alignment);
    let resized = Tensor::from_data(TensorData::new(resized, [to * to, width]), &device);
    Ok(Tensor::cat(vec![class, resized], 0))
}

/// Bicubic resize of a square grid of `channels` values (row-major, channels last).
fn bicubic(grid: &[f32], from: usize, to: usize, channels: usize, alignment: Alignment) -> Vec<f32> {
    let taps: Vec<[(usize, f32); 4]> =
        (0..to).map(|target| source_taps(target, from, to, alignment)).collect();
    let mut resized = vec![0.0; to * to * channels];
    for (row, row_taps) in taps.iter().enumerate() {
        for (column, column_taps) in taps.iter().enumerate() {
            let out = &mut resized[(row * to + column) * channels..][..channels];
            for (y, row_weight) in row_taps {
                for (x, column_weight) in column_taps {
                    let values = &grid[(y * from + x) * channels..][..channels];
                    let weight = row_weight * column_weight;
                    out.iter_mut().zip(values).for_each(|(out, value)| *out += weight * value);
                }
            }
        }
    }
    resized
}

/// The four source positions of a target position and their weights; positions beyond the edge are the edge.
fn source_taps(target: usize, from: usize, to: usize, alignment: Alignment) -> [(usize, f32); 4] {
    let centre = match alignment {
        Alignment::Edges => (target as f32 + 0.5) * (from as f32 / to as f32) - 0.5,
        // A grid of one patch has one corner: the first.
        Alignment::Corners if to < 2 => 0.0,
        Alignment::Corners => target as f32 * ((from - 1) as f32 / (to - 1) as f32),
    };
    let base = centre.floor();
    let offset = centre - base;
    let weights = [far(offset + 1.0), near(offset), near(1.0 - offset), far(2.0 - offset)];
    std::array::from_fn(|tap| {
        let position = (base as i64 - 1 + tap as i64).clamp(0, from as i64 - 1);
        (position as usize, weights[tap])
    })
}

/// The cubic convolution's parameter, as PyTorch has it.
const SHARPNESS: f32 = -0.75;

fn near(x: f32) -> f32 {
    ((SHARPNESS + 2.0) * x - (SHARPNESS + 3.0)) * x * x + 1.0
}

fn far(x: f32) -> f32 {
    ((SHARPNESS * x - 5.0 * SHARPNESS) * x + 8.0 * SHARPNESS) * x - 4.0 * SHARPNESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn close(got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 2e-5, "{got} is not {want}");
        }
    }

    #[test]
    fn equals_the_reference_resize() {
        let small = [0.0, 1.0, 2.0, 3.0];
        let want = [-0.260417, 0.326389, 0.913194, 0.913195, 1.5, 2.086806, 2.086806, 2.673611, 3.260417];
        close(&bicubic(&small, 2, 3, 1, Alignment::Edges), &want);
        let want = [0.0, 0.5, 1.0, 1.0, 1.5, 2.0, 2.0, 2.5, 3.0];
        close(&bicubic(&small, 2, 3, 1, Alignment::Corners), &want);
        close(&bicubic(&small, 2, 1, 1, Alignment::Corners), &[0.0]);
        let squares: Vec<f32> = (0..16).map(|i| (i * i) as f32 / 10.0).collect();
        let want = [0.168172, 0.510185, 1.269791, 3.560533, 5.4125, 7.682062, 13.634377, 16.996298, 20.77582];
        close(&bicubic(&squares, 4, 3, 1, Alignment::Edges), &want);
        let want = [-0.141541, -0.145226, -0.080067, 0.052289, 0.359115, 0.590152];
        close(&bicubic(&squares, 4, 6, 1, Alignment::Edges)[..6], &want);
    }

    #[test]
    fn the_tables_of_a_trained_encoder_are_known_by_name() {
        for (name, alignment) in [
            ("visual_encoder.pos_embed", Some(Alignment::Edges)),
            ("visual_encoder.embeddings.position_embedding.weight", Some(Alignment::Corners)),
            ("visual_encoder.blocks.0.norm1.bias", None),
            ("Qformer.bert.embeddings.position_embeddings.weight", None),
        ] {
            assert_eq!(Alignment::of_table(name), alignment, "{name}");
        }
    }

    #[test]
    fn the_class_row_stays_and_channels_do_not_mix() {
        let device = Device::flex();
        let rows = [[9.0, 8.0], [0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [3.0, 5.0]];
        let table = Tensor::<2>::from_floats(rows, &device);
        let resized = floats(resize_positions(table.clone(), 2, 3, Alignment::Edges).unwrap()).unwrap();
        close(&resized[..2], &[9.0, 8.0]);
        close(&resized[2..6], &[-0.260417, 5.0, 0.326389, 5.0]);
        let error = resize_positions(table, 3, 2, Alignment::Edges).unwrap_err().to_string();
        assert!(error.contains("5 rows"), "{error}");
    }
}
