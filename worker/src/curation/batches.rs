//! Texts of any lengths in batches of few lengths.

use burn::tensor::{Device, Int, Tensor};

use super::times::PhaseTimes;

/// Texts that a model reads at once.
pub(super) struct TokenBatch {
    /// Where each of them stands among all.
    pub(super) places: Vec<usize>,
    /// `[b, T]`
    pub(super) ids: Tensor<2, Int>,
    /// 1: a token, 0: padding; `[b, T]`.
    pub(super) mask: Tensor<2, Int>,
}

/// Batches of at most `size` texts that are of about the same length: texts are ordered by it.
pub(super) fn by_length(
    texts: &[Vec<u32>],
    size: usize,
    pad: u32,
    device: &Device,
    times: &mut PhaseTimes,
) -> Vec<TokenBatch> {
    let mut places: Vec<usize> = (0..texts.len()).collect();
    places.sort_by_key(|place| texts[*place].len());
    let batch = |places: &[usize]| {
        let length = places.iter().map(|place| texts[*place].len()).max().unwrap_or(0);
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for text in places.iter().map(|place| &texts[*place]) {
            let padding = length - text.len();
            ids.extend(text.iter().map(|id| *id as i32));
            ids.extend(std::iter::repeat_n(pad as i32, padding));
            mask.extend(std::iter::repeat_n(1, text.len()));
            mask.extend(std::iter::repeat_n(0, padding));
            times.padding += padding as u64;
        }
        times.positions += ids.len() as u64;
        let tensor = |values: Vec<i32>| {
            Tensor::<1, Int>::from_ints(values.as_slice(), device).reshape([places.len(), length])
        };
        TokenBatch { places: places.to_vec(), ids: tensor(ids), mask: tensor(mask) }
    };
    places.chunks(size.max(1)).map(batch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_length_are_together() {
        let texts = [vec![1; 9], vec![2; 3], vec![3; 8], vec![4; 2], vec![5; 3]];
        let mut times = PhaseTimes::default();
        let batches = by_length(&texts, 2, 0, &Device::flex(), &mut times);
        let shapes: Vec<_> = batches.iter().map(|batch| (batch.places.clone(), batch.ids.dims())).collect();
        assert_eq!(shapes, [(vec![3, 1], [2, 3]), (vec![4, 2], [2, 8]), (vec![0], [1, 9])]);
        assert_eq!((times.padding, times.positions), (1 + 5, 6 + 16 + 9));
        let ids: Vec<i64> = batches[0].ids.clone().into_data().iter::<i64>().collect();
        let mask: Vec<i64> = batches[0].mask.clone().into_data().iter::<i64>().collect();
        assert_eq!((ids, mask), (vec![4, 4, 0, 2, 2, 2], vec![1, 1, 0, 1, 1, 1]));
    }
}
