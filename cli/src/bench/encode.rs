//! `bench encode`: pictures a second of a frozen image encoder.

use std::time::Instant;

use blip2_model::objectives::flops::image_encoder;
use blip2_model::vision::{ClipVisionConfig, EncoderSizes, EvaConfig, ImageEncoder};
use blip2_worker::WorkerError;
use blip2_worker::open::{device, placement};
use blip2_worker::settings::model::ModelSettings;
use burn::tensor::{Device, ExecutionError, Int, Tensor};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::printing::measure_and_print;
use super::rounds::median;
use crate::error::CliError;
use blip2_run::exit::Exit;
use blip2_telemetry::process::peak_memory_bytes;

/// What encodes, and how much.
#[derive(Debug, Clone, Args)]
pub(crate) struct EncodeArguments {
    /// Sizes of an encoder of random weights.
    #[arg(long, value_enum, default_value_t = Preset::VitG)]
    preset: Preset,
    /// Device: cpu, cuda[:N], vulkan[:N] or auto.
    #[arg(long, default_value = "cpu", value_name = "NAME")]
    device: String,
    /// Pictures encoded at a time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096), value_name = "B")]
    batch: u32,
    /// Rounds, after one to warm up; the median is reported.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "R")]
    rounds: u32,
    /// Print the result as a JSON line.
    #[arg(long)]
    json: bool,
}

/// Published sizes, at 224 pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// EVA-CLIP's ViT-g/14, the paper's.
    VitG,
    /// CLIP's ViT-L/14.
    VitL,
}

impl Preset {
    /// As it is typed.
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().into())
    }

    fn sizes(self) -> EncoderSizes {
        match self {
            Self::VitG => EncoderSizes::Eva(EvaConfig::default()),
            Self::VitL => EncoderSizes::Clip(ClipVisionConfig::vit_l_14()),
        }
    }
}

/// The median over the rounds.
#[derive(Debug, PartialEq, Serialize)]
struct Report {
    preset: String,
    device: String,
    batch: u32,
    /// Seconds of one batch.
    seconds: f64,
    images_per_s: f64,
    /// Of the encoder's matrix products, by formula.
    tflop: f64,
    tflops: f64,
    /// Most bytes of the process, where the system tells it.
    peak_bytes: Option<u64>,
}

pub(super) async fn run(arguments: EncodeArguments) -> Result<Exit, CliError> {
    let json = arguments.json;
    measure_and_print(json, move || measure(&arguments), text).await
}

fn measure(arguments: &EncodeArguments) -> Result<Report, CliError> {
    let sizes = arguments.preset.sizes();
    let device = device(&arguments.device, false)?;
    let encoder = ImageEncoder::random(&sizes, &placement(&ModelSettings::default(), &device)?)
        .map_err(WorkerError::from)?;
    let seconds = rounds(&encoder, arguments, &device)?;
    Ok(report(arguments, &sizes, seconds))
}

/// Seconds of each round but the first.
fn rounds(
    encoder: &ImageEncoder,
    arguments: &EncodeArguments,
    device: &Device,
) -> Result<Vec<f64>, CliError> {
    let (batch, size) = (arguments.batch as usize, encoder.image_size());
    let values = Tensor::<1, Int>::arange(0..(batch * 3 * size * size) as i64, device).float().sin();
    let pixels = values.reshape([batch, 3, size, size]);
    let failed = |error: ExecutionError| WorkerError::Protocol(format!("the device: {error}"));
    let round = || -> Result<f64, WorkerError> {
        device.sync().map_err(failed)?;
        let started = Instant::now();
        let features = encoder.forward(pixels.clone())?;
        device.sync().map_err(failed)?;
        drop(features);
        Ok(started.elapsed().as_secs_f64())
    };
    round()?;
    Ok((0..arguments.rounds).map(|_| round()).collect::<Result<_, _>>()?)
}

fn report(arguments: &EncodeArguments, sizes: &EncoderSizes, rounds: Vec<f64>) -> Report {
    let seconds = median(rounds);
    let tflop = image_encoder(sizes).forward as f64 * f64::from(arguments.batch) / 1e12;
    Report {
        preset: arguments.preset.name(),
        device: arguments.device.clone(),
        batch: arguments.batch,
        seconds,
        images_per_s: f64::from(arguments.batch) / seconds,
        tflop,
        tflops: tflop / seconds,
        peak_bytes: peak_memory_bytes(),
    }
}

fn text(report: &Report) -> String {
    let memory = report.peak_bytes;
    let memory = memory.map_or_else(String::new, |bytes| format!(", process {:.2} GB", bytes as f64 / 1e9));
    format!(
        "{} on {}: {} pictures in {:.3} s, {:.2} pictures/s\n  {:.2} TFLOP, {:.3} TFLOP/s{memory}\n",
        report.preset,
        report.device,
        report.batch,
        report.seconds,
        report.images_per_s,
        report.tflop,
        report.tflops,
    )
}

#[cfg(test)]
mod tests {
    use blip2_tensors::device::placement::Placement;
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Typed {
        #[command(flatten)]
        bench: EncodeArguments,
    }

    fn typed(arguments: &[&str]) -> EncodeArguments {
        Typed::try_parse_from(["test"].iter().chain(arguments)).unwrap().bench
    }

    #[test]
    fn the_median_is_reported_with_the_rate_of_the_formula() {
        let arguments = typed(&["--batch", "2"]);
        let sizes = arguments.preset.sizes();
        let report = report(&arguments, &sizes, vec![9.0, 1.0, 4.0]);
        assert_eq!((report.seconds, report.images_per_s), (4.0, 0.5));
        // ViT-g/14 at 224 pixels without its last block: about 0.52 TFLOP a picture.
        assert!((0.9..1.2).contains(&report.tflop), "{}", report.tflop);
        assert!(text(&report).contains("0.50 pictures/s"));
    }

    #[test]
    fn every_round_but_the_first_is_timed() {
        let device = Device::flex();
        let sizes = EvaConfig { width: 8, depth: 1, heads: 2, intermediate: 8, ..EvaConfig::default() };
        let encoder = ImageEncoder::random(&EncoderSizes::Eva(sizes), &Placement::from(&device)).unwrap();
        let seconds = rounds(&encoder, &typed(&["--batch", "1", "--rounds", "2"]), &device).unwrap();
        assert!(seconds.len() == 2 && seconds.iter().all(|seconds| *seconds > 0.0));
    }
}
