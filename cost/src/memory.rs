//! Bytes on a device, on its host and in the store.

use serde::Serialize;

use crate::cluster::{Assumptions, Cluster};
use crate::units::Bytes;
use crate::workload::Workload;

/// Bytes of a trained number: itself and AdamW's two moments, float32.
const STATE: f64 = 12.0;

/// Parts of a checkpoint that a member holds while it writes them.
const SNAPSHOTS: f64 = 2.0;

/// Batches that are decoded beside the one that is computed.
const DECODED_BATCHES: f64 = 2.0;

/// What a device holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceMemory {
    /// Weights of the frozen models.
    pub frozen: Bytes,
    /// What is trained, with the second set that the next step is made in.
    pub trained: Bytes,
    /// Its gradient.
    pub gradient: Bytes,
    /// What the passes keep of all own pairs, and of one micro-batch.
    pub activations: Bytes,
    /// What the driver takes.
    pub driver: Bytes,
    /// All of it.
    pub total: Bytes,
    /// What the card has for it.
    pub usable: Bytes,
}

impl DeviceMemory {
    /// Of a member that computes micro-batches of `rows` pairs.
    pub fn of(workload: &Workload, rows: f64, cluster: &Cluster, assumed: &Assumptions) -> Self {
        let trained = workload.trained() as f64;
        let copies = if workload.overlaps { 2.0 } else { 1.0 };
        let frozen = workload.frozen;
        let gradient = Bytes(4.0 * trained);
        let trained = Bytes(4.0 * trained * copies);
        // The own pairs are the same however they are cut.
        let own = workload.micro_batch() * cluster.most_slots as f64;
        let activations =
            workload.kept_by_all * own.max(rows) + workload.kept_by_one.max(workload.passing) * rows;
        let driver = assumed.driver;
        let total = frozen + trained + gradient + activations + driver;
        let usable = cluster.card.memory * assumed.memory_share;
        Self { frozen, trained, gradient, activations, driver, total, usable }
    }

    /// Whether the card has room.
    pub fn fits(&self) -> bool {
        self.total <= self.usable
    }
}

/// The largest micro-batch that fits, and how to have it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LargestMicroBatch {
    /// Pairs; 0: the models alone do not fit.
    pub pairs: u64,
    /// Fewest slots, a power of two, that cut the batch into whole micro-batches no larger.
    pub slots: Option<u64>,
    /// Where no number of slots does: the next smaller batch for which one does, and that number.
    pub other_batch: Option<(u64, u64)>,
}

/// The largest micro-batch whose memory fits; a device's memory grows with it in a line.
pub fn largest_micro_batch(
    workload: &Workload,
    cluster: &Cluster,
    assumed: &Assumptions,
) -> LargestMicroBatch {
    let fits = |rows: u64| DeviceMemory::of(workload, rows as f64, cluster, assumed).fits();
    let (mut below, mut above) = (0, workload.batch + 1);
    while above - below > 1 {
        let middle = below + (above - below) / 2;
        match fits(middle) {
            true => below = middle,
            false => above = middle,
        }
    }
    let pairs = below;
    let powers = || std::iter::successors(Some(1_u64), |slots| slots.checked_mul(2)).take(17);
    let enough =
        |slots: &u64| *slots >= cluster.workers && pairs > 0 && workload.batch.div_ceil(*slots) <= pairs;
    let slots = powers().filter(|slots| workload.batch.is_multiple_of(*slots)).find(enough);
    let other = || {
        let slots = powers().find(|slots| *slots >= cluster.workers && workload.batch / slots <= pairs)?;
        Some((workload.batch / slots * slots, slots)).filter(|(batch, _)| *batch > 0)
    };
    let other_batch = if slots.is_none() && pairs > 0 { other() } else { None };
    LargestMicroBatch { pairs, slots, other_batch }
}

/// What a worker's process holds on its host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HostMemory {
    /// Parameters and moments, with the second set that the next step is made in.
    pub state: Bytes,
    /// The gradient, and the buffers it is summed in.
    pub gradient: Bytes,
    /// What is written of a checkpoint.
    pub snapshots: Bytes,
    /// Row groups and batches that are read ahead, the batch that is computed, and what members exchange.
    pub batches: Bytes,
    /// The program.
    pub process: Bytes,
    /// All of it, of one worker.
    pub worker: Bytes,
    /// Of all workers of a host.
    pub host: Bytes,
}

impl HostMemory {
    /// Of the busiest worker.
    pub fn of(workload: &Workload, cluster: &Cluster, assumed: &Assumptions) -> Self {
        let trained = workload.trained() as f64;
        let copies = if workload.overlaps { 2.0 } else { 1.0 };
        let own = workload.micro_batch() * cluster.most_slots as f64;
        let state = Bytes(STATE * trained * copies);
        let gradient = Bytes(4.0 * trained * 2.0);
        let snapshots = Bytes(STATE * trained * SNAPSHOTS / cluster.workers.max(1) as f64);
        let exchanged = workload.gathered * workload.batch as f64 + workload.rows * (2.0 * own);
        let batches = workload.read_ahead + workload.decoded * (own * DECODED_BATCHES) + exchanged;
        let process = assumed.process;
        let worker = state + gradient + snapshots + batches + process;
        let host = worker * cluster.per_host.min(cluster.workers).max(1) as f64;
        Self { state, gradient, snapshots, batches, process, worker, host }
    }
}

/// What a stage's checkpoints are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Checkpoints {
    /// One.
    pub bytes: Bytes,
    /// How many are written.
    pub count: u64,
    /// All that is written.
    pub written: Bytes,
    /// What is in the store at most: those that are kept, and the one that is written.
    pub stored: Bytes,
}

impl Checkpoints {
    /// Of a stage: every so many steps, and at its end.
    pub fn of(workload: &Workload) -> Self {
        let bytes = Bytes(STATE * workload.trained() as f64);
        let between = workload.steps.saturating_sub(1).checked_div(workload.checkpoint_every).unwrap_or(0);
        let count = between + 1;
        let kept = match workload.checkpoints_kept {
            0 => count,
            kept => (kept + 1).min(count),
        };
        Self { bytes, count, written: bytes * count as f64, stored: bytes * kept as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Bucket, Model};

    /// 5 numbers are trained, the frozen models have 100 bytes, a pair keeps 2 + 10 bytes.
    fn workload() -> Workload {
        Workload {
            frozen: Bytes(100.0),
            kept_by_all: Bytes(2.0),
            kept_by_one: Bytes(10.0),
            passing: Bytes(4.0),
            ..Workload::example(vec![Bucket { elements: 5, model: Model::QFormer, after: 1.0 }])
        }
    }

    fn assumed() -> Assumptions {
        Assumptions { driver: Bytes(50.0), memory_share: 0.5, process: Bytes(7.0), ..Assumptions::default() }
    }

    #[test]
    fn a_device_holds_models_gradient_and_what_is_kept() {
        let memory = DeviceMemory::of(&workload(), 4.0, &Cluster::example(2), &assumed());
        assert_eq!((memory.trained, memory.gradient), (Bytes(40.0), Bytes(20.0)));
        // 4 own pairs keep 2 bytes, and 4 of a micro-batch 10.
        assert_eq!(memory.activations, Bytes(48.0));
        assert_eq!((memory.total, memory.usable), (Bytes(258.0), Bytes(500.0)));
        let apart = Workload { overlaps: false, ..workload() };
        assert_eq!(DeviceMemory::of(&apart, 4.0, &Cluster::example(2), &assumed()).trained, Bytes(20.0));
        // Where one passes more through the frozen models than it keeps, that counts.
        let passing = Workload { passing: Bytes(20.0), ..workload() };
        let memory = DeviceMemory::of(&passing, 4.0, &Cluster::example(2), &assumed());
        assert_eq!(memory.activations, Bytes(88.0));
    }

    #[test]
    fn the_largest_micro_batch_leaves_no_room_for_one_more() {
        let load = Workload { batch: 64, slots: 2, ..workload() };
        let cluster = Cluster { most_slots: 1, ..Cluster::example(2) };
        // 500 - 210 - 32 × 2 = 226 bytes for 10 a pair.
        let largest = largest_micro_batch(&load, &cluster, &assumed());
        assert_eq!((largest.pairs, largest.slots, largest.other_batch), (22, Some(4), None));
        let fits = |rows| DeviceMemory::of(&load, rows, &cluster, &assumed()).fits();
        assert!(fits(22.0) && !fits(23.0));
        // 66 pairs are cut in two at most: 64 are four times 16.
        let odd = Workload { batch: 66, ..load.clone() };
        let largest = largest_micro_batch(&odd, &cluster, &assumed());
        assert_eq!((largest.pairs, largest.slots, largest.other_batch), (22, None, Some((64, 4))));
        let none = Workload { frozen: Bytes(1e3), ..load };
        let largest = largest_micro_batch(&none, &cluster, &assumed());
        assert_eq!((largest.pairs, largest.slots, largest.other_batch), (0, None, None));
    }

    #[test]
    fn a_host_holds_state_gradients_and_batches() {
        let load = Workload { decoded: Bytes(3.0), read_ahead: Bytes(11.0), ..workload() };
        let memory = HostMemory::of(&load, &Cluster { per_host: 2, ..Cluster::example(2) }, &assumed());
        assert_eq!(
            (memory.state, memory.gradient, memory.snapshots),
            (Bytes(120.0), Bytes(40.0), Bytes(60.0))
        );
        // 11 read ahead, two batches of 4 pairs of 3, 8 pairs of 2 gathered, rows of 4 pairs of 3 both ways.
        assert_eq!(memory.batches, Bytes(11.0 + 24.0 + 16.0 + 24.0));
        assert_eq!((memory.worker, memory.host), (Bytes(302.0), Bytes(604.0)));
    }

    #[test]
    fn checkpoints_are_counted_with_the_last() {
        let of = |steps, checkpoint_every, checkpoints_kept| {
            Checkpoints::of(&Workload { steps, checkpoint_every, checkpoints_kept, ..workload() })
        };
        let found = of(10, 4, 1);
        assert_eq!((found.bytes, found.count), (Bytes(60.0), 3));
        assert_eq!((found.written, found.stored), (Bytes(180.0), Bytes(120.0)));
        // The end of the stage is not written twice.
        assert_eq!((of(8, 4, 9).count, of(8, 0, 3).count, of(8, 4, 0).stored), (2, 1, Bytes(120.0)));
    }
}
