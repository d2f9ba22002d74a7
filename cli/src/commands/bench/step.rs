//! `bench step`: seconds of a stage-1 training step over random image features.

use std::time::Duration;

use blip2_model::qformer::QFormerConfig;
use blip2_worker::{StubSizes, StubStep, StubTimes};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::commands::{print_json, print_text};
use crate::error::CliError;
use crate::exit::Exit;
use crate::process_memory::peak_bytes;

/// What is stepped.
#[derive(Debug, Clone, Args)]
pub(crate) struct StepArguments {
    /// Sizes of the model.
    #[arg(long, value_enum, default_value_t = Preset::Stage1Stub)]
    preset: Preset,
    /// Pairs in a step.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=4096), value_name = "B")]
    batch: u32,
    /// Steps, after one to warm up; the medians are reported.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "S")]
    steps: u32,
    /// Dropout probability in the Q-Former.
    #[arg(long, default_value_t = 0.0, value_parser = probability, value_name = "P")]
    dropout: f64,
    /// Print the result as a JSON line.
    #[arg(long)]
    json: bool,
}

/// Sizes of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// The paper's Q-Former over random features of 257×1408, as of ViT-g.
    Stage1Stub,
    /// The quick start's Q-Former over random features of 65×128.
    Stage1Quickstart,
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(probability) if (0.0..1.0).contains(&probability) => Ok(probability),
        _ => Err("a probability is at least 0 and below 1".to_owned()),
    }
}

impl Preset {
    fn sizes(self, batch: usize) -> StubSizes {
        match self {
            Self::Stage1Stub => StubSizes {
                qformer: QFormerConfig::new(1408),
                embed_dim: 256,
                positions: 257,
                text_length: 32,
                batch,
            },
            Self::Stage1Quickstart => StubSizes {
                qformer: QFormerConfig::new(128)
                    .with_hidden(128)
                    .with_layers(4)
                    .with_heads(4)
                    .with_intermediate(512)
                    .with_vocab(4096)
                    .with_max_positions(64)
                    .with_queries(8),
                embed_dim: 64,
                positions: 65,
                text_length: 16,
                batch,
            },
        }
    }
}

/// Medians over the steps.
#[derive(Debug, PartialEq, Serialize)]
struct Report {
    preset: String,
    batch: u32,
    steps: u32,
    parameters: usize,
    forward_s: f64,
    backward_s: f64,
    optimizer_s: f64,
    total_s: f64,
    samples_per_s: f64,
    /// Of the process, where the system tells it.
    peak_bytes: Option<u64>,
}

pub(super) async fn run(arguments: StepArguments) -> Result<Exit, CliError> {
    let json = arguments.json;
    let report = tokio::task::spawn_blocking(move || measure(&arguments))
        .await
        .map_err(|error| CliError::failed(format!("the measuring thread failed: {error}")))??;
    match json {
        true => print_json(&report)?,
        false => print_text(&text(&report))?,
    }
    Ok(Exit::Done)
}

fn measure(arguments: &StepArguments) -> Result<Report, CliError> {
    let mut sizes = arguments.preset.sizes(arguments.batch as usize);
    sizes.qformer.dropout = arguments.dropout;
    let mut stub = StubStep::new(sizes, 0, "cpu")?;
    stub.step()?;
    let steps = (0..arguments.steps).map(|_| stub.step()).collect::<Result<Vec<_>, _>>()?;
    Ok(report(arguments, stub.parameters(), &steps))
}

fn report(arguments: &StepArguments, parameters: usize, steps: &[StubTimes]) -> Report {
    let median = |of: &dyn Fn(&StubTimes) -> Duration| {
        let mut seconds: Vec<f64> = steps.iter().map(|times| of(times).as_secs_f64()).collect();
        seconds.sort_by(f64::total_cmp);
        // There is at least one step.
        seconds[seconds.len() / 2]
    };
    let total_s = median(&|times| times.forward + times.backward + times.optimizer);
    let name = arguments.preset.to_possible_value().map_or_else(String::new, |value| value.get_name().into());
    Report {
        preset: name,
        batch: arguments.batch,
        steps: arguments.steps,
        parameters,
        forward_s: median(&|times| times.forward),
        backward_s: median(&|times| times.backward),
        optimizer_s: median(&|times| times.optimizer),
        total_s,
        samples_per_s: f64::from(arguments.batch) / total_s,
        peak_bytes: peak_bytes(),
    }
}

fn text(report: &Report) -> String {
    let peak =
        report.peak_bytes.map_or_else(String::new, |peak| format!(", peak {:.2} GB", peak as f64 / 1e9));
    format!(
        "{} ({:.1}M parameters), batch {}: {:.3} s a step, {:.2} samples/s{peak}\n  forward {:.3} s, backward {:.3} s, \
         optimizer {:.3} s\n",
        report.preset,
        report.parameters as f64 / 1e6,
        report.batch,
        report.total_s,
        report.samples_per_s,
        report.forward_s,
        report.backward_s,
        report.optimizer_s
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_medians_of_each_part() {
        let arguments =
            StepArguments { preset: Preset::Stage1Stub, batch: 8, steps: 3, dropout: 0.0, json: false };
        let seconds = Duration::from_secs_f64;
        let step = |forward, backward| StubTimes {
            forward: seconds(forward),
            backward: seconds(backward),
            optimizer: seconds(0.5),
        };
        let report = report(&arguments, 10, &[step(1.0, 2.5), step(3.0, 2.0), step(2.0, 9.0)]);
        assert_eq!((report.forward_s, report.backward_s, report.total_s), (2.0, 2.5, 5.5));
        assert_eq!(report.preset, "stage1-stub");
        assert!(text(&report).contains("5.500 s a step, 1.45 samples/s"), "{}", text(&report));
    }

    #[test]
    fn the_stub_has_the_paper_s_size() {
        let sizes = Preset::Stage1Stub.sizes(8);
        assert_eq!((sizes.qformer.hidden, sizes.qformer.layers, sizes.qformer.vocab), (768, 12, 30_523));
        assert!(probability("1").is_err() && probability("0.1").is_ok());
    }
}
