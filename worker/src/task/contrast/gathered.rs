//! The features, ids and masks of slots as the bytes that members give each other, and the global batch made
//! of them.

use blip2_model::objectives::contrast::GlobalBatch;
use blip2_tensors::device::read_back;
use burn::tensor::Tensor;
use bytes::Bytes;

use super::{ContrastTask, OpenSlot};
use crate::error::{Result, WorkerError};
use crate::sum::context::{Step, first_row};
use crate::sum::feature_rows::rows_of;
use crate::sum::times::Stopwatch;
use crate::wire_values::{floats, integers};

/// A row of the global batch, and its raw features.
type RawRow = (u64, Bytes);

impl ContrastTask {
    /// Gives the others the own slots' features, ids and masks, and gets those of all slots. The rows' raw
    /// features are left for members whose rows have them as negatives.
    pub(super) fn exchange_features(
        &self,
        step: &Step<'_>,
        slots: &[OpenSlot<'_>],
        watch: &mut Stopwatch,
    ) -> Result<GlobalBatch> {
        let peers = step.peers;
        let (own, rows) = watch.time(|times| &mut times.to_host, || own_rows(slots, peers.are_there()))?;
        if peers.are_there() {
            peers.exchange.publish_rows(peers.step, rows)?;
        }
        watch.time(
            |times| &mut times.exchange,
            || {
                let buffers = peers.all_gather("features", own.into())?;
                decode(self.no_rows(), &buffers, step.batch_rows)
            },
        )
    }
}

/// Features, ids and masks of the own slots, as [`decode`] takes them; and, if they are `published`, the raw
/// features of each row. The device is waited for once.
fn own_rows(slots: &[OpenSlot<'_>], published: bool) -> Result<(Vec<u8>, Vec<RawRow>)> {
    let images = slots.iter().map(|slot| slot.forward.image_feats.clone().inner().flatten(0, 2));
    let texts = slots.iter().map(|slot| slot.forward.text_feat.clone().inner().flatten(0, 1));
    let raw = slots.iter().filter(|_| published).map(|slot| slot.features.clone().flatten(0, 2));
    let mut read = read_back::all_bytes(images.chain(texts).chain(raw).collect::<Vec<Tensor<1>>>())?;
    let raw = read.split_off(2 * slots.len());
    let ids = slots.iter().map(|slot| bytemuck::cast_slice(&slot.batch.ids));
    let mask = slots.iter().map(|slot| bytemuck::cast_slice(&slot.batch.mask));
    let features = read.iter().map(Vec::as_slice);
    let own = features.chain(ids).chain(mask).collect::<Vec<&[u8]>>().concat();
    let mut rows = Vec::new();
    for (slot, features) in slots.iter().zip(raw) {
        let first = first_row(slot.batch) as u64;
        rows.extend((first..).zip(rows_of(features, slot.batch.samples.len())));
    }
    Ok((own, rows))
}

/// The batch of `rows` rows that the members' buffers hold, in slot order; `empty` has the sizes of a row.
///
/// # Errors
/// A buffer that is not whole rows, or another number of rows.
fn decode(empty: GlobalBatch, buffers: &[Bytes], rows: usize) -> Result<GlobalBatch> {
    let mut global = empty;
    let image_values = global.queries * global.embed_dim;
    let row_bytes = 4 * (image_values + global.embed_dim + 2 * global.text_length);
    for buffer in buffers {
        if buffer.len() % row_bytes != 0 {
            let reason = format!("a member's features have {} bytes, rows have {row_bytes}", buffer.len());
            return Err(WorkerError::Protocol(reason));
        }
        let rows = buffer.len() / row_bytes;
        let (images, rest) = buffer.split_at(4 * rows * image_values);
        let (texts, rest) = rest.split_at(4 * rows * global.embed_dim);
        let (ids, mask) = rest.split_at(4 * rows * global.text_length);
        global.image_feats.extend(floats(images)?);
        global.text_feats.extend(floats(texts)?);
        global.ids.extend(integers(ids)?);
        global.mask.extend(integers(mask)?);
    }
    if global.rows() != rows {
        return Err(WorkerError::Protocol(format!("gathered {} rows of {rows}", global.rows())));
    }
    Ok(global)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> GlobalBatch {
        GlobalBatch { queries: 2, embed_dim: 3, text_length: 4, ..GlobalBatch::default() }
    }

    /// A buffer of so many rows, whose values count from `first`.
    fn buffer(rows: usize, first: f32) -> Bytes {
        let floats: Vec<f32> = (0..rows * 9).map(|at| first + at as f32).collect();
        let integers: Vec<i32> = (0..rows as i32 * 8).collect();
        [bytemuck::cast_slice::<_, u8>(&floats), bytemuck::cast_slice(&integers)].concat().into()
    }

    #[test]
    fn buffers_become_one_batch_in_their_order() {
        let global = decode(empty(), &[buffer(1, 0.0), buffer(2, 100.0)], 3).unwrap();
        assert_eq!(global.image_feats[..8], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 100.0, 101.0]);
        assert_eq!(global.text_feats, [6.0, 7.0, 8.0, 112.0, 113.0, 114.0, 115.0, 116.0, 117.0]);
        assert_eq!((global.ids.len(), global.mask.len()), (12, 12));
        assert_eq!(global.mask[..4], [4, 5, 6, 7]);
    }

    #[test]
    fn buffers_of_another_size_are_refused() {
        let cut = buffer(2, 0.0).slice(..100);
        assert!(decode(empty(), &[cut], 2).unwrap_err().to_string().contains("rows have 68"));
        assert!(decode(empty(), &[buffer(2, 0.0)], 3).unwrap_err().to_string().contains("2 rows of 3"));
    }
}
