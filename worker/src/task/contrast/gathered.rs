//! The features, texts and image ids of slots as the bytes that members give each other, and the global batch
//! made of them.

use blip2_collective::Received;
use blip2_model::objectives::contrast::GlobalBatch;
use blip2_tensors::device::read_back;
use burn::tensor::Tensor;
use bytemuck::{cast_slice, cast_slice_mut};

use super::model::{ContrastTask, OpenSlot};
use crate::error::{Result, WorkerError};
use crate::sum::context::Step;
use crate::sum::times::Stopwatch;

/// What members give each other of all rows.
#[derive(Debug, PartialEq)]
pub(in crate::task) struct Gathered {
    pub(in crate::task) global: GlobalBatch,
    /// Of each row's image, where the task tells images apart by them.
    pub(in crate::task) image_ids: Vec<u64>,
}

impl ContrastTask {
    /// Gives the others the own slots' features, texts and image ids, and gets those of all slots.
    pub(in crate::task) fn exchange_features(
        &self,
        step: &Step<'_>,
        slots: &[OpenSlot<'_>],
        watch: &mut Stopwatch,
    ) -> Result<Gathered> {
        let peers = step.peers;
        let by_ids = slots.iter().any(|slot| !slot.image_ids.is_empty());
        let (own, read) = watch.time(|times| &mut times.to_host, || own_rows(slots))?;
        watch.bytes.to_host += read;
        watch.bytes.within_host += own.len() as u64;
        let before = peers.sent();
        let (all, gathered) = watch.time(
            |times| &mut times.exchange,
            || {
                let buffers = peers.all_gather("features", own.into())?;
                let gathered: usize = buffers.iter().map(Received::len).sum();
                Ok::<_, WorkerError>((decode(self.no_rows(), by_ids, &buffers, step.batch_rows)?, gathered))
            },
        )?;
        watch.bytes.within_host += gathered as u64;
        watch.bytes.sent_features += peers.sent() - before;
        Ok(all)
    }
}

/// Features, texts and image ids of the own slots, as [`decode`] takes them, and how many bytes of it the
/// device had; it is waited for once.
fn own_rows(slots: &[OpenSlot<'_>]) -> Result<(Vec<u8>, u64)> {
    let images = slots.iter().map(|slot| slot.forward.image_feats.clone().inner().flatten(0, 2));
    let texts = slots.iter().map(|slot| slot.forward.text_feat.clone().inner().flatten(0, 1));
    let features = read_back::all_bytes(images.chain(texts).collect::<Vec<Tensor<1>>>())?;
    let ids = slots.iter().map(|slot| cast_slice(&slot.batch.ids));
    let mask = slots.iter().map(|slot| cast_slice(&slot.batch.mask));
    let image_ids = slots.iter().map(|slot| cast_slice(&slot.image_ids));
    let pieces = features.iter().map(|bytes| &bytes[..]).chain(ids).chain(mask).chain(image_ids);
    let read = features.iter().map(|bytes| bytes.len() as u64).sum();
    Ok((pieces.collect::<Vec<&[u8]>>().concat(), read))
}

/// The batch of `rows` rows that the members' buffers hold, in slot order; `empty` has the sizes of a row,
/// and `by_ids` says whether each has an image id. Each value is copied once, from the piece it came in to
/// its place.
///
/// # Errors
/// A buffer that is not whole rows, or another number of rows.
fn decode(empty: GlobalBatch, by_ids: bool, buffers: &[Received], rows: usize) -> Result<Gathered> {
    let widths = [empty.queries * empty.embed_dim, empty.embed_dim, empty.text_length, empty.text_length];
    let id_width = usize::from(by_ids);
    let row_bytes = 4 * widths.iter().sum::<usize>().max(1) + size_of::<u64>() * id_width;
    if let Some(odd) = buffers.iter().find(|buffer| !buffer.len().is_multiple_of(row_bytes)) {
        let reason = format!("a member's features have {} bytes, rows have {row_bytes}", odd.len());
        return Err(WorkerError::Protocol(reason));
    }
    let gathered = buffers.iter().map(|buffer| buffer.len() / row_bytes).sum::<usize>();
    if gathered != rows {
        return Err(WorkerError::Protocol(format!("gathered {gathered} rows of {rows}")));
    }
    let [images, texts, ids, mask] = widths;
    let mut global = GlobalBatch {
        image_feats: vec![0.0; rows * images],
        text_feats: vec![0.0; rows * texts],
        ids: vec![0; rows * ids],
        mask: vec![0; rows * mask],
        ..empty
    };
    let mut image_ids = vec![0u64; rows * id_width];
    let mut first = 0;
    for buffer in buffers {
        let last = first + buffer.len() / row_bytes;
        let mut reader = buffer.reader();
        reader.read(cast_slice_mut(&mut global.image_feats[first * images..last * images]))?;
        reader.read(cast_slice_mut(&mut global.text_feats[first * texts..last * texts]))?;
        reader.read(cast_slice_mut(&mut global.ids[first * ids..last * ids]))?;
        reader.read(cast_slice_mut(&mut global.mask[first * mask..last * mask]))?;
        reader.read(cast_slice_mut(&mut image_ids[first * id_width..last * id_width]))?;
        first = last;
    }
    Ok(Gathered { global, image_ids })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn empty() -> GlobalBatch {
        GlobalBatch { queries: 2, embed_dim: 3, text_length: 4, ..GlobalBatch::default() }
    }

    /// A buffer of so many rows, whose values count from `first`.
    fn buffer(rows: usize, first: f32) -> Bytes {
        let floats: Vec<f32> = (0..rows * 9).map(|at| first + at as f32).collect();
        let integers: Vec<i32> = (0..rows as i32 * 8).collect();
        [cast_slice::<_, u8>(&floats), cast_slice(&integers)].concat().into()
    }

    #[test]
    fn buffers_become_one_batch_in_their_order() {
        let all = decode(empty(), false, &[buffer(1, 0.0).into(), buffer(2, 100.0).into()], 3).unwrap();
        let Gathered { global, image_ids } = all;
        assert_eq!(global.image_feats[..8], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 100.0, 101.0]);
        assert_eq!(global.text_feats, [6.0, 7.0, 8.0, 112.0, 113.0, 114.0, 115.0, 116.0, 117.0]);
        assert_eq!((global.ids.len(), global.mask.len()), (12, 12));
        assert_eq!(global.mask[..4], [4, 5, 6, 7]);
        assert!(image_ids.is_empty());
    }

    #[test]
    fn image_ids_come_with_their_rows_and_change_nothing_else() {
        let with_ids = |rows: usize, first: f32, ids: &[u64]| -> Received {
            Bytes::from([&buffer(rows, first)[..], cast_slice(ids)].concat()).into()
        };
        let buffers = [with_ids(1, 0.0, &[7]), with_ids(2, 100.0, &[u64::MAX, 7])];
        let all = decode(empty(), true, &buffers, 3).unwrap();
        assert_eq!(all.image_ids, [7, u64::MAX, 7]);
        let without = [buffer(1, 0.0).into(), buffer(2, 100.0).into()];
        assert_eq!(all.global, decode(empty(), false, &without, 3).unwrap().global);
        assert!(decode(empty(), false, &buffers, 3).is_err());
    }

    #[test]
    fn buffers_of_another_size_are_refused() {
        let cut = buffer(2, 0.0).slice(..100);
        assert!(decode(empty(), false, &[cut.into()], 2).unwrap_err().to_string().contains("rows have 68"));
        assert!(
            decode(empty(), false, &[buffer(2, 0.0).into()], 3)
                .unwrap_err()
                .to_string()
                .contains("2 rows of 3")
        );
    }
}
