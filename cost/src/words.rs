//! A plan in words.

use std::fmt::Write as _;

use crate::card::Numbers;
use crate::prediction::{Bottleneck, StagePrediction};
use crate::step::Bound;
use crate::units::{Bytes, Seconds};
use crate::workload::Model;

use crate::plan::Plan;

/// For people.
pub fn shown(plan: &Plan) -> String {
    let mut text = String::new();
    cluster(&mut text, plan);
    for stage in &plan.stages {
        shown_stage(&mut text, stage, plan);
    }
    total(&mut text, plan);
    text
}

/// One line of a table.
fn line(text: &mut String, name: &str, words: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  {name:<12} {words}");
}

fn cluster(text: &mut String, plan: &Plan) {
    let (cluster, assumed) = (&plan.cluster, &plan.assumptions);
    let card = &cluster.card;
    let workers =
        if cluster.workers == 1 { "1 worker".into() } else { format!("{} workers", cluster.workers) };
    let peaks: Vec<String> = [Numbers::F32, Numbers::Tf32, Numbers::Bf16]
        .map(|numbers| format!("{} {}", figure(card.peak(numbers).0 / 1e12), numbers.name()))
        .to_vec();
    let _ =
        writeln!(text, "{workers}, {} a host, one {} each", cluster.per_host.min(cluster.workers), card.name);
    line(
        text,
        "card",
        &format!(
            "TFLOP/s: {}; {} at {}/s",
            peaks.join(", "),
            bytes(card.memory),
            bytes(Bytes(card.bandwidth.0))
        ),
    );
    line(text, "network", &format!("{} Gbit/s each", figure(cluster.network.gigabits())));
    line(
        text,
        "assumed",
        &format!(
            "{} of the peak (--mfu), {} of the memory's bandwidth, {} a pair (--pair), {} images a second and decoding thread",
            percent(assumed.mfu),
            percent(assumed.bandwidth_share),
            bytes(assumed.pair),
            assumed.decoded_per_thread
        ),
    );
}

fn shown_stage(text: &mut String, stage: &StagePrediction, plan: &Plan) {
    let _ = writeln!(
        text,
        "\nstage {} ({}): {} steps of {} pairs in {} slots, {} pairs in all",
        stage.name,
        stage.task,
        thousands(stage.steps),
        thousands(stage.batch),
        stage.slots,
        thousands(stage.samples)
    );
    let of_model = |model: Model| {
        let own = stage.parts.iter().filter(|part| part.model == model);
        own.fold((0.0, 0.0), |(operations, seconds), part| {
            (operations + part.operations.0 / stage.batch as f64, seconds + part.seconds.0)
        })
    };
    let models = [Model::ImageEncoder, Model::QFormer, Model::LanguageModel];
    let models: Vec<_> = models.into_iter().map(|model| (model, of_model(model))).collect();
    let there = || models.iter().filter(|(_, (operations, _))| *operations > 0.0);
    let counted: Vec<String> = there()
        .map(|(model, (operations, _))| format!("{} {:.3}", model.name(), operations / 1e12))
        .collect();
    line(
        text,
        "operations",
        &format!("TFLOP a pair: {}; {:.2e} in all", counted.join(", "), stage.operations.0),
    );
    let mut parts: Vec<String> =
        there().map(|(model, (_, time))| format!("{} {}", model.name(), seconds(Seconds(*time)))).collect();
    if stage.features.0 > 0.0 {
        parts.push(format!("features between members {}", seconds(stage.features)));
    }
    parts.push(format!("gradient {}", seconds(stage.gradient.exposed)));
    line(
        text,
        "step",
        &format!("{}: {}; {} of the peak in bf16", seconds(stage.step), parts.join(", "), percent(stage.mfu)),
    );
    for part in &stage.parts {
        let pass = format!("{:?}", part.pass).to_lowercase();
        let _ = writeln!(
            text,
            "    {:<16} {:<22} {:<9} {:>9} TFLOP {:>9}  {}",
            part.model.name(),
            part.name,
            pass,
            figure(part.operations.0 / 1e12),
            seconds(part.seconds),
            bound(part.bound)
        );
    }
    line(
        text,
        "gradient",
        &format!(
            "{} numbers, {}: sum over members {}, whole way {}, of which {} are hidden",
            thousands(stage.trained),
            bytes(stage.gradient.bytes),
            seconds(stage.gradient.sum),
            seconds(stage.gradient.whole),
            seconds(stage.gradient.hidden)
        ),
    );
    line(
        text,
        "input",
        &format!(
            "a batch is read in {} and decoded in {}, beside the step; {}/s from the store",
            seconds(stage.reading),
            seconds(stage.decoding),
            bytes(Bytes(stage.read_rate.0))
        ),
    );
    line(
        text,
        "bottleneck",
        &format!(
            "{}, {} of the step{}",
            named(stage.bottleneck),
            percent(stage.bottleneck_share),
            advice(stage)
        ),
    );
    memory(text, stage);
    let checkpoints = &stage.checkpoints;
    line(
        text,
        "checkpoints",
        &format!(
            "{} of {}: {} written, {} in the store at most",
            thousands(checkpoints.count),
            bytes(checkpoints.bytes),
            bytes(checkpoints.written),
            bytes(checkpoints.stored)
        ),
    );
    line(
        text,
        "time",
        &format!(
            "{}; {} GPU-hours on {} cards",
            duration(stage.time),
            thousands(stage.gpu_hours.round() as u64),
            plan.cluster.workers
        ),
    );
}

fn memory(text: &mut String, stage: &StagePrediction) {
    let device = &stage.device;
    let rows = stage.batch as f64 / stage.slots as f64;
    let fits = match device.fits() {
        true => "fits",
        false => "DOES NOT FIT",
    };
    line(
        text,
        "device",
        &format!(
            "{} of {} with micro-batches of {}: {fits} (frozen models {}, trained {}, gradient {}, activations {}, driver {})",
            bytes(device.total),
            bytes(device.usable),
            figure(rows),
            bytes(device.frozen),
            bytes(device.trained),
            bytes(device.gradient),
            bytes(device.activations),
            bytes(device.driver)
        ),
    );
    let largest = &stage.largest;
    line(text, "", &match (largest.pairs, largest.slots, largest.other_batch) {
        (0, _, _) => "no micro-batch fits: the models alone are too large for the card, or there are too few workers".into(),
        (pairs, Some(slots), _) => {
            format!("the largest micro-batch that fits has {} pairs: train.slots = {slots} or more", thousands(pairs))
        }
        (pairs, None, Some((batch, slots))) => format!(
            "the largest micro-batch that fits has {} pairs, and no number of slots cuts {} so: a batch of {} with train.slots \
             = {slots} does",
            thousands(pairs),
            thousands(stage.batch),
            thousands(batch)
        ),
        (pairs, None, None) => format!(
            "the largest micro-batch that fits has {} pairs, and no number of slots cuts the batch so",
            thousands(pairs)
        ),
    });
    let host = &stage.host;
    line(
        text,
        "host",
        &format!(
            "{} a worker, {} a host (state {}, gradient {}, checkpoint {}, batches {}, program {})",
            bytes(host.worker),
            bytes(host.host),
            bytes(host.state),
            bytes(host.gradient),
            bytes(host.snapshots),
            bytes(host.batches),
            bytes(host.process)
        ),
    );
}

fn total(text: &mut String, plan: &Plan) {
    let total = &plan.total;
    let _ = writeln!(text, "\nin all");
    line(
        text,
        "time",
        &format!(
            "{} for {} steps; {} GPU-hours",
            duration(total.time),
            thousands(total.steps),
            thousands(total.gpu_hours.round() as u64)
        ),
    );
    line(
        text,
        "moved",
        &format!(
            "{} read from the store, {} sent between members, {} written of checkpoints",
            bytes(total.read),
            bytes(total.sent),
            bytes(total.checkpoints)
        ),
    );
    match (total.cost, total.egress) {
        (None, None) => {}
        (Some(cost), None) => line(text, "cost", &format!("{cost:.2} for the cards")),
        (None, Some(egress)) => line(text, "cost", &format!("{egress:.2} for what is read")),
        (Some(cost), Some(egress)) => line(
            text,
            "cost",
            &format!("{:.2}: {cost:.2} for the cards, {egress:.2} for what is read", cost + egress),
        ),
    }
    if let Some(mfu) = total.asked_mfu {
        line(text, "deadline", &format!("asks for {:.1} % of the cards' peak in bf16", 100.0 * mfu));
    }
    let worker = &plan.requests.worker;
    line(
        text,
        "requests",
        &format!(
            "a worker {} processors and {} GiB (--kubernetes prints a patch)",
            worker.cpu, worker.memory_gib
        ),
    );
}

/// What could be done about a bottleneck.
fn advice(stage: &StagePrediction) -> String {
    match stage.bottleneck {
        Bottleneck::Model(Model::QFormer, Bound::Products(Numbers::F32)) => {
            "; train.compute = \"bf16\" or train.tf32 = true computes it faster, to other bits".into()
        }
        Bottleneck::Model(_, Bound::Products(Numbers::F32)) => {
            "; model.frozen_dtype = \"bf16\" computes it faster, to other bits".into()
        }
        Bottleneck::Model(_, Bound::Memory) => "; larger micro-batches read the weights less often".into(),
        Bottleneck::Gradient if !stage.gradient.overlaps => "; train.overlap = true hides most of it".into(),
        Bottleneck::Gradient => "; train.wire = \"bf16\" halves what is sent, to other bits".into(),
        Bottleneck::Reading => {
            "; loader.disk_cache keeps what was read, smaller images are smaller files".into()
        }
        Bottleneck::Decoding => {
            "; set loader.decode_threads higher, or make images smaller (corpus ingest)".into()
        }
        Bottleneck::Model(..) | Bottleneck::Features => String::new(),
    }
}

fn named(bottleneck: Bottleneck) -> String {
    match bottleneck {
        Bottleneck::Model(model, of) => format!("{} ({})", model.name(), bound(of)),
        Bottleneck::Features => "features between members".into(),
        Bottleneck::Gradient => "the gradient's way after the backward pass".into(),
        Bottleneck::Reading => "reading from the store".into(),
        Bottleneck::Decoding => "decoding of images".into(),
    }
}

fn bound(bound: Bound) -> String {
    match bound {
        Bound::Products(numbers) => format!("products in {}", numbers.name()),
        Bound::Memory => "memory bandwidth".into(),
    }
}

/// Three digits, or as many as the whole part has.
fn figure(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.places$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

fn bytes(amount: Bytes) -> String {
    let units = [(1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.iter().find(|(size, _)| amount.0 >= *size) {
        Some((size, unit)) => format!("{} {unit}", figure(amount.0 / size)),
        None => format!("{} B", figure(amount.0)),
    }
}

fn seconds(time: Seconds) -> String {
    match time.0 {
        short if short < 1e-9 => "0 s".into(),
        short if short < 0.1 => format!("{} ms", figure(1e3 * short)),
        long => format!("{} s", figure(long)),
    }
}

fn duration(time: Seconds) -> String {
    match time.0 {
        short if short < 120.0 => seconds(time),
        short if short < 7200.0 => format!("{} minutes", figure(short / 60.0)),
        short if time.days() < 2.0 => format!("{} hours", figure(short / 3600.0)),
        _ => format!("{} days", figure(time.days())),
    }
}

fn percent(share: f64) -> String {
    format!("{} %", figure(100.0 * share))
}

/// 1234567 as 1,234,567.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_shown_with_three_digits() {
        assert_eq!([7, 1234, 188_000_256].map(thousands), ["7", "1,234", "188,000,256"]);
        assert_eq!([2.0, 2.074, 12.34, 1234.5].map(figure), ["2", "2.07", "12.3", "1234"]);
        assert_eq!([752e6, 10.5e12, 12.0].map(|size| bytes(Bytes(size))), ["752 MB", "10.5 TB", "12 B"]);
        assert_eq!([0.0, 0.045, 2.0736].map(|time| seconds(Seconds(time))), ["0 s", "45 ms", "2.07 s"]);
        let days = [60.0, 3600.0, 86_400.0, 864_000.0].map(|time| duration(Seconds(time)));
        assert_eq!(days, ["60 s", "60 minutes", "24 hours", "10 days"]);
        assert_eq!(percent(0.1165), "11.7 %");
    }
}
