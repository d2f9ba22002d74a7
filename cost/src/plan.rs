//! A run as it is planned: all its stages.

use serde::Serialize;

use crate::cluster::{Assumptions, Cluster};
use crate::prediction::{StagePrediction, implied_mfu, predict};
use crate::requests::Requests;
use crate::units::{Bytes, Operations, Seconds};
use crate::workload::Workload;

/// A run as it is planned.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The workers.
    pub cluster: Cluster,
    /// What is assumed of them.
    pub assumptions: Assumptions,
    /// The stages that have steps.
    pub stages: Vec<StagePrediction>,
    /// All of them together.
    pub total: Total,
    /// What a worker and a coordinator should ask a cluster for.
    pub requests: Requests,
}

/// All stages together.
#[derive(Debug, Clone, Serialize)]
pub struct Total {
    /// Steps.
    pub steps: u64,
    /// Operations.
    pub operations: Operations,
    /// Seconds.
    pub time: Seconds,
    /// Hours of one card.
    pub gpu_hours: f64,
    /// Read from the store.
    pub read: Bytes,
    /// Sent between members.
    pub sent: Bytes,
    /// Written of checkpoints.
    pub checkpoints: Bytes,
    /// Of the cards, where their price is known.
    pub cost: Option<f64>,
    /// Of what is read, where its price is known.
    pub egress: Option<f64>,
    /// The share of the peak in bf16 that a time asks for, where one is named.
    pub asked_mfu: Option<f64>,
}

/// Prices, and a time to keep.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Terms {
    /// Of an hour of one card.
    pub price: Option<f64>,
    /// Of a gigabyte that is read from the store.
    pub egress_price: Option<f64>,
    /// The time.
    pub within: Option<Seconds>,
}

/// Plans the stages of a run; `disk_cache` is what the loader of a worker may keep on its disk.
pub fn plan(stages: &[Workload], cluster: Cluster, assumptions: Assumptions, disk_cache: Bytes) -> Plan {
    let stages: Vec<StagePrediction> =
        stages.iter().map(|stage| predict(stage, &cluster, &assumptions)).collect();
    let sum = |of: fn(&StagePrediction) -> f64| stages.iter().map(of).sum::<f64>();
    let total = Total {
        steps: stages.iter().map(|stage| stage.steps).sum(),
        operations: Operations(sum(|stage| stage.operations.0)),
        time: Seconds(sum(|stage| stage.time.0)),
        gpu_hours: sum(|stage| stage.gpu_hours),
        read: Bytes(sum(|stage| stage.read.0)),
        sent: Bytes(sum(|stage| stage.sent.0)),
        checkpoints: Bytes(sum(|stage| stage.checkpoints.written.0)),
        cost: None,
        egress: None,
        asked_mfu: None,
    };
    let requests = Requests::of(&stages, &cluster, disk_cache);
    Plan { cluster, assumptions, stages, total, requests }
}

impl Plan {
    /// The same with its price, and what a time asks for.
    pub fn on(mut self, terms: Terms) -> Self {
        let (cards, peak) = (self.cluster.workers as f64, self.cluster.card.bf16);
        let total = &mut self.total;
        total.cost = terms.price.map(|price| price * total.gpu_hours);
        total.egress = terms.egress_price.map(|price| price * total.read.0 / 1e9);
        total.asked_mfu = terms.within.map(|time| implied_mfu(total.operations, time, cards, peak));
        self
    }

    /// The most that a worker's process takes on its host.
    pub fn host_memory(&self) -> Bytes {
        self.stages.iter().map(|stage| stage.host.worker).fold(Bytes(0.0), Bytes::max)
    }

    /// What a worker reads a second at most.
    pub fn read_rate(&self) -> f64 {
        let most = self.stages.iter().map(|stage| stage.read_rate.0).fold(0.0, f64::max);
        most / self.cluster.workers.max(1) as f64
    }

    /// What a stage's checkpoints take in the store at most.
    pub fn stored_checkpoints(&self) -> Bytes {
        self.stages.iter().map(|stage| stage.checkpoints.stored).fold(Bytes(0.0), Bytes::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Bucket, Model};

    #[test]
    fn stages_are_added_and_priced() {
        let bucket = Bucket { elements: 4, model: Model::QFormer, after: 1.0 };
        let stages = [Workload::example(vec![bucket]), Workload::example(vec![bucket])];
        let planned = plan(&stages, Cluster::example(2), Assumptions::default(), Bytes(0.0));
        let [one, other] = &planned.stages[..] else { panic!("two stages") };
        assert_eq!(planned.total.steps, 20);
        assert_eq!(planned.total.time, one.time + other.time);
        assert_eq!((planned.total.cost, planned.total.egress), (None, None));
        let hours = planned.total.gpu_hours;
        let terms =
            Terms { price: Some(3.0), egress_price: Some(1e9), within: Some(planned.total.time * 2.0) };
        let total = planned.on(terms).total;
        // 160 pairs of 25 kB; no operation is counted here.
        assert_eq!((total.cost, total.egress, total.asked_mfu), (Some(3.0 * hours), Some(4e6), Some(0.0)));
    }
}
