//! The flat layout cut into buckets in the order in which a segmented backward pass completes them.

use std::ops::Range;

use burn::module::Param;
use burn::tensor::{Gradients, Tensor, TensorData, Transaction};
use rayon::prelude::*;

use crate::device::read_back::of_this_thread;
use crate::error::TensorError;
use crate::nn::tensors::{NamedTensors, TensorVisitor};
use crate::train::encoder_part::EncoderPart;
use crate::train::flat::FlatLayout;
use crate::train::tape::Segment;

/// Smallest bucket in elements, where there are so many: smaller ones would cost more messages than they
/// hide.
pub const BUCKET_ELEMENTS: usize = 1 << 20;

/// One bucket of the layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GradientBucket {
    /// The lowest segment its tensors are in: after it the bucket is complete.
    pub segment: Segment,
    /// Ranges of the flat buffer, which laid end to end are the bucket.
    pub ranges: Vec<Range<usize>>,
}

/// Elements that one task copies or adds.
const CHUNK: usize = 1 << 18;

/// The buckets of a layout, in order of completion; a function of the layout alone.
#[derive(Debug, Clone)]
pub struct GradientBuckets {
    layout: FlatLayout,
    buckets: Vec<GradientBucket>,
    /// For each tensor of the layout, its bucket.
    bucket_of: Vec<usize>,
    /// For each bucket, its tensors in the order of their elements.
    members: Vec<Vec<usize>>,
}

/// The segment whose backward pass completes a tensor's gradient: the lowest that uses it.
fn segment_of(name: &str) -> Segment {
    const INPUTS: [&str; 3] = ["Qformer.bert.embeddings.", "ln_vision.", "query_tokens"];
    if let Some(part) = EncoderPart::of(name) {
        return part.segment();
    }
    let layer = name.strip_prefix("Qformer.bert.encoder.layer.").and_then(|rest| rest.split('.').next());
    match layer.and_then(|layer| layer.parse().ok()) {
        Some(layer) => Segment::Layer(layer),
        None if INPUTS.iter().any(|bucket| name.starts_with(bucket)) => Segment::Inputs,
        None => Segment::Heads,
    }
}

impl GradientBucket {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.ranges.iter().map(Range::len).sum()
    }

    /// Whether the bucket has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the bucket's elements into their places in a flat buffer.
    ///
    /// # Panics
    /// `values` is not as long as the bucket.
    pub fn copy_into(&self, values: &[f32], flat: &mut [f32]) {
        assert_eq!(values.len(), self.len(), "elements of a bucket");
        let mut rest = values;
        for range in &self.ranges {
            let (values, after) = rest.split_at(range.len());
            let chunks = flat[range.clone()].par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
            chunks.for_each(|(into, values)| into.copy_from_slice(values));
            rest = after;
        }
    }
}

impl GradientBuckets {
    /// Buckets of whole segments with at least `smallest` elements each, as far as there are so many.
    pub fn of(layout: &FlatLayout, smallest: usize) -> Self {
        let segments: Vec<Segment> = layout.tensors().iter().map(|tensor| segment_of(&tensor.name)).collect();
        let mut descending = segments.clone();
        descending.sort_unstable_by(|a, b| b.cmp(a));
        descending.dedup();
        let mut buckets: Vec<GradientBucket> = Vec::new();
        let mut bucket_of = vec![0; segments.len()];
        let mut members: Vec<Vec<usize>> = Vec::new();
        for segment in descending {
            if buckets.last().is_none_or(|bucket| bucket.len() >= smallest) {
                buckets.push(GradientBucket { segment, ranges: Vec::new() });
                members.push(Vec::new());
            }
            let number = buckets.len() - 1;
            let bucket = &mut buckets[number];
            bucket.segment = segment;
            let tensors = layout.tensors().iter().zip(&segments).enumerate();
            for (index, (tensor, _)) in tensors.filter(|(_, (_, of))| **of == segment) {
                bucket_of[index] = number;
                members[number].push(index);
                match bucket.ranges.last_mut() {
                    Some(last) if last.end == tensor.offset => last.end = tensor.range().end,
                    _ => bucket.ranges.push(tensor.range()),
                }
            }
        }
        Self { layout: layout.clone(), buckets, bucket_of, members }
    }

    /// The layout that is cut.
    pub fn layout(&self) -> &FlatLayout {
        &self.layout
    }

    /// The tensors of a bucket, by their place in the layout, in the order of their elements.
    pub fn tensors_of(&self, bucket: usize) -> &[usize] {
        &self.members[bucket]
    }

    /// The buckets in order of completion.
    pub fn buckets(&self) -> &[GradientBucket] {
        &self.buckets
    }

    /// Number of elements of all buckets.
    pub fn len(&self) -> usize {
        self.layout.len()
    }

    /// Whether there is nothing to train.
    pub fn is_empty(&self) -> bool {
        self.layout.is_empty()
    }

    /// A buffer for the gradients of one backward pass.
    pub fn buffers(&self) -> BucketBuffers<'_> {
        BucketBuffers { buckets: self, gradients: vec![None; self.bucket_of.len()], next: 0 }
    }
}

/// The gradients of one backward pass, bucket by bucket.
#[derive(Debug)]
pub struct BucketBuffers<'a> {
    buckets: &'a GradientBuckets,
    /// The tensors' gradients as the backward pass left them, until their bucket is complete.
    gradients: Vec<Option<TensorData>>,
    /// The first bucket that is not complete.
    next: usize,
}

impl BucketBuffers<'_> {
    /// [`BucketBuffers::read`] of the gradients that `segment` gave the tensors of `model`.
    ///
    /// # Errors
    /// As there.
    pub fn take(
        &mut self,
        model: &mut impl NamedTensors,
        gradients: &mut Gradients,
        segment: Segment,
    ) -> Result<Vec<(usize, Vec<f32>)>, TensorError> {
        self.read(SegmentGradients::take(model, gradients, segment)?)
    }

    /// Reads a segment's gradients from the device and adds them; returns the buckets that this completes,
    /// with their numbers. A tensor without a gradient has zeros.
    ///
    /// # Errors
    /// A tensor got a gradient after its bucket was complete; a device that fails.
    pub fn read(&mut self, gradients: SegmentGradients) -> Result<Vec<(usize, Vec<f32>)>, TensorError> {
        let segment = gradients.segment;
        for (name, gradient) in gradients.read()? {
            self.add(&name, segment, gradient)?;
        }
        let mut complete = Vec::new();
        while let Some(bucket) =
            self.buckets.buckets.get(self.next).filter(|bucket| bucket.segment >= segment)
        {
            complete.push((self.next, self.lay_out(self.next, bucket.len())?));
            self.next += 1;
        }
        Ok(complete)
    }

    /// The elements of a bucket of `length`, which leave this buffer.
    fn lay_out(&mut self, bucket: usize, length: usize) -> Result<Vec<f32>, TensorError> {
        let mut values = Vec::with_capacity(length);
        for index in &self.buckets.members[bucket] {
            match self.gradients[*index].take() {
                Some(gradient) => {
                    values.par_extend(slice(&gradient)?.par_iter().with_min_len(CHUNK).copied());
                }
                None => values.resize(values.len() + self.buckets.layout.tensors()[*index].len(), 0.0),
            }
        }
        Ok(values)
    }

    fn add(&mut self, name: &str, segment: Segment, gradient: TensorData) -> Result<(), TensorError> {
        let index = self.buckets.layout.index_of(name)?;
        if self.buckets.bucket_of[index] < self.next {
            let reason = format!("{segment:?} gave it a gradient after its bucket was complete");
            return Err(TensorError::input(name, reason));
        }
        let (got, want) = (slice(&gradient)?.len(), self.buckets.layout.tensors()[index].len());
        if got != want {
            return Err(TensorError::input(name, format!("a gradient of {got} elements for {want}")));
        }
        match &mut self.gradients[index] {
            Some(sum) => add_values(sum, &gradient),
            none => {
                *none = Some(gradient);
                Ok(())
            }
        }
    }
}

/// What a segment gave a model's tensors, still on the device, to be read in one go: a device is waited for
/// once. Any thread may read them.
pub struct SegmentGradients {
    segment: Segment,
    tensors: Vec<(String, Reading)>,
}

/// Adds a tensor to what is read at once.
type Reading = Box<dyn FnOnce(Transaction) -> Transaction + Send>;

impl SegmentGradients {
    /// Takes the gradients of the tensors of `model` out of `gradients`; the device is not waited for.
    ///
    /// # Errors
    /// None but those of the model's own visit.
    pub fn take(
        model: &mut impl NamedTensors,
        gradients: &mut Gradients,
        segment: Segment,
    ) -> Result<Self, TensorError> {
        struct Take<'a>(&'a mut Gradients, SegmentGradients);
        impl TensorVisitor for Take<'_> {
            type Error = TensorError;

            fn visit<const D: usize>(
                &mut self,
                name: &str,
                tensor: &mut Param<Tensor<D>>,
            ) -> Result<(), TensorError> {
                if let Some(gradient) = tensor.val().grad_remove(self.0) {
                    let reading = move |all: Transaction| all.register(of_this_thread(gradient));
                    self.1.tensors.push((name.to_string(), Box::new(reading)));
                }
                Ok(())
            }
        }
        let mut take = Take(gradients, Self { segment, tensors: Vec::new() });
        model.visit_tensors("", &mut take)?;
        Ok(take.1)
    }

    fn read(self) -> Result<Vec<(String, TensorData)>, TensorError> {
        if self.tensors.is_empty() {
            return Ok(Vec::new());
        }
        let (names, readings): (Vec<String>, Vec<Reading>) = self.tensors.into_iter().unzip();
        let all = readings.into_iter().fold(Transaction::default(), |all, reading| reading(all));
        let values = all.try_execute().map_err(|e| TensorError::Device(e.to_string()))?;
        Ok(names.into_iter().zip(values).collect())
    }
}

fn slice(gradient: &TensorData) -> Result<&[f32], TensorError> {
    gradient.as_slice::<f32>().map_err(|e| TensorError::Device(format!("{e:?}")))
}

fn add_values(sum: &mut TensorData, gradient: &TensorData) -> Result<(), TensorError> {
    let sum = sum.as_mut_slice::<f32>().map_err(|e| TensorError::Device(format!("{e:?}")))?;
    let chunks = sum.par_chunks_mut(CHUNK).zip(slice(gradient)?.par_chunks(CHUNK));
    chunks.for_each(|(sum, gradient)| sum.iter_mut().zip(gradient).for_each(|(sum, value)| *sum += value));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> FlatLayout {
        let shapes = [
            ("Qformer.bert.embeddings.word_embeddings.weight", 5),
            ("Qformer.bert.encoder.layer.0.a", 3),
            ("Qformer.bert.encoder.layer.1.a", 2),
            ("Qformer.bert.encoder.layer.1.b", 2),
            ("Qformer.bert.encoder.layer.10.a", 4),
            ("Qformer.cls.predictions.bias", 1),
            ("ln_vision.bias", 1),
            ("query_tokens", 2),
            ("temp", 1),
        ];
        FlatLayout::new(shapes.map(|(name, len)| (name.to_string(), vec![len])).to_vec())
    }

    #[test]
    fn buckets_go_from_the_heads_down_and_cover_the_layout_once() {
        let buckets = GradientBuckets::of(&layout(), 1);
        let segments: Vec<Segment> = buckets.buckets().iter().map(|bucket| bucket.segment).collect();
        let layer = Segment::Layer;
        assert_eq!(segments, [Segment::Heads, layer(10), layer(1), layer(0), Segment::Inputs]);
        assert_eq!(buckets.buckets()[0].ranges, [16..17, 20..21]);
        assert_eq!(buckets.buckets()[2].ranges.as_slice(), std::slice::from_ref(&(8..12)));
        assert_eq!(buckets.buckets()[4].ranges, [0..5, 17..20]);
        let mut flat = vec![0.0; buckets.len()];
        for bucket in buckets.buckets() {
            let values: Vec<f32> = bucket.ranges.iter().cloned().flatten().map(|i| i as f32 + 1.0).collect();
            bucket.copy_into(&values, &mut flat);
        }
        assert_eq!(flat, (1..=21).map(|i| i as f32).collect::<Vec<_>>());
    }

    #[test]
    fn an_image_encoder_is_below_all_that_reads_it() {
        let names = [
            "Qformer.bert.encoder.layer.0.a",
            "itm_head.bias",
            "ln_vision.bias",
            "visual_encoder.blocks.0.mlp.fc1.bias",
            "visual_encoder.blocks.10.mlp.fc1.bias",
            "visual_encoder.blocks.2.mlp.fc1.bias",
            "visual_encoder.pos_embed",
        ];
        let layout = FlatLayout::new(names.map(|name| (name.to_string(), vec![2])).to_vec());
        let buckets = GradientBuckets::of(&layout, 1);
        let segments: Vec<Segment> = buckets.buckets().iter().map(|bucket| bucket.segment).collect();
        let [block, layer] = [Segment::Block, Segment::Layer];
        let encoder = [block(10), block(2), block(0), Segment::Patches];
        assert_eq!(segments, [&[Segment::Heads, layer(0), Segment::Inputs][..], &encoder].concat());
    }

    #[test]
    fn small_segments_share_a_bucket_that_ends_with_the_last_of_them() {
        let buckets = GradientBuckets::of(&layout(), 6);
        let ends: Vec<(Segment, usize)> =
            buckets.buckets().iter().map(|bucket| (bucket.segment, bucket.len())).collect();
        assert_eq!(ends, [(Segment::Layer(10), 6), (Segment::Layer(0), 7), (Segment::Inputs, 8)]);
        assert_eq!(GradientBuckets::of(&layout(), usize::MAX).buckets().len(), 1);
    }
}
