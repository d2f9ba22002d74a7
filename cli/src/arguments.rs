//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use blip2_model::device::DeviceName;
use blip2_proto::bounds::{MAX_IDENTIFIER, is_identifier};
use blip2_proto::transport::{advertised, listening};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::bench::BenchArguments;
use crate::commands::completions::{CompletionsArguments, ManArguments};
use crate::commands::corpus::CorpusArguments;
use crate::commands::curate::CurateArguments;
use crate::commands::devices::DevicesArguments;
use crate::commands::eval::score::ScoreArguments;
use crate::commands::models::ModelsArguments;
use crate::config::ConfigArguments;
use crate::decoding::DecodingArguments;
use crate::tls::TlsArguments;
use crate::typed_numbers::{seconds, seconds_or_none, threads};

/// Pre-trains, evaluates and exports BLIP-2.
#[derive(Debug, Parser)]
#[command(name = "blip2", version, propagate_version = true)]
pub(crate) struct Arguments {
    /// How log lines on standard error look; `BLIP2_LOG` filters them (default `warn`).
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train both stages on the emoji corpus of `assets/`, export, evaluate and write a report.
    Quickstart(QuickstartArguments),
    /// Train on this machine: a coordinator and worker processes.
    Train(TrainArguments),
    /// Run the coordinator alone; workers on any machine join it.
    Coordinator(CoordinatorArguments),
    /// Run one worker of a coordinator's run.
    Worker(WorkerArguments),
    /// Show a run's members, step, losses and speed, or how it ended.
    Status(StatusArguments),
    /// List, check, hash or export the checkpoints of a run.
    Checkpoint(CheckpointArguments),
    /// Write a page on a run: curves, throughput, configuration, faults, audit.
    Report(ReportArguments),
    /// Recompute from the store which rows the committed steps used, and compare with every checkpoint.
    Audit(AuditArguments),
    /// Measure a run on Parquet files it was not trained on.
    Eval(EvalArguments),
    /// Write texts for images with an exported model.
    Generate(GenerateArguments),
    /// Look at a corpus before it is trained on.
    Corpus(CorpusArguments),
    /// Caption, score and filter the texts of a pool of pictures (CapFilt).
    Curate(Box<CurateArguments>),
    /// Download the published models that a run needs, and check those of a configuration.
    Models(ModelsArguments),
    /// List the devices that this build finds on this machine, and what workers would take.
    Devices(DevicesArguments),
    /// Answer questions about a picture, read from standard input line by line.
    Chat(ChatArguments),
    /// Measure parts of the program on this machine.
    Bench(BenchArguments),
    /// Show the configuration with the origin of every value, or its JSON Schema.
    Config(ConfigCommandArguments),
    /// Print the script that completes commands in a shell.
    Completions(CompletionsArguments),
    /// Write the manual pages.
    Man(ManArguments),
}

impl Command {
    /// Whether this process itself computes training steps.
    pub(crate) fn trains(&self) -> bool {
        match self {
            Self::Worker(_) => true,
            Self::Bench(arguments) => arguments.trains(),
            _ => false,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct QuickstartArguments {
    /// Folder that gets `report.html`, `run/` and `export/`.
    #[arg(long, default_value = "quickstart", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Set one value of the configuration; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Device to compute on: `auto`, `cpu`, `cuda`, `cuda:N`, `vulkan` or `vulkan:N`; same as
    /// `--set train.device=DEVICE`.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceName>,
    /// Continue the quick start in `--out`: what is trained is not trained again; starts it where there is
    /// none.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Print progress and the summary as JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TrainArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// Worker processes; same as `--set coordinator.workers=N`. Where nobody says how many: one for each
    /// card.
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<u32>,
    /// Device to compute on: `auto`, `cpu`, `cuda`, `cuda:N`, `vulkan` or `vulkan:N`; same as
    /// `--set train.device=DEVICE`.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceName>,
    /// Continue the run in `run.root` from its newest checkpoint; starts it where there is none.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Print progress and the summary as JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CoordinatorArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// Address to listen on; port 0 takes a free one, printed as a JSON line.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7100", value_parser = listening)]
    pub(crate) listen: SocketAddr,
    /// File with the run token that workers must show; required for listening beyond this machine.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// URL under which workers and coordinators that stand by reach this one, where that is not its
    /// `--listen` address.
    #[arg(long, value_name = "URL", value_parser = advertised_url)]
    pub(crate) advertise: Option<String>,
    /// Continue the run in `run.root`, with the workers that are in it or from its newest checkpoint; starts
    /// it where there is none. A coordinator that leads it is fenced off.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Stand by: wait for the run, watch the coordinator that leads it, and take over when it is silent. With
    /// `--resume`, lead at once where nobody does.
    #[arg(long)]
    pub(crate) standby: bool,
    /// Print progress and the summary as JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WorkerArguments {
    /// The coordinators, the leading one and those that stand by, for example `http://10.0.0.1:7100`; may be
    /// repeated or a list with commas.
    #[arg(long, value_name = "URL", required = true, value_delimiter = ',')]
    pub(crate) coordinator: Vec<String>,
    /// Address for other workers to reach this one; port 0 takes a free one, printed as a JSON line.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", value_parser = listening)]
    pub(crate) listen: SocketAddr,
    /// File with the run token; required for listening beyond this machine.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Name for logs and the status page.
    #[arg(long, default_value = "worker", value_parser = name)]
    pub(crate) name: String,
    /// Compute threads; 0 takes all cores.
    #[arg(long, default_value_t = 0, value_parser = threads)]
    pub(crate) threads: usize,
    /// Device to compute on: `auto`, `cpu`, `cuda`, `cuda:N`, `vulkan` or `vulkan:N`; without it, the one of
    /// the run's configuration. Of several cards a task of Slurm takes the one of its number.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceName>,
    /// Host and port under which other workers reach this one, where that is not its `--listen` address.
    #[arg(long, value_name = "HOST:PORT", value_parser = advertised)]
    pub(crate) advertise: Option<String>,
    /// Seconds to try to reach the coordinator and to be taken in.
    #[arg(long, default_value_t = 120.0, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) join_timeout: f64,
    /// Seconds to look for a coordinator after the connection was lost, with the state kept; 0 ends at once.
    #[arg(long, default_value_t = 300.0, value_name = "SECONDS", value_parser = seconds_or_none)]
    pub(crate) reconnect_timeout: f64,
    #[command(flatten)]
    pub(crate) tls: TlsArguments,
    /// Configuration this worker insists on; without it, it takes the coordinator's.
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// A run (folder or URL), or its coordinator's address, for example `http://127.0.0.1:7100`.
    #[arg(value_name = "RUN_OR_ADDRESS")]
    pub(crate) target: String,
    /// Show again every second until the run ends: in place on a terminal, else a line whenever there is
    /// news.
    #[arg(long)]
    pub(crate) watch: bool,
    /// File with the run token, for a coordinator that was started with one.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) tls: TlsArguments,
    /// Print JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    /// A run (folder or URL), whether it has ended or not.
    pub(crate) run: String,
    /// The page to write [default: report.html in the run's folder, or here for a run in an object store]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Print a summary as a JSON line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckpointArguments {
    #[command(subcommand)]
    pub(crate) command: CheckpointCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CheckpointCommand {
    /// List the checkpoints of a run.
    Ls(CheckpointTarget),
    /// Read everything back, the list of quarantined rows included; compare length and BLAKE3, and look for
    /// NaN.
    Verify(CheckpointTarget),
    /// Print one BLAKE3 over all trainable parameters, in path order, and the step.
    Digest(CheckpointTarget),
    /// Write a folder that Hugging Face `transformers` loads, or a file that LAVIS loads.
    Export(ExportArguments),
    /// Make a run whose first checkpoint is published weights; `train --resume` starts from them.
    Import(ImportArguments),
}

#[derive(Debug, Args)]
pub(crate) struct CheckpointTarget {
    /// A run (folder or URL; its newest checkpoint is meant) or one of its checkpoints.
    #[arg(value_name = "RUN_OR_FOLDER")]
    pub(crate) target: String,
    /// Print JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    #[command(flatten)]
    pub(crate) checkpoint: CheckpointTarget,
    /// Folder to write, or with `--layout lavis` a file that ends in .pth or .safetensors; it must not exist
    /// yet.
    #[arg(long, value_name = "PATH")]
    pub(crate) out: PathBuf,
    /// What to write.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) layout: LayoutArgument,
    /// Numbers of the weights.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) dtype: PrecisionArgument,
    /// Largest weight file of a folder, e.g. 500MB; larger models are written in shards.
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = parse_size)]
    pub(crate) shard_size: u64,
}

/// A published layout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayoutArgument {
    /// `Blip2ForConditionalGeneration` with its processor, from a stage-2 checkpoint.
    #[default]
    Huggingface,
    /// `Blip2ForImageTextRetrieval` with its processor, from a stage-1 checkpoint.
    Retrieval,
    /// LAVIS's names: what the checkpoint's stage trains.
    Lavis,
}

/// Numbers of written weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionArgument {
    /// Float32, as trained.
    #[default]
    F32,
    /// Half precision.
    F16,
    /// The upper half of float32.
    Bf16,
}

/// A number of bytes with a decimal unit.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        unit => return Err(format!("unit `{unit}` is unknown; use B, KB, MB or GB")),
    };
    let number: u64 = digits.trim().parse().map_err(|_| format!("`{text}` is not a size like 5GB"))?;
    number
        .checked_mul(factor)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("`{text}` is not a usable size"))
}

/// Published weights become the first checkpoint of a new run.
#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// Folder or URL of the run to make: its configuration is that of `--config`, with this root.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// The weights: a folder of `Blip2ForConditionalGeneration` (stage 2) or `Blip2ForImageTextRetrieval`
    /// (stage 1), or LAVIS's file (.pth or .safetensors) of either stage. Paths and URLs.
    #[arg(long, value_name = "FOLDER_OR_FILE")]
    pub(crate) from: String,
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// Print the result as a JSON line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AuditArguments {
    /// A run (folder or URL).
    #[arg(value_name = "RUN", required_unless_present = "simulate")]
    pub(crate) run: Option<String>,
    /// Print the result as a JSON line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Measure an audit of one epoch of a corpus that is made up.
    #[arg(long, conflicts_with = "run")]
    pub(crate) simulate: bool,
    /// Its files.
    #[arg(long, default_value_t = 13_000, requires = "simulate", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) files: u32,
    /// Row groups of each.
    #[arg(long, default_value_t = 10, requires = "simulate", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) row_groups: u32,
    /// Rows of each of these.
    #[arg(long, default_value_t = 993, requires = "simulate", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rows_per_group: u32,
}

#[derive(Debug, Args)]
pub(crate) struct EvalArguments {
    #[command(subcommand)]
    pub(crate) command: EvalCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Rank the captions of a file for each of its pictures: R@1, R@5, R@10.
    Retrieval(EvalTarget),
    /// Loss of the file's captions with their pictures, with shuffled ones and with none.
    Caption(EvalTarget),
    /// Score results that are already there, whoever's model wrote them.
    Score(Box<ScoreArguments>),
}

#[derive(Debug, Args)]
pub(crate) struct EvalTarget {
    /// A run (folder or URL), or one of its checkpoints.
    #[arg(long, value_name = "RUN_OR_FOLDER")]
    pub(crate) model: String,
    /// Parquet file or URL with pictures and captions; may be repeated.
    #[arg(long, value_name = "F", required = true)]
    pub(crate) data: Vec<String>,
    /// Device to compute on: `auto`, `cpu`, `cuda`, `cuda:N`, `vulkan` or `vulkan:N`; without it, the one the
    /// run was trained on.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceName>,
    /// Print the result as a JSON line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A model that writes, and how.
#[derive(Debug, Args)]
pub(crate) struct WriterArguments {
    /// An exported model: a folder or a URL.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: String,
    /// Device to compute on: `auto`, `cpu`, `cuda`, `cuda:N`, `vulkan` or `vulkan:N`.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub(crate) device: DeviceName,
    #[command(flatten)]
    pub(crate) decoding: DecodingArguments,
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArguments {
    #[command(flatten)]
    pub(crate) writer: WriterArguments,
    /// Image file; may be repeated.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub(crate) image: Vec<PathBuf>,
    /// Text that is continued.
    #[arg(long, default_value = "")]
    pub(crate) prompt: String,
    /// Texts for each image, with `--sample`.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000), value_name = "N")]
    pub(crate) samples: u64,
    /// Print one JSON line a text.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ChatArguments {
    #[command(flatten)]
    pub(crate) writer: WriterArguments,
    /// The picture to talk about.
    #[arg(long, value_name = "FILE")]
    pub(crate) image: PathBuf,
    /// Print one JSON line a turn.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigCommandArguments {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every value with its origin.
    Show {
        #[command(flatten)]
        config: ConfigArguments,
        /// Print JSON lines.
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of configuration files.
    Schema,
}

/// A URL under which a coordinator is reached.
fn advertised_url(text: &str) -> Result<String, String> {
    if !text.contains("://") {
        return Err(format!("a URL is needed, for example http://{text}"));
    }
    advertised(text).map_err(|error| error.to_string())
}

/// A name that can be shown.
fn name(text: &str) -> Result<String, String> {
    if is_identifier(text) {
        return Ok(text.to_owned());
    }
    Err(format!("a name is one line of at most {MAX_IDENTIFIER} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_coordinators_may_be_named_in_two_ways() {
        let parse = |arguments: &[&str]| {
            let all = [&["blip2", "worker"], arguments].concat();
            match Arguments::try_parse_from(all).map(|parsed| parsed.command) {
                Ok(Command::Worker(worker)) => Ok((worker.coordinator, worker.reconnect_timeout)),
                Ok(_) => panic!("not a worker"),
                Err(error) => Err(error.to_string()),
            }
        };
        let (urls, timeout) = parse(&["--coordinator", "http://a:1,http://b:2"]).unwrap();
        assert_eq!(
            (urls.as_slice(), timeout),
            (&["http://a:1".to_owned(), "http://b:2".to_owned()][..], 300.0)
        );
        let (urls, timeout) =
            parse(&["--coordinator=a:1", "--coordinator", "b:2", "--reconnect-timeout", "0"]).unwrap();
        assert_eq!((urls.as_slice(), timeout), (&["a:1".to_owned(), "b:2".to_owned()][..], 0.0));
        assert!(parse(&[]).unwrap_err().contains("--coordinator"));
        assert!(parse(&["--coordinator=a:1", "--reconnect-timeout=-1"]).is_err());
    }
}
