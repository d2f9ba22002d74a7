//! The workers, and what is assumed of them.

use serde::Serialize;

use crate::card::Card;
use crate::units::{Bytes, BytesPerSecond};

/// The workers, one a card.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cluster {
    /// Each one's card.
    pub card: Card,
    /// How many.
    pub workers: u64,
    /// How many share a host.
    pub per_host: u64,
    /// What each of them sends, and receives, a second.
    pub network: BytesPerSecond,
    /// Micro-batches of the busiest.
    pub most_slots: u64,
    /// Sums of slots that the one with most of them sends: 1 where its slots are one subtree of the sum.
    pub partial_sums: u64,
    /// Threads of each that decode images.
    pub decode_threads: u64,
}

/// What is assumed where nothing was measured. Every figure that rests on one of them says so.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Assumptions {
    /// Share of a card's peak that products reach.
    pub mfu: f64,
    /// Share of the bandwidth of a card's memory that is reached.
    pub bandwidth_share: f64,
    /// Share of a card's memory that can be used: allocators round up and leave gaps.
    pub memory_share: f64,
    /// Of that memory, what the driver and the kernels' buffers take (docs/pretrain-on-gpus.md).
    pub driver: Bytes,
    /// Bandwidth of a host's memory, shared by its workers (docs/devices.md).
    pub host_bandwidth: BytesPerSecond,
    /// A process without state, batches and buffers.
    pub process: Bytes,
    /// A pair as it is stored: the paper's web images of 224 to 300 pixels, with their captions.
    pub pair: Bytes,
    /// Images that a thread decodes and transforms a second; measured (docs/loader.md).
    pub decoded_per_thread: f64,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self {
            mfu: 0.35,
            bandwidth_share: 0.8,
            memory_share: 0.9,
            driver: Bytes(1.5e9),
            host_bandwidth: BytesPerSecond(150e9),
            process: Bytes(1e9),
            pair: Bytes(25e3),
            decoded_per_thread: 980.0,
        }
    }
}

#[cfg(test)]
impl Cluster {
    /// Workers with round numbers, each on a host of its own.
    pub(crate) fn example(workers: u64) -> Self {
        let rate = crate::units::OperationsPerSecond(100.0);
        let card = Card {
            name: "own".into(),
            f32: rate * 0.1,
            tf32: rate * 0.5,
            bf16: rate,
            memory: Bytes(1e3),
            bandwidth: BytesPerSecond(10.0),
            host_link: BytesPerSecond(4.0),
        };
        let network = BytesPerSecond(8.0);
        Self { card, workers, per_host: 1, network, most_slots: 1, partial_sums: 1, decode_threads: 2 }
    }
}
