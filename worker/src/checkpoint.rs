//! The state in safetensors parts: what a checkpoint and a joiner's copy are made of.
//!
//! A part holds whole tensors, for each of them the parameter and both moments, under
//! `parameters.NAME`, `first_moments.NAME` and `second_moments.NAME`.

use std::collections::BTreeMap;

use blip2_run::commit::{CheckpointRecord, read_verified};
use blip2_run::layout::shard_name;
use blip2_store::Location;
use blip2_tensors::train::flat::{FlatLayout, FlatTensor};
use blip2_tensors::train::optimizer::Moments;
use bytes::Bytes;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::error::{Result, WorkerError};

const KINDS: [&str; 3] = ["parameters", "first_moments", "second_moments"];

/// Tensors of a state by kind and name.
#[derive(Debug, Default)]
pub struct NamedState {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    origin: String,
}

/// The tensors of part `index` of `count`: contiguous in the layout, of about equal size.
fn tensors_of_part(layout: &FlatLayout, index: u32, count: u32) -> Vec<&FlatTensor> {
    let part_of = |tensor: &FlatTensor| {
        let share = tensor.offset as u128 * u128::from(count) / (layout.len().max(1) as u128);
        share.min(u128::from(count - 1)) as u32
    };
    layout.tensors().iter().filter(|tensor| part_of(tensor) == index).collect()
}

/// Part `index` of `count` of a state, as a safetensors file; parameters and moments follow `layout`.
pub(crate) fn encode_part(
    layout: &FlatLayout,
    parameters: &[f32],
    moments: &Moments,
    (index, count): (u32, u32),
) -> Result<Bytes> {
    let failed = |error: safetensors::SafeTensorError| {
        WorkerError::checkpoint(shard_name(index, count), format!("cannot be encoded: {error}"))
    };
    let buffers = [parameters, &moments.first, &moments.second];
    let mut views = Vec::new();
    for tensor in tensors_of_part(layout, index, count.max(1)) {
        for (kind, buffer) in KINDS.iter().zip(buffers) {
            let bytes = bytemuck::cast_slice(&buffer[tensor.range()]);
            let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).map_err(failed)?;
            views.push((format!("{kind}.{}", tensor.name), view));
        }
    }
    Ok(safetensors::serialize(views, None).map_err(failed)?.into())
}

impl NamedState {
    /// From the bytes of all parts.
    pub fn decode(origin: &str, parts: &[Bytes]) -> Result<Self> {
        let mut state = Self { origin: origin.into(), ..Self::default() };
        for part in parts {
            let unreadable = |error| WorkerError::checkpoint(origin, format!("unreadable part: {error}"));
            let file = SafeTensors::deserialize(part).map_err(unreadable)?;
            for (name, view) in file.tensors() {
                if view.dtype() != Dtype::F32 {
                    return Err(WorkerError::checkpoint(origin, format!("`{name}` is not float32")));
                }
                let values = view
                    .data()
                    .chunks_exact(4)
                    .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
                    .collect();
                state.tensors.insert(name, (view.shape().to_vec(), values));
            }
        }
        Ok(state)
    }

    /// The parameters by name, with their shapes, in the order of their names.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        let prefix = format!("{}.", KINDS[0]);
        self.tensors.iter().filter_map(move |(name, (shape, values))| {
            Some((name.strip_prefix(&prefix)?, shape.as_slice(), values.as_slice()))
        })
    }

    /// Whether parameters and moments are numbers that one can go on from.
    ///
    /// # Errors
    /// [`WorkerError::NonFinite`] with the first tensor that holds a NaN or an infinity.
    pub fn check_finite(&self) -> Result<()> {
        let odd = self.tensors.iter().find(|(_, (_, values))| values.iter().any(|value| !value.is_finite()));
        match odd {
            Some((tensor, _)) => {
                Err(WorkerError::NonFinite { place: self.origin.clone(), tensor: tensor.clone() })
            }
            None => Ok(()),
        }
    }

    /// One BLAKE3 (hex) over all parameters in the order of their names: name, shape and values.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (name, shape, values) in self.parameters() {
            hasher.update(name.as_bytes());
            hasher.update(&[0]);
            for dimension in shape {
                hasher.update(&(*dimension as u64).to_le_bytes());
            }
            for value in values {
                hasher.update(&value.to_le_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Copies the tensors into buffers of `layout`, which is that of `what`.
    ///
    /// # Errors
    /// A tensor that is missing, has another shape, or is none of the layout's.
    pub(crate) fn fill(
        &self,
        what: &str,
        layout: &FlatLayout,
        parameters: &mut [f32],
        moments: &mut Moments,
    ) -> Result<()> {
        let refuse = |reason: String| Err(WorkerError::checkpoint(&self.origin, reason));
        let buffers = [parameters, &mut moments.first, &mut moments.second];
        for (kind, buffer) in KINDS.iter().zip(buffers) {
            for tensor in layout.tensors() {
                let name = format!("{kind}.{}", tensor.name);
                let Some((shape, values)) = self.tensors.get(&name) else {
                    return refuse(format!("tensor `{name}` of {what} is missing"));
                };
                if *shape != tensor.shape {
                    let own = &tensor.shape;
                    return refuse(format!(
                        "tensor `{name}` has shape {shape:?}, the model of {what} has {own:?}"
                    ));
                }
                buffer[tensor.range()].copy_from_slice(values);
            }
        }
        match self.parameters().find(|(name, ..)| layout.get(name).is_none()) {
            Some((name, ..)) => refuse(format!("tensor `{name}` is none of {what}")),
            None => Ok(()),
        }
    }
}

/// Reads and verifies the checkpoint in `folder`, a location below `checkpoints/`: what its COMMIT says, and
/// the state.
///
/// # Errors
/// No COMMIT, a missing shard, or a shard of another length or BLAKE3 than COMMIT says.
pub async fn read_checkpoint(folder: &Location) -> Result<(CheckpointRecord, NamedState)> {
    let (record, shards) = read_verified(folder).await?;
    Ok((record, NamedState::decode(&folder.to_string(), &shards)?))
}
