//! The commands that can be typed; what each takes is declared where it is done.

use clap::{Parser, Subcommand};

use crate::bench::BenchArguments;
use crate::commands::audit::AuditArguments;
use crate::commands::chat::ChatArguments;
use crate::commands::checkpoint::CheckpointArguments;
use crate::commands::completions::{CompletionsArguments, ManArguments};
use crate::commands::config::ConfigCommandArguments;
use crate::commands::coordinator::CoordinatorArguments;
use crate::commands::corpus::CorpusArguments;
use crate::commands::curate::CurateArguments;
use crate::commands::devices::DevicesArguments;
use crate::commands::doctor::DoctorArguments;
use crate::commands::eval::EvalArguments;
use crate::commands::generate::GenerateArguments;
use crate::commands::models::ModelsArguments;
use crate::commands::plan::PlanArguments;
use crate::commands::quickstart::arguments::QuickstartArguments;
use crate::commands::report::ReportArguments;
use crate::commands::status::StatusArguments;
use crate::commands::stop::StopArguments;
use crate::commands::trace::TraceArguments;
use crate::commands::train::TrainArguments;
use crate::commands::worker::WorkerArguments;
use crate::logging::LogFormat;

/// Pre-trains, evaluates and exports BLIP-2.
#[derive(Debug, Parser)]
#[command(name = "blip2", version, propagate_version = true)]
pub(crate) struct Arguments {
    /// How lines on standard error look; with `json` there are JSON lines alone. `BLIP2_LOG` filters the log
    /// (default `warn`; `info` for `coordinator`, `worker` and JSON).
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train both stages on composed scenes or on the emoji corpus, export, evaluate and write a report.
    Quickstart(QuickstartArguments),
    /// Train on this machine: a coordinator and worker processes.
    Train(TrainArguments),
    /// Run the coordinator alone; workers on any machine join it.
    Coordinator(CoordinatorArguments),
    /// Run one worker of a coordinator's run.
    Worker(WorkerArguments),
    /// Say what a run will take before it is started: time, memory, bytes, money, and what bounds it.
    Plan(PlanArguments),
    /// Ask whether this machine, its store and its network are as a run needs them.
    Doctor(Box<DoctorArguments>),
    /// Show a run's members, step, losses and speed, or how it ended.
    Status(StatusArguments),
    /// Save a run and end it, whoever leads it.
    Stop(StopArguments),
    /// Write what every member of a run did when in its last steps, as a trace for Perfetto.
    Trace(TraceArguments),
    /// List, check, hash or export the checkpoints of a run.
    Checkpoint(CheckpointArguments),
    /// Write a page on a run: curves, throughput, configuration, faults, audit.
    Report(ReportArguments),
    /// Recompute from the store which rows the committed steps used, and compare with every checkpoint.
    Audit(AuditArguments),
    /// Measure a model on images it was not trained on, or score results.
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
    /// Whether it is a process of a cluster, whose log is all that is seen of it.
    pub(crate) fn is_unattended(&self) -> bool {
        matches!(self, Self::Coordinator(_) | Self::Worker(_))
    }

    /// Whether this process itself computes training steps.
    pub(crate) fn trains(&self) -> bool {
        match self {
            Self::Worker(_) => true,
            Self::Bench(arguments) => arguments.trains(),
            _ => false,
        }
    }
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
