//! The features, texts and image ids of slots as the bytes that members give each other, and the global batch
//! made of them.

use blip2_collective::Received;
use blip2_dataset::loader::SlotBatch;
use blip2_model::objectives::contrast::GlobalBatch;
use blip2_tensors::device::read_back;
use burn::tensor::Tensor;
use bytemuck::{cast_slice, cast_slice_mut};
use bytes::Bytes;

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
    /// Has the own slots encoded by `encode`, and gives all members the features, texts and image ids of each
    /// while the next one is encoded, where parts of a step run beside each other; gets those of all slots.
    /// What `encode` makes besides comes back.
    pub(in crate::task) fn encode_and_gather<'a, T>(
        &self,
        step: &Step<'a>,
        watch: &mut Stopwatch,
        mut encode: impl FnMut(&'a SlotBatch, &mut Stopwatch) -> Result<(OpenSlot<'a>, T)>,
    ) -> Result<(Vec<(OpenSlot<'a>, T)>, Gathered)> {
        let (peers, slots) = (step.peers, &step.batch.slots);
        let (before, rounds) = (peers.sent(), peers.world.most_slots());
        let beside = step.frozen.overlaps() && peers.world.members.len() > 1 && rounds > 1;
        let (encoded, buffers) = if beside {
            peers.gather_beside("features", rounds, watch, |giver, watch| {
                let mut encode_and_give = |slot| {
                    let (open, other) = encode(slot, watch)?;
                    giver.give(packed(&[&open], watch)?)?;
                    Ok((open, other))
                };
                slots.iter().map(&mut encode_and_give).collect::<Result<Vec<_>>>()
            })?
        } else {
            let encoded = slots.iter().map(|slot| encode(slot, watch)).collect::<Result<Vec<_>>>()?;
            let own = packed(&encoded.iter().map(|(open, _)| open).collect::<Vec<_>>(), watch)?;
            let gather = || peers.all_gather("features", own);
            (encoded, vec![watch.time(|times| &mut times.exchange, gather)?])
        };
        watch.bytes.sent_features += peers.sent() - before;
        // By member and then by round: in the order of the slots.
        let buffers: Vec<Received> = buffers.into_iter().flatten().collect();
        watch.bytes.within_host += buffers.iter().map(|buffer| buffer.len() as u64).sum::<u64>();
        let by_ids = encoded.iter().any(|(open, _)| !open.image_ids.is_empty());
        let decode = || decode(self.no_rows(), by_ids, &buffers, step.batch_rows);
        Ok((encoded, watch.time(|times| &mut times.exchange, decode)?))
    }
}

/// Features, texts and image ids of some slots, as [`decode`] takes them; the device is waited for once.
fn packed(slots: &[&OpenSlot<'_>], watch: &mut Stopwatch) -> Result<Bytes> {
    let images = slots.iter().map(|slot| slot.forward.image_feats.clone().inner().flatten(0, 2));
    let texts = slots.iter().map(|slot| slot.forward.text_feat.clone().inner().flatten(0, 1));
    let tensors = images.chain(texts).collect::<Vec<Tensor<1>>>();
    let features = watch.time(|times| &mut times.to_host, || read_back::all_bytes(tensors))?;
    let ids = slots.iter().map(|slot| cast_slice(&slot.batch.ids));
    let mask = slots.iter().map(|slot| cast_slice(&slot.batch.mask));
    let image_ids = slots.iter().map(|slot| cast_slice(&slot.image_ids));
    let pieces = features.iter().map(|bytes| &bytes[..]).chain(ids).chain(mask).chain(image_ids);
    let packed = pieces.collect::<Vec<&[u8]>>().concat();
    watch.bytes.to_host += features.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
    watch.bytes.within_host += packed.len() as u64;
    Ok(packed.into())
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
