//! What a stage is predicted to take, and what bounds it.

use serde::Serialize;

use crate::cluster::{Assumptions, Cluster};
use crate::memory::{Checkpoints, DeviceMemory, HostMemory, LargestMicroBatch, largest_micro_batch};
use crate::step::{Bound, GradientWay, TimedPart, exchange, gradient_way, input, roofline};
use crate::units::{Bytes, BytesPerSecond, Operations, OperationsPerSecond, Seconds};
use crate::workload::{Model, Pass, Workload};

/// What takes most of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bottleneck {
    /// A model, and what of the device it waits for.
    Model(Model, Bound),
    /// Features and counter-examples between members.
    Features,
    /// The gradient's way after the backward pass.
    Gradient,
    /// The store and the network to it.
    Reading,
    /// The host's threads that decode images.
    Decoding,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StagePrediction {
    /// Its name.
    pub name: String,
    /// Its task.
    pub task: String,
    /// Its steps.
    pub steps: u64,
    /// Pairs of a step.
    pub batch: u64,
    /// Micro-batches of a step.
    pub slots: u64,
    /// Pairs of all steps.
    pub samples: u64,
    /// Numbers that are trained.
    pub trained: u64,
    /// Operations of a pair, a step and the stage.
    pub operations_of_pair: Operations,
    /// Operations of all steps.
    pub operations: Operations,
    /// The computation of a step.
    pub parts: Vec<TimedPart>,
    /// Seconds of all parts.
    pub compute: Seconds,
    /// Seconds of what members exchange before the losses.
    pub features: Seconds,
    /// The gradient's way.
    pub gradient: GradientWay,
    /// Seconds in which a batch is read, and decoded, beside the step before.
    pub reading: Seconds,
    /// See `reading`.
    pub decoding: Seconds,
    /// Seconds of a step.
    pub step: Seconds,
    /// Share of the peak in bf16 that the step reaches, whatever it computes in.
    pub mfu: f64,
    /// What takes most of it.
    pub bottleneck: Bottleneck,
    /// Share of the step that it takes.
    pub bottleneck_share: f64,
    /// Seconds of the stage.
    pub time: Seconds,
    /// Hours of one card.
    pub gpu_hours: f64,
    /// Read from the store.
    pub read: Bytes,
    /// Of all workers, a second.
    pub read_rate: BytesPerSecond,
    /// What all members send each other in the stage.
    pub sent: Bytes,
    /// On a device.
    pub device: DeviceMemory,
    /// What would fit there.
    pub largest: LargestMicroBatch,
    /// On its host.
    pub host: HostMemory,
    /// In the store.
    pub checkpoints: Checkpoints,
}

/// Predicts a stage.
pub fn predict(workload: &Workload, cluster: &Cluster, assumed: &Assumptions) -> StagePrediction {
    let own = (workload.micro_batch() * cluster.most_slots as f64, cluster.most_slots as f64);
    let timed = |(pairs, micro_batches): (f64, f64)| -> Vec<TimedPart> {
        let parts = workload.parts.iter().map(|part| {
            let (seconds, bound) = roofline(part, (pairs, micro_batches), &cluster.card, assumed);
            let (name, operations) = (part.name.clone(), part.operations * workload.batch as f64);
            TimedPart { name, model: part.model, pass: part.pass, operations, seconds, bound }
        });
        parts.collect()
    };
    let parts = timed(own);
    let last_slot = timed((workload.micro_batch(), 1.0));
    let backward = |model: Model| -> Seconds {
        let of_model = |part: &&TimedPart| part.model == model && part.pass == Pass::Backward;
        last_slot.iter().filter(of_model).map(|part| part.seconds).sum()
    };
    let compute: Seconds = parts.iter().map(|part| part.seconds).sum();
    let features = exchange(workload, cluster);
    let gradient = gradient_way(workload, backward, cluster, assumed);
    let (reading, decoding) = input(workload, cluster, assumed);
    let device_step = compute + features + gradient.exposed;
    let step = device_step.max(reading).max(decoding);
    let (bottleneck, share) = bottleneck(
        &parts,
        &[
            (Bottleneck::Features, features),
            (Bottleneck::Gradient, gradient.exposed),
            // Input goes on beside the step: it bounds it alone or not at all.
            (Bottleneck::Reading, if reading > device_step { reading } else { Seconds(0.0) }),
            (Bottleneck::Decoding, if decoding > device_step { decoding } else { Seconds(0.0) }),
        ],
    );
    let operations_of_pair = workload.operations();
    let of_step = operations_of_pair * workload.batch as f64;
    let samples = workload.steps * workload.batch;
    let time = step * workload.steps as f64;
    let read = assumed.pair * samples as f64;
    let workers = cluster.workers as f64;
    // What each receives, all of them have sent.
    let sent_in = |seconds: Seconds| Bytes(seconds.0 * cluster.network.0 * workers);
    let sent = (sent_in(features) + sent_in(gradient.sum)) * workload.steps as f64;
    StagePrediction {
        name: workload.name.clone(),
        task: workload.task.clone(),
        steps: workload.steps,
        batch: workload.batch,
        slots: workload.slots,
        samples,
        trained: workload.trained(),
        operations_of_pair,
        operations: of_step * workload.steps as f64,
        mfu: implied_mfu(of_step, step, workers, cluster.card.bf16),
        parts,
        compute,
        features,
        gradient,
        reading,
        decoding,
        step,
        bottleneck,
        bottleneck_share: share.0 / step.0,
        time,
        gpu_hours: time.hours() * workers,
        read,
        read_rate: read / time,
        sent,
        device: DeviceMemory::of(workload, workload.micro_batch(), cluster, assumed),
        largest: largest_micro_batch(workload, cluster, assumed),
        host: HostMemory::of(workload, cluster, assumed),
        checkpoints: Checkpoints::of(workload),
    }
}

/// The share of the peak that so many operations in so much time are (model FLOPs utilisation: Chowdhery and
/// others, PaLM, arXiv 2204.02311, appendix B).
pub fn implied_mfu(operations: Operations, time: Seconds, cards: f64, peak: OperationsPerSecond) -> f64 {
    operations.0 / (time.0 * cards * peak.0)
}

/// The largest of the models' seconds and the others, with its seconds.
fn bottleneck(parts: &[TimedPart], others: &[(Bottleneck, Seconds)]) -> (Bottleneck, Seconds) {
    let models =
        [Model::ImageEncoder, Model::QFormer, Model::LanguageModel].into_iter().filter_map(|model| {
            let own = || parts.iter().filter(|part| part.model == model);
            let longest = own().max_by(|a, b| a.seconds.0.total_cmp(&b.seconds.0))?;
            Some((Bottleneck::Model(model, longest.bound), own().map(|part| part.seconds).sum::<Seconds>()))
        });
    let all = models.chain(others.iter().copied());
    let largest = all.max_by(|(_, a), (_, b)| a.0.total_cmp(&b.0));
    largest.unwrap_or((Bottleneck::Gradient, Seconds(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::Numbers;
    use crate::workload::{Bucket, Part};

    fn part(model: Model, pass: Pass, operations: f64) -> Part {
        Part {
            name: model.name().into(),
            model,
            pass,
            numbers: Numbers::Bf16,
            operations: Operations(operations),
            weights: Bytes(0.0),
            activations: Bytes(0.0),
            again: false,
        }
    }

    fn workload() -> Workload {
        let parts = vec![
            part(Model::ImageEncoder, Pass::Forward, 100.0),
            part(Model::QFormer, Pass::Forward, 50.0),
            part(Model::QFormer, Pass::Backward, 100.0),
        ];
        let buckets = vec![Bucket { elements: 4, model: Model::QFormer, after: 1.0 }];
        Workload { parts, gathered: Bytes(0.0), rows: Bytes(0.0), ..Workload::example(buckets) }
    }

    fn assumed() -> Assumptions {
        let host_bandwidth = BytesPerSecond(32.0);
        Assumptions { mfu: 0.5, host_bandwidth, pair: Bytes(1.0), ..Assumptions::default() }
    }

    #[test]
    fn a_step_is_its_parts_and_what_of_the_gradient_is_not_hidden() {
        let found = predict(&workload(), &Cluster::example(2), &assumed());
        // Four pairs of 250 operations at 50 a second, and 14 s for the only bucket.
        assert_eq!((found.compute, found.gradient.exposed), (Seconds(20.0), Seconds(14.0)));
        assert_eq!((found.step, found.time), (Seconds(34.0), Seconds(340.0)));
        assert_eq!((found.samples, found.operations), (80, Operations(20_000.0)));
        assert_eq!(found.gpu_hours, 680.0 / 3600.0);
        assert_eq!(found.bottleneck, Bottleneck::Gradient);
        assert_eq!(found.mfu, 2000.0 / (34.0 * 2.0 * 100.0));
        assert_eq!(found.read, Bytes(80.0));
        // Both members send 16 bytes a step.
        assert_eq!(found.sent, Bytes(320.0));
    }

    #[test]
    fn the_bottleneck_is_what_takes_most() {
        let one = Cluster { most_slots: 2, ..Cluster::example(1) };
        let alone = predict(&workload(), &one, &assumed());
        let products = Bound::Products(Numbers::Bf16);
        assert_eq!(alone.bottleneck, Bottleneck::Model(Model::QFormer, products));
        let reading = Assumptions { pair: Bytes(1e3), ..assumed() };
        let found = predict(&workload(), &Cluster::example(2), &reading);
        assert_eq!((found.bottleneck, found.bottleneck_share), (Bottleneck::Reading, 1.0));
        let decoding = Assumptions { decoded_per_thread: 0.01, ..assumed() };
        let found = predict(&workload(), &Cluster::example(2), &decoding);
        assert_eq!((found.bottleneck, found.step), (Bottleneck::Decoding, Seconds(200.0)));
        let gathered = Workload { gathered: Bytes(100.0), ..workload() };
        let found = predict(&gathered, &Cluster::example(2), &assumed());
        assert_eq!(found.bottleneck, Bottleneck::Features);
    }

    #[test]
    fn a_deadline_asks_for_a_share_of_the_peak() {
        let peak = OperationsPerSecond(312e12);
        // 1 FLOP in 16: half of what 16 cards could do in a day.
        let operations = Operations(0.5 * 16.0 * 312e12 * 86_400.0);
        assert_eq!(implied_mfu(operations, Seconds::of_days(1.0), 16.0, peak), 0.5);
    }
}
