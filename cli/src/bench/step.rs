//! `bench step`: samples and operations a second of training steps over made-up batches, and where their time
//! goes.

mod parameters;
mod peak;
mod preset;
mod speed;
mod stub;
mod texts;

use std::collections::BTreeMap;

use blip2_model::objectives::flops::{self, BatchShape};
use blip2_worker::settings::model::FrozenDtype;
use blip2_worker::settings::train::{Compute, Wire};
use blip2_worker::step::{StepBytes, StepTimes};
use clap::{Args, ValueEnum};
use serde::Serialize;

use self::parameters::{ParameterLoad, ParameterReport};
use self::preset::{Preset, Sizes};
use self::speed::{StepLoad, StepSpeed, TimedStep};
use self::stub::{StubSizes, StubStep, StubTimes};
use super::printing::measure_and_print;
use super::rounds::median;
use crate::error::CliError;
use blip2_run::exit::Exit;
use blip2_telemetry::process::peak_memory_bytes;

/// Steps that are measured part by part.
const MEASURED: u32 = 3;

/// What is stepped.
#[derive(Debug, Clone, Args)]
pub(crate) struct StepArguments {
    /// Sizes of the models, whose weights are made up.
    #[arg(long, value_enum, default_value_t = Preset::Stage1Stub)]
    preset: Preset,
    /// Device: cpu, cuda[:N], vulkan[:N] or auto.
    #[arg(long, default_value = "cpu", value_name = "NAME")]
    device: String,
    /// Pairs in a step.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=65536), value_name = "B")]
    batch: u32,
    /// Pairs in a slot, of which a step has 1, 2, 4, …; the whole batch if not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65536), value_name = "B")]
    micro_batch: Option<u32>,
    /// Members that share the step, all on the one device; each has a model and a state of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64), value_name = "N")]
    members: u8,
    /// Steps, after one to warm up; the medians are reported. A few more are then measured part by part.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "S")]
    steps: u32,
    /// Dropout probability in the Q-Former.
    #[arg(long, default_value_t = 0.0, value_parser = probability, value_name = "P")]
    dropout: f64,
    /// Numbers of the frozen models' matrices.
    #[arg(long, value_enum, default_value_t = Frozen::Auto)]
    frozen_dtype: Frozen,
    /// Numbers of the products in what is trained, as `train.compute`.
    #[arg(long, value_enum, default_value_t = Numbers::F32)]
    compute: Numbers,
    /// Numbers in which gradients travel, as `train.wire`: f32 or bf16.
    #[arg(long, default_value_t = Wire::F32)]
    wire: Wire,
    /// Let float32 products round to TF32, as `train.tf32`.
    #[arg(long)]
    tf32: bool,
    /// Let no part of a step run beside another, as `train.overlap = false` does.
    #[arg(long)]
    no_overlap: bool,
    /// Measure what a step costs beyond its passes for so many trained parameters, and no pass: the
    /// gradient's sum over the members, its norm, and AdamW.
    #[arg(long)]
    parameters_only: bool,
    /// What the device computes at most, in TFLOP/s; known for some cards, dense in bf16.
    #[arg(long, value_parser = positive, value_name = "TFLOPS")]
    peak_tflops: Option<f64>,
    /// Print the result as a JSON line.
    #[arg(long)]
    json: bool,
}

/// As `model.frozen_dtype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Frozen {
    /// bf16 on a GPU that computes in it.
    Auto,
    /// float32.
    F32,
    /// bf16.
    Bf16,
}

impl From<Frozen> for FrozenDtype {
    fn from(frozen: Frozen) -> Self {
        match frozen {
            Frozen::Auto => Self::Auto,
            Frozen::F32 => Self::F32,
            Frozen::Bf16 => Self::Bf16,
        }
    }
}

/// As `train.compute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Numbers {
    /// float32.
    F32,
    /// bf16.
    Bf16,
}

impl From<Numbers> for Compute {
    fn from(numbers: Numbers) -> Self {
        match numbers {
            Numbers::F32 => Self::F32,
            Numbers::Bf16 => Self::Bf16,
        }
    }
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(probability) if (0.0..1.0).contains(&probability) => Ok(probability),
        _ => Err("a probability is at least 0 and below 1".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && f64::is_finite(number) => Ok(number),
        _ => Err("a rate is a number above 0".to_owned()),
    }
}

/// Medians over the steps.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Report {
    preset: String,
    device: String,
    batch: u32,
    micro_batch: u32,
    steps: u32,
    parameters: usize,
    members: u8,
    /// Seconds of a step, with its parts beside each other.
    total_s: f64,
    samples_per_s: f64,
    /// Seconds of it that the first member waited for others, with nothing else to do.
    exposed_communication_s: Option<f64>,
    /// Of the step's matrix products, by formula.
    tflop_per_step: f64,
    tflops: f64,
    peak_tflops: Option<f64>,
    share_of_peak: Option<f64>,
    /// Most bytes of the process, where the system tells it.
    peak_bytes: Option<u64>,
    /// Most bytes that tensors on the device took between steps and parts, and that were held for them.
    device_bytes: Option<u64>,
    device_reserved_bytes: Option<u64>,
    /// Bytes that all members copied on the host in a step, and sent each other; where they are counted.
    bytes_copied: Option<u64>,
    bytes_sent: Option<u64>,
    /// Those bytes by kind.
    #[serde(flatten)]
    bytes: BTreeMap<String, u64>,
    /// Seconds of each part of the first member's step, one after the other.
    #[serde(flatten)]
    parts: BTreeMap<String, f64>,
}

/// What was measured.
struct Measured {
    parameters: usize,
    flops: u64,
    /// Seconds of each step.
    totals: Vec<f64>,
    /// Of those the ones that the first member waited for others; where there are others.
    waits: Vec<f64>,
    /// Of each part, in their order.
    parts: Vec<(&'static str, f64)>,
    /// In use and reserved.
    device_bytes: Option<[u64; 2]>,
    /// Moved by all members in a step.
    bytes: Option<StepBytes>,
}

pub(super) async fn run(arguments: StepArguments) -> Result<Exit, CliError> {
    let json = arguments.json;
    match arguments.parameters_only {
        true => measure_and_print(json, move || measure_parameters(&arguments), parameters::text).await,
        false => measure_and_print(json, move || measure(&arguments), text).await,
    }
}

fn measure_parameters(arguments: &StepArguments) -> Result<ParameterReport, CliError> {
    let preset = arguments.preset.name();
    let Sizes::Run(sizes) = arguments.preset.sizes(arguments.batch as usize, arguments.dropout) else {
        return Err(CliError::usage(format!(
            "--preset {preset} has no run: name another with --parameters-only"
        )));
    };
    let load = ParameterLoad {
        preset,
        members: usize::from(arguments.members),
        steps: arguments.steps,
        beside: !arguments.no_overlap,
    };
    Ok(parameters::measure(&sizes, &load, &tokio::runtime::Handle::current())?)
}

fn measure(arguments: &StepArguments) -> Result<Report, CliError> {
    let measured = match arguments.preset.sizes(arguments.batch as usize, arguments.dropout) {
        Sizes::Stub(sizes) => measure_stub(arguments, sizes)?,
        Sizes::Run(sizes) if sizes.trains_encoder => {
            let name = arguments.preset.name();
            return Err(CliError::usage(format!("--preset {name} is measured with --parameters-only")));
        }
        Sizes::Run(sizes) => {
            let load = StepLoad {
                batch: arguments.batch,
                micro_batch: arguments.micro_batch.unwrap_or(arguments.batch),
                device: arguments.device.clone(),
                frozen_dtype: arguments.frozen_dtype.into(),
                compute: arguments.compute.into(),
                tf32: arguments.tf32,
                wire: arguments.wire,
                overlap: !arguments.no_overlap,
                members: usize::from(arguments.members),
            };
            let runtime = tokio::runtime::Handle::current();
            measure_run(arguments.steps, StepSpeed::new(sizes, load, runtime)?)?
        }
    };
    Ok(report(arguments, measured))
}

fn measure_run(steps: u32, mut speed: StepSpeed) -> Result<Measured, CliError> {
    let mut device_bytes: Option<[u64; 2]> = None;
    let mut step = |apart: bool| -> Result<TimedStep, CliError> {
        let timed = speed.step(apart)?;
        if let Some(usage) = speed.memory() {
            let [in_use, reserved] = device_bytes.unwrap_or_default();
            device_bytes = Some([in_use.max(usage.bytes_in_use), reserved.max(usage.bytes_reserved)]);
        }
        Ok(timed)
    };
    step(false)?;
    let whole = (0..steps).map(|_| step(false)).collect::<Result<Vec<_>, CliError>>()?;
    let totals = whole.iter().map(|step| step.total).collect();
    let waits = whole.iter().map(|step| step.times.exchange).collect();
    // Which rows are negatives, and so how many travel, differs from step to step: the last one's count.
    let bytes = whole.last().map(|step| step.bytes);
    let apart =
        (0..steps.min(MEASURED)).map(|_| Ok(step(true)?.times)).collect::<Result<Vec<_>, CliError>>()?;
    let parts = StepTimes::default().named().into_iter().enumerate();
    let of = |at: usize| median(apart.iter().map(|times| times.named()[at].1).collect());
    let parts = parts.map(|(at, (name, _))| (name, of(at))).collect();
    let (parameters, flops) = (speed.parameters(), speed.flops().total());
    Ok(Measured { parameters, flops, totals, waits, parts, device_bytes, bytes })
}

fn measure_stub(arguments: &StepArguments, sizes: StubSizes) -> Result<Measured, CliError> {
    if arguments.micro_batch.is_some_and(|micro_batch| micro_batch != arguments.batch) {
        let name = arguments.preset.name();
        return Err(CliError::usage(format!("--preset {name} has one slot: leave --micro-batch out")));
    }
    if arguments.members != 1 {
        let name = arguments.preset.name();
        return Err(CliError::usage(format!("--preset {name} has one member: leave --members out")));
    }
    let text_length = texts::computed(sizes.text_length);
    let batch = BatchShape { pairs: sizes.batch, positions: sizes.positions, text_length };
    let flops = flops::contrast(&sizes.qformer, sizes.embed_dim, batch).total();
    let mut stub = StubStep::new(sizes, 0, &arguments.device)?;
    stub.step()?;
    let steps = (0..arguments.steps).map(|_| stub.step()).collect::<Result<Vec<_>, _>>()?;
    let parts = [
        ("forward", median(steps.iter().map(|times| times.forward.as_secs_f64()).collect())),
        ("backward", median(steps.iter().map(|times| times.backward.as_secs_f64()).collect())),
        ("optimizer", median(steps.iter().map(|times| times.optimizer.as_secs_f64()).collect())),
    ];
    let total = |times: &StubTimes| times.forward + times.backward + times.optimizer;
    let totals = steps.iter().map(|times| total(times).as_secs_f64()).collect();
    let (parameters, parts) = (stub.parameters(), parts.to_vec());
    Ok(Measured { parameters, flops, totals, waits: Vec::new(), parts, device_bytes: None, bytes: None })
}

fn report(arguments: &StepArguments, measured: Measured) -> Report {
    let Measured { parameters, flops, totals, waits, parts, device_bytes, bytes } = measured;
    let named = bytes.iter().flat_map(StepBytes::named);
    let total_s = median(totals);
    let tflop_per_step = flops as f64 / 1e12;
    let tflops = tflop_per_step / total_s;
    let known = || if arguments.device.starts_with("cuda") { peak::of_this_machine() } else { None };
    let peak_tflops = arguments.peak_tflops.or_else(known);
    Report {
        preset: arguments.preset.name(),
        device: arguments.device.clone(),
        batch: arguments.batch,
        micro_batch: arguments.micro_batch.unwrap_or(arguments.batch),
        steps: arguments.steps,
        members: arguments.members,
        parameters,
        total_s,
        samples_per_s: f64::from(arguments.batch) / total_s,
        exposed_communication_s: (arguments.members > 1 && !waits.is_empty()).then(|| median(waits)),
        tflop_per_step,
        tflops,
        peak_tflops,
        share_of_peak: peak_tflops.map(|peak| tflops / peak),
        peak_bytes: peak_memory_bytes(),
        device_bytes: device_bytes.map(|[in_use, _]| in_use),
        device_reserved_bytes: device_bytes.map(|[_, reserved]| reserved),
        bytes_copied: bytes.as_ref().map(StepBytes::copied),
        bytes_sent: bytes.as_ref().map(StepBytes::sent),
        bytes: named.map(|(name, bytes)| (format!("{name}_bytes"), bytes)).collect(),
        parts: parts.into_iter().map(|(name, seconds)| (format!("{name}_s"), seconds)).collect(),
    }
}

fn text(report: &Report) -> String {
    let gigabytes = |what: &str, bytes: Option<u64>| {
        bytes.map_or_else(String::new, |bytes| format!(", {what} {:.2} GB", bytes as f64 / 1e9))
    };
    let share = report.share_of_peak.zip(report.peak_tflops);
    let share =
        share.map_or_else(String::new, |(share, peak)| format!(", {:.1} % of {peak} TFLOP/s", 100.0 * share));
    let parts: Vec<String> = report
        .parts
        .iter()
        .map(|(name, seconds)| format!("{} {seconds:.3} s", name.trim_end_matches("_s").replace('_', " ")))
        .collect();
    let waits = report.exposed_communication_s;
    let waits =
        waits.map_or_else(String::new, |seconds| format!(", {seconds:.3} s of it waiting for others"));
    let apart: f64 = report.parts.values().sum();
    let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    let kinds = |sent: bool| {
        let own = report.bytes.iter().filter(|(name, _)| name.starts_with("sent") == sent);
        let name = |name: &str| name.trim_end_matches("_bytes").replace('_', " ");
        own.map(|(of, bytes)| format!("{} {}", name(of), megabytes(*bytes))).collect::<Vec<_>>().join(", ")
    };
    let moved = report.bytes_copied.zip(report.bytes_sent).map_or_else(String::new, |(copied, sent)| {
        let (copied, sent) = (megabytes(copied), megabytes(sent));
        let members = report.members;
        let of = if members == 1 { String::new() } else { format!("{members} members together: ") };
        format!("  {of}copied {copied} MB a step ({}), sent {sent} MB ({})\n", kinds(false), kinds(true))
    });
    format!(
        "{} ({:.1}M trained parameters) on {}, batch {} in slots of {}: {:.3} s a step{waits}, {:.2} samples/s\n  {:.2} TFLOP \
         a step, {:.2} TFLOP/s{share}{}{}{}\n  one after the other {apart:.3} s: {}\n{moved}",
        report.preset,
        report.parameters as f64 / 1e6,
        report.device,
        report.batch,
        report.micro_batch,
        report.total_s,
        report.samples_per_s,
        report.tflop_per_step,
        report.tflops,
        gigabytes("process", report.peak_bytes),
        gigabytes("device", report.device_bytes),
        gigabytes("reserved", report.device_reserved_bytes),
        parts.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Typed {
        #[command(flatten)]
        bench: StepArguments,
    }

    fn typed(arguments: &[&str]) -> StepArguments {
        Typed::try_parse_from(["test"].iter().chain(arguments)).unwrap().bench
    }

    #[test]
    fn the_report_has_medians_rates_and_the_share_of_the_peak() {
        let arguments =
            typed(&["--preset", "stage1-vit-g", "--peak-tflops", "8", "--batch", "16", "--members", "2"]);
        let measured = Measured {
            parameters: 10,
            flops: 8_000_000_000_000,
            totals: vec![9.0, 2.0, 1.0],
            waits: vec![0.5, 0.125, 0.25],
            parts: vec![("encoder", 1.5), ("to_host", 0.25)],
            device_bytes: Some([3_000_000_000, 4_000_000_000]),
            bytes: Some(StepBytes { to_host: 5_000_000, sent_rows: 2_500_000, ..StepBytes::default() }),
        };
        let report = report(&arguments, measured);
        assert_eq!((report.total_s, report.samples_per_s, report.tflops), (2.0, 8.0, 4.0));
        assert_eq!(report.share_of_peak, Some(0.5));
        let said = text(&report);
        for part in [
            "stage1-vit-g",
            "in slots of 16: 2.000 s a step, 0.250 s of it waiting for others, 8.00 samples/s",
            "8.00 TFLOP a step, 4.00 TFLOP/s, 50.0 % of 8 TFLOP/s",
            "device 3.00 GB, reserved 4.00 GB",
            "one after the other 1.750 s: encoder 1.500 s, to host 0.250 s",
            "copied 5.0 MB a step (to device 0.0, to host 5.0, within host 0.0), sent 2.5 MB (",
            "sent rows 2.5,",
        ] {
            assert!(said.contains(part), "{part:?} in {said}");
        }
        let json = serde_json::to_value(&report).unwrap();
        let expected = (&1.5.into(), &4_000_000_000_u64.into());
        assert_eq!((&json["encoder_s"], &json["device_reserved_bytes"]), expected);
        let bytes = ["bytes_copied", "bytes_sent", "sent_rows_bytes", "to_host_bytes"]
            .map(|name| json[name].as_u64());
        assert_eq!(bytes, [Some(5_000_000), Some(2_500_000), Some(2_500_000), Some(5_000_000)]);
    }

    #[test]
    fn numbers_that_mean_nothing_are_refused() {
        assert!(probability("1").is_err() && probability("0.1").is_ok());
        assert!(positive("0").is_err() && positive("inf").is_err() && positive("989").is_ok());
        assert!(Typed::try_parse_from(["test", "--batch", "0"]).is_err());
        let two_slots = typed(&["--preset", "stage1-stub", "--batch", "8", "--micro-batch", "4"]);
        let error = measure(&two_slots).unwrap_err().to_string();
        assert!(error.contains("one slot"), "{error}");
    }
}
