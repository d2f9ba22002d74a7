//! What a stage asks of its workers, for each pair and each micro-batch.

use serde::Serialize;

use crate::card::Numbers;
use crate::units::{Bytes, Operations};

/// A model of the run, in the order of the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Model {
    /// The image encoder.
    ImageEncoder,
    /// The Q-Former with its heads.
    QFormer,
    /// The language model.
    LanguageModel,
}

impl Model {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::ImageEncoder => "image encoder",
            Self::QFormer => "Q-Former",
            Self::LanguageModel => "language model",
        }
    }
}

/// A direction through a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// From images to losses.
    Forward,
    /// From losses to gradients.
    Backward,
}

/// A part of a step's computation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    /// What it is.
    pub name: String,
    /// Whose.
    pub model: Model,
    /// Which way.
    pub pass: Pass,
    /// Numbers of the products' factors.
    pub numbers: Numbers,
    /// Operations of a pair.
    pub operations: Operations,
    /// Weights that are read once a micro-batch.
    pub weights: Bytes,
    /// Activations that are written and read, of a pair.
    pub activations: Bytes,
    /// Whether it computes once more what was computed: time, and no operations that the step needs.
    pub again: bool,
}

/// A range of the gradient that is exchanged at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bucket {
    /// Numbers in it.
    pub elements: u64,
    /// The model of whose backward pass it is complete within.
    pub model: Model,
    /// After which share of that model's backward pass.
    pub after: f64,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Its task.
    pub task: String,
    /// Its steps.
    pub steps: u64,
    /// Pairs of the global batch.
    pub batch: u64,
    /// Micro-batches of the global batch.
    pub slots: u64,
    /// The computation, in its order.
    pub parts: Vec<Part>,
    /// What is trained, in the order in which its gradient is complete.
    pub buckets: Vec<Bucket>,
    /// Bytes of a number of the gradient between members.
    pub wire_bytes: f64,
    /// Whether the gradient is exchanged and applied beside the backward pass.
    pub overlaps: bool,
    /// What every member gets of each pair of the global batch before the losses.
    pub gathered: Bytes,
    /// What a pair's counter-examples bring from other members at most.
    pub rows: Bytes,
    /// Weights on the device that are not trained.
    pub frozen: Bytes,
    /// Activations that each pair of a member keeps from before the losses to its own backward pass.
    pub kept_by_all: Bytes,
    /// Activations that each pair of one micro-batch at a time keeps.
    pub kept_by_one: Bytes,
    /// Activations that pass through the frozen models, of each pair of one micro-batch at a time.
    pub passing: Bytes,
    /// A pair as the loader hands it over.
    pub decoded: Bytes,
    /// Memory of the loader for what is read ahead.
    pub read_ahead: Bytes,
    /// Steps between checkpoints; 0: at the end alone.
    pub checkpoint_every: u64,
    /// Checkpoints that are kept besides the last; 0: all.
    pub checkpoints_kept: u64,
}

impl Workload {
    /// Numbers that are trained.
    pub fn trained(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.elements).sum()
    }

    /// Pairs of a micro-batch.
    pub fn micro_batch(&self) -> f64 {
        self.batch as f64 / self.slots as f64
    }

    /// Operations of a pair that the step needs.
    pub fn operations(&self) -> Operations {
        self.parts.iter().filter(|part| !part.again).map(|part| part.operations).sum()
    }
}

#[cfg(test)]
impl Workload {
    /// Eight pairs in two slots.
    pub(crate) fn example(buckets: Vec<Bucket>) -> Self {
        Self {
            name: "own".into(),
            task: "contrast".into(),
            steps: 10,
            batch: 8,
            slots: 2,
            parts: Vec::new(),
            buckets,
            wire_bytes: 4.0,
            overlaps: true,
            gathered: Bytes(2.0),
            rows: Bytes(3.0),
            frozen: Bytes(0.0),
            kept_by_all: Bytes(0.0),
            kept_by_one: Bytes(0.0),
            passing: Bytes(0.0),
            decoded: Bytes(0.0),
            read_ahead: Bytes(0.0),
            checkpoint_every: 0,
            checkpoints_kept: 0,
        }
    }
}
