//! Attention of a few queries without a tape, as in generation, where a token is a query: keys and values are
//! read where the cache has them, and once.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::softmax::{MaskRows, normalise};
use crate::fused::flex::{contiguous, tensor, values};
use crate::fused::kernels::TASK;
use crate::fused::kernels::few_rows::{Rows, Task};
use crate::fused::kernels::sixteen::{Lanewise, Sixteen, compute};

/// Queries of a head that are few.
pub(super) const FEW: usize = 4;

/// Rows of the last dimension of `[batch, heads, length, width]`, each in one piece.
#[derive(Debug, Clone, Copy)]
struct Strided<'a> {
    storage: &'a [f32],
    start: usize,
    /// From one batch entry, head and position to the next.
    strides: [usize; 3],
}

impl<'a> Strided<'a> {
    /// `None` where rows are not in one piece, or go backwards.
    fn of(x: &'a FlexTensor) -> Option<Self> {
        let layout = x.layout();
        let [batch, head, position, last] = layout.strides() else { return None };
        if *last != 1 && layout.shape()[3] != 1 {
            return None;
        }
        let strides = [batch, head, position].map(|stride| usize::try_from(*stride).ok());
        let [Some(batch), Some(head), Some(position)] = strides else { return None };
        Some(Self { storage: x.storage(), start: layout.start_offset(), strides: [batch, head, position] })
    }

    /// What one head of a batch entry has, from its first position on.
    #[inline(always)]
    fn of_head(&self, batch: usize, head: usize) -> &'a [f32] {
        &self.storage[self.start + batch * self.strides[0] + head * self.strides[1]..]
    }
}

/// All heads of all batch entries.
struct Heads<'a> {
    query: &'a [f32],
    key: Strided<'a>,
    value: Strided<'a>,
    mask: Option<(&'a [f32], MaskRows)>,
    scale: f32,
    heads: usize,
    /// Queries of a head.
    rows: usize,
    positions: usize,
    /// Of a query and a key, and of a value.
    widths: [usize; 2],
}

/// `softmax(scale · query·keyᵀ + mask) · value` of float32, where queries are few; `None` where they are not,
/// or keys and values are in no such order.
pub(super) fn attention(
    query: &FlexTensor,
    key: &FlexTensor,
    value: &FlexTensor,
    mask: Option<(&[f32], MaskRows)>,
    scale: f32,
) -> Option<FlexTensor> {
    let shape = query.shape().to_vec();
    let &[batch, heads, rows, width] = shape.as_slice() else { return None };
    if rows > FEW {
        return None;
    }
    let (positions, value_width) = (key.shape()[2], value.shape()[3]);
    let query = contiguous(query.clone());
    let heads = Heads {
        query: values(&query),
        key: Strided::of(key)?,
        value: Strided::of(value)?,
        mask,
        scale,
        heads,
        rows,
        positions,
        widths: [width, value_width],
    };
    let output = heads.attend(batch);
    Some(tensor(output, [&shape[..3], &[value_width]].concat()))
}

impl Heads<'_> {
    fn attend(&self, batch: usize) -> Vec<f32> {
        let [width, value_width] = self.widths;
        let of_head = self.rows * value_width;
        let mut output = vec![0.0; batch * self.heads * of_head];
        let of_task = (TASK / (self.positions * (width + value_width))).max(1);
        output.par_chunks_mut(of_task * of_head).enumerate().for_each(|(task, output)| {
            compute(SomeHeads { all: self, first: task * of_task, output });
        });
        output
    }
}

/// Some heads, from number `first` of all batch entries' on.
struct SomeHeads<'a> {
    all: &'a Heads<'a>,
    first: usize,
    output: &'a mut [f32],
}

impl Lanewise for SomeHeads<'_> {
    #[inline(always)]
    fn compute<V: Sixteen>(self, vectors: V) {
        let Heads { query, key, value, mask, scale, heads, rows, positions, widths } = *self.all;
        let [width, value_width] = widths;
        let mut scores = vec![0.0; rows * positions];
        for (index, output) in self.output.chunks_exact_mut(rows * value_width).enumerate() {
            let head = self.first + index;
            let x = Rows::new(&query[head * rows * width..][..rows * width], width);
            let numbers = key.of_head(head / heads, head % heads);
            let sums = scores.as_mut_slice();
            Task { x: &x, numbers, width, stride: key.strides[2], columns: positions, sums }.compute(vectors);
            for (row, scores) in scores.chunks_exact_mut(positions).enumerate() {
                weigh(scores, mask.map(|(mask, of)| &mask[of.of(head * rows + row) * positions..]), scale);
            }
            let numbers = value.of_head(head / heads, head % heads);
            for position in 0..positions {
                let value = &numbers[position * value.strides[2]..][..value_width];
                for (row, output) in output.chunks_exact_mut(value_width).enumerate() {
                    let weight = scores[row * positions + position];
                    output.iter_mut().zip(value).for_each(|(output, value)| *output += weight * value);
                }
            }
        }
    }
}

/// Makes scores probabilities.
#[inline(always)]
fn weigh(scores: &mut [f32], mask: Option<&[f32]>, scale: f32) {
    match mask {
        Some(mask) => scores.iter_mut().zip(mask).for_each(|(score, mask)| *score = scale * *score + mask),
        None => scores.iter_mut().for_each(|score| *score *= scale),
    }
    normalise(scores);
}
