//! `bench generate`: tokens a second of a language model.

mod speed;

use std::path::PathBuf;
use std::time::Duration;

use blip2_model::language::LanguageSizes;
use blip2_model::language::llama::LlamaConfig;
use blip2_model::language::opt::OptConfig;
use blip2_model::language::t5::T5Config;
use clap::{Args, ValueEnum};
use serde::Serialize;

use self::speed::{WritingLoad, WritingSpeed, WritingTimes};
use super::printing::measure_and_print;
use super::rounds::median;
use crate::decoding::WeightDtype;
use crate::error::CliError;
use blip2_run::exit::Exit;

/// What writes, and how much.
#[derive(Debug, Clone, Args)]
pub(crate) struct GenerateArguments {
    /// Folder of a language model, or of a BLIP-2 model with one.
    #[arg(long, value_name = "DIR", conflicts_with = "preset")]
    model: Option<PathBuf>,
    /// Sizes of a model of random weights.
    #[arg(long, value_enum, default_value_t = Preset::Opt125m)]
    preset: Preset,
    /// Numbers that the model's matrices are kept in.
    #[arg(long, value_enum, default_value_t)]
    dtype: WeightDtype,
    /// Texts written at a time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096), value_name = "B")]
    batch: u32,
    /// Beams of each; 1 is greedy.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "N")]
    beams: u32,
    /// Positions read before each text; the default is the paper's queries and a short question.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=65536), value_name = "N")]
    prompt: u32,
    /// Tokens of each text.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=65536), value_name = "N")]
    tokens: u32,
    /// Rounds, after one to warm up; the medians are reported.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "R")]
    rounds: u32,
    /// Print the result as a JSON line.
    #[arg(long)]
    json: bool,
}

/// Published sizes of small language models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// OPT of 125 million weights.
    #[value(name = "opt-125m")]
    Opt125m,
    /// SmolLM2 of 135 million weights.
    #[value(name = "smollm2-135m")]
    SmolLm2,
    /// Flan-T5 of 77 million weights.
    FlanT5Small,
}

impl Preset {
    fn sizes(self) -> Box<dyn LanguageSizes> {
        match self {
            Self::Opt125m => Box::new(OptConfig::default()),
            Self::SmolLm2 => Box::new(LlamaConfig::smollm2_135m()),
            Self::FlanT5Small => Box::new(T5Config {
                intermediate: 1024,
                depth: 8,
                heads: 6,
                feed_forward_proj: "gated-gelu".into(),
                tie_word_embeddings: false,
                ..T5Config::default()
            }),
        }
    }
}

/// Medians over the rounds.
#[derive(Debug, PartialEq, Serialize)]
struct Report {
    model: String,
    parameters: usize,
    dtype: WeightDtype,
    batch: u32,
    beams: u32,
    prompt: u32,
    tokens: u32,
    /// Seconds to read the prompts and write the first token of each text.
    prefill_s: f64,
    /// Of all texts together, the first tokens aside; beams count once.
    tokens_per_s: f64,
}

pub(super) async fn run(arguments: GenerateArguments) -> Result<Exit, CliError> {
    let json = arguments.json;
    measure_and_print(json, move || measure(&arguments), text).await
}

fn measure(arguments: &GenerateArguments) -> Result<Report, CliError> {
    let narrow = arguments.dtype.narrow();
    let (name, writer) = match &arguments.model {
        Some(folder) => (folder.display().to_string(), WritingSpeed::open(folder, narrow)?),
        None => {
            let name = arguments.preset.to_possible_value().map(|value| value.get_name().to_owned());
            (name.unwrap_or_default(), WritingSpeed::random(&*arguments.preset.sizes(), narrow)?)
        }
    };
    let load = WritingLoad {
        batch: arguments.batch as usize,
        beams: arguments.beams as usize,
        prompt: arguments.prompt as usize,
        tokens: arguments.tokens as usize,
    };
    writer.measure(load)?;
    let rounds = (0..arguments.rounds).map(|_| writer.measure(load)).collect::<Result<Vec<_>, _>>()?;
    Ok(report(arguments, name, writer.parameters(), &rounds))
}

fn report(
    arguments: &GenerateArguments,
    model: String,
    parameters: usize,
    rounds: &[WritingTimes],
) -> Report {
    let median = |of: fn(&WritingTimes) -> Duration| {
        median(rounds.iter().map(|times| of(times).as_secs_f64()).collect())
    };
    let written = f64::from(arguments.batch) * f64::from(arguments.tokens - 1);
    Report {
        model,
        parameters,
        dtype: arguments.dtype,
        batch: arguments.batch,
        beams: arguments.beams,
        prompt: arguments.prompt,
        tokens: arguments.tokens,
        prefill_s: median(|times| times.prefill),
        tokens_per_s: written / median(|times| times.writing),
    }
}

fn text(report: &Report) -> String {
    let Report { model, parameters, dtype, batch, beams, prompt, tokens, prefill_s, tokens_per_s } = report;
    let dtype = dtype.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    format!(
        "{model}, {:.1} million weights in {dtype}: {batch} texts of {tokens} tokens with {beams} beams after {prompt} positions\n\
         first tokens {prefill_s:.3} s, then {tokens_per_s:.1} tokens/s\n",
        *parameters as f64 / 1e6
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Typed {
        #[command(flatten)]
        bench: GenerateArguments,
    }

    #[test]
    fn medians_are_reported_of_all_texts() {
        let typed = Typed::try_parse_from(["test", "--batch", "2", "--tokens", "11"]).unwrap();
        let times = |seconds| WritingTimes {
            prefill: Duration::from_secs(seconds),
            writing: Duration::from_secs(2 * seconds),
        };
        let report = report(&typed.bench, "m".into(), 7, &[times(9), times(1), times(5)]);
        assert_eq!((report.prefill_s, report.tokens_per_s), (5.0, 2.0));
        assert!(text(&report).contains("in f32: 2 texts") && text(&report).contains("2.0 tokens/s"));
        assert!(Typed::try_parse_from(["test", "--model", "x", "--preset", "opt-125m"]).is_err());
    }
}
