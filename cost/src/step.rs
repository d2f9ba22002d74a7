//! Seconds of a step.

use serde::Serialize;

use crate::card::{Card, Numbers};
use crate::cluster::{Assumptions, Cluster};
use crate::units::{Bytes, Operations, Seconds};
use crate::workload::{Bucket, Model, Part, Pass, Workload};

/// Bytes that norm and AdamW read and write on the host for a number: gradient, parameter and two moments,
/// read twice and written to a second set (docs/devices.md: 6 GB for 188 M numbers).
const LANDING_BYTES: f64 = 32.0;

/// Bytes of a number on the device and on the host.
const F32: f64 = 4.0;

/// What bounds a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Products of these numbers.
    Products(Numbers),
    /// The bandwidth of the device's memory.
    Memory,
}

/// A part with its seconds on the busiest member.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TimedPart {
    /// What it is.
    pub name: String,
    /// Whose.
    pub model: Model,
    /// Which way.
    pub pass: Pass,
    /// Operations of the global batch.
    pub operations: Operations,
    /// Seconds.
    pub seconds: Seconds,
    /// What they are for.
    pub bound: Bound,
}

/// Seconds of `pairs` in `micro_batches` by the roofline: the larger of products at the reached share of the
/// peak and bytes at the reached share of the bandwidth (Williams, Waterman, Patterson: Roofline, CACM 52(4),
/// 2009).
pub fn roofline(
    part: &Part,
    (pairs, micro_batches): (f64, f64),
    card: &Card,
    assumed: &Assumptions,
) -> (Seconds, Bound) {
    let products = part.operations * pairs / (card.peak(part.numbers) * assumed.mfu);
    let bytes = part.weights * micro_batches + part.activations * pairs;
    let memory = bytes / (card.bandwidth * assumed.bandwidth_share);
    match products >= memory {
        true => (products, Bound::Products(part.numbers)),
        false => (memory, Bound::Memory),
    }
}

/// The gradient's way after it is computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct GradientWay {
    /// Bytes of the gradient, float32.
    pub bytes: Bytes,
    /// Seconds of its sum over the members, by itself.
    pub sum: Seconds,
    /// Seconds of the whole way: to the host, the sum, norm and AdamW, parameters to the device.
    pub whole: Seconds,
    /// Of these, what is left after the backward pass.
    pub exposed: Seconds,
    /// Of these, what the backward pass hides.
    pub hidden: Seconds,
    /// Whether it may hide some.
    pub overlaps: bool,
}

/// Seconds in which `elements` numbers are summed over the members: reduce-scatter and all-gather, each of
/// (M - 1) / M of the buffer, sending and receiving at once (Patarasuk, Yuan: Bandwidth optimal all-reduce,
/// JPDC 69(2), 2009). A member whose slots are several subtrees of the sum sends as many buffers in the first
/// half.
pub fn sum_over_members(elements: f64, wire_bytes: f64, cluster: &Cluster) -> Seconds {
    let others = (cluster.workers.max(1) - 1) as f64 / cluster.workers.max(1) as f64;
    let buffer = Bytes(elements * wire_bytes) * others;
    buffer * (cluster.partial_sums.max(1) as f64 + 1.0) / cluster.network
}

/// The gradient's way, with the backward passes of the last micro-batch by model.
///
/// Each bucket is read, summed and applied in turn, one bucket in each of the three at a time, from when its
/// segment is done: the pipeline of docs/step.md.
pub fn gradient_way(
    workload: &Workload,
    backward: impl Fn(Model) -> Seconds,
    cluster: &Cluster,
    assumed: &Assumptions,
) -> GradientWay {
    let bytes = Bytes(F32 * workload.trained() as f64);
    let host = assumed.host_bandwidth * (1.0 / cluster.per_host.max(1) as f64);
    let taken = |bucket: &Bucket| {
        let elements = bucket.elements as f64;
        let moved = Bytes(F32 * elements) / cluster.card.host_link;
        let sum = sum_over_members(elements, workload.wire_bytes, cluster);
        let applied = Bytes(LANDING_BYTES * elements) / host + moved;
        [moved, sum, applied]
    };
    let all: Vec<[Seconds; 3]> = workload.buckets.iter().map(taken).collect();
    let sum = all.iter().map(|[_, sum, _]| *sum).sum();
    let whole: Seconds = all.iter().flatten().copied().sum();
    if !workload.overlaps {
        return GradientWay { bytes, sum, whole, exposed: whole, hidden: Seconds(0.0), overlaps: false };
    }
    // The backward pass goes from the language model down.
    let begins = |model: Model| -> f64 {
        let above = [Model::LanguageModel, Model::QFormer, Model::ImageEncoder];
        above.into_iter().filter(|other| *other > model).map(|other| backward(other).0).sum()
    };
    let end = begins(Model::ImageEncoder) + backward(Model::ImageEncoder).0;
    let mut free = [0.0_f64; 3];
    for (bucket, taken) in workload.buckets.iter().zip(&all) {
        let mut there = begins(bucket.model) + bucket.after * backward(bucket.model).0;
        for (free, taken) in free.iter_mut().zip(taken) {
            there = there.max(*free) + taken.0;
            *free = there;
        }
    }
    let exposed = Seconds((free[2] - end).max(0.0));
    GradientWay {
        bytes,
        sum,
        whole,
        exposed,
        hidden: Seconds((whole.0 - exposed.0).max(0.0)),
        overlaps: true,
    }
}

/// Seconds of what members exchange before the losses, which nothing hides.
pub fn exchange(workload: &Workload, cluster: &Cluster) -> Seconds {
    let workers = cluster.workers.max(1) as f64;
    let others = (workers - 1.0) / workers;
    let pairs = workload.batch as f64;
    // All pairs come to every member; of its own pairs the counter-examples.
    let own = workload.micro_batch() * cluster.most_slots as f64;
    (workload.gathered * pairs + workload.rows * own) * others / cluster.network
}

/// Seconds in which the busiest member's batch is read and decoded, the longer of both.
pub fn input(workload: &Workload, cluster: &Cluster, assumed: &Assumptions) -> (Seconds, Seconds) {
    let own = workload.micro_batch() * cluster.most_slots as f64;
    let reading = assumed.pair * own / cluster.network;
    let decoding = Seconds(own / (assumed.decoded_per_thread * cluster.decode_threads.max(1) as f64));
    (reading, decoding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::BytesPerSecond;

    fn assumed() -> Assumptions {
        let host_bandwidth = BytesPerSecond(32.0);
        Assumptions { mfu: 0.5, bandwidth_share: 0.5, host_bandwidth, ..Assumptions::default() }
    }

    fn part(operations: f64, weights: f64) -> Part {
        Part {
            name: "queries".into(),
            model: Model::QFormer,
            pass: Pass::Backward,
            numbers: Numbers::Bf16,
            operations: Operations(operations),
            weights: Bytes(weights),
            activations: Bytes(1.0),
            again: false,
        }
    }

    #[test]
    fn a_part_takes_the_longer_of_products_and_bytes() {
        // 10 pairs of 100 operations at half of 100 a second; 2 × 5 + 10 × 1 bytes at half of 10 a second.
        let timed = roofline(&part(100.0, 5.0), (10.0, 2.0), &Cluster::example(1).card, &assumed());
        assert_eq!(timed, (Seconds(20.0), Bound::Products(Numbers::Bf16)));
        let timed = roofline(&part(1.0, 5.0), (10.0, 2.0), &Cluster::example(1).card, &assumed());
        assert_eq!(timed, (Seconds(4.0), Bound::Memory));
        let narrow = Part { numbers: Numbers::F32, ..part(100.0, 5.0) };
        assert_eq!(roofline(&narrow, (10.0, 2.0), &Cluster::example(1).card, &assumed()).0, Seconds(200.0));
    }

    #[test]
    fn a_sum_sends_every_number_twice_but_its_own_share() {
        // 4 members: 3/4 of 16 numbers of 4 bytes each way, at 8 bytes a second.
        assert_eq!(sum_over_members(16.0, 4.0, &Cluster::example(4)), Seconds(12.0));
        assert_eq!(sum_over_members(16.0, 2.0, &Cluster::example(4)), Seconds(6.0));
        assert_eq!(sum_over_members(16.0, 4.0, &Cluster::example(1)), Seconds(0.0));
        let two_trees = Cluster { partial_sums: 2, ..Cluster::example(4) };
        assert_eq!(sum_over_members(16.0, 4.0, &two_trees), Seconds(18.0));
    }

    #[test]
    fn what_is_ready_early_is_hidden_and_the_last_bucket_is_not() {
        // Each bucket of 4 numbers: 4 s to the host, 2 s of the sum (2 members), 4 s + 4 s to apply.
        let bucket = |after| Bucket { elements: 4, model: Model::QFormer, after };
        let backward = |model| Seconds(if model == Model::QFormer { 100.0 } else { 0.0 });
        let way = |load: &Workload| gradient_way(load, backward, &Cluster::example(2), &assumed());
        let early = way(&Workload::example(vec![bucket(0.0), bucket(0.5)]));
        assert_eq!((early.sum, early.whole, early.exposed), (Seconds(4.0), Seconds(28.0), Seconds(0.0)));
        let last = way(&Workload::example(vec![bucket(0.0), bucket(1.0)]));
        assert_eq!((last.exposed, last.hidden), (Seconds(14.0), Seconds(14.0)));
        // Both at the end: the second is read while the first is summed, and waits for it to be applied.
        let both = way(&Workload::example(vec![bucket(1.0), bucket(1.0)]));
        assert_eq!(both.exposed, Seconds(22.0));
        let apart = way(&Workload { overlaps: false, ..Workload::example(vec![bucket(0.0), bucket(0.5)]) });
        assert_eq!((apart.exposed, apart.hidden), (Seconds(28.0), Seconds(0.0)));
    }

    #[test]
    fn a_bucket_of_a_lower_model_waits_for_those_above() {
        let bucket = |model| Bucket { elements: 4, model, after: 1.0 };
        let backward = |model| Seconds(if model == Model::LanguageModel { 0.0 } else { 50.0 });
        let load = Workload::example(vec![bucket(Model::QFormer), bucket(Model::ImageEncoder)]);
        assert_eq!(gradient_way(&load, backward, &Cluster::example(2), &assumed()).exposed, Seconds(14.0));
    }

    #[test]
    fn members_exchange_what_others_have() {
        // 8 pairs of 2 bytes, and 3 bytes for each of 4 own pairs, half of it elsewhere.
        assert_eq!(exchange(&Workload::example(Vec::new()), &Cluster::example(2)), Seconds(14.0 / 8.0));
        assert_eq!(exchange(&Workload::example(Vec::new()), &Cluster::example(1)), Seconds(0.0));
    }

    #[test]
    fn a_batch_is_read_and_decoded() {
        let assumed = Assumptions { pair: Bytes(6.0), decoded_per_thread: 0.5, ..assumed() };
        let (reading, decoding) = input(&Workload::example(Vec::new()), &Cluster::example(2), &assumed);
        assert_eq!((reading, decoding), (Seconds(3.0), Seconds(4.0)));
    }
}
