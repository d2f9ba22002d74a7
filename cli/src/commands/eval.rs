//! `eval`: how good a model is on images it was not trained on, and how good anybody's results are.

mod caption;
mod checkpoint;
mod columns;
pub(crate) mod held_out;
mod itm;
mod leased;
mod model;
mod read_ahead;
mod retrieval;
mod score;
mod set;
mod units;
mod vqa;
mod worker;
mod writing;

use blip2_run::exit::Exit;
use clap::Args;
use clap::Subcommand;

use crate::error::CliError;
use caption::CaptionArguments;
use itm::ItmArguments;
use retrieval::RetrievalArguments;
use score::ScoreArguments;
use vqa::VqaArguments;
use worker::WorkerArguments;

#[derive(Debug, Args)]
pub(crate) struct EvalArguments {
    #[command(subcommand)]
    pub(crate) command: EvalCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Rank a set's texts for its images, and images for texts: by cosine, and anew by the matching head.
    ///
    /// Of a run without --out: R@1, R@5 and R@10 of one caption an image, by cosine alone.
    Retrieval(Box<RetrievalArguments>),
    /// Write a caption of every image of a set, and score them.
    ///
    /// Of a run without --out: losses of the captions with their images, with shuffled ones and with none.
    Caption(Box<CaptionArguments>),
    /// Answer the questions of a set, and score the answers.
    ///
    /// Of a run that was trained to answer, without --out: accuracy of the answers with their images and with
    /// others'.
    Vqa(Box<VqaArguments>),
    /// Score the pairs of a set: how well each text goes with its image.
    Itm(Box<ItmArguments>),
    /// Compute units of an evaluation that another process hands out (`--workers`, `--listen`).
    Worker(Box<WorkerArguments>),
    /// Score results that are already there, whoever's model wrote them.
    Score(Box<ScoreArguments>),
}

/// Evaluates a model on a set, or scores results.
pub(crate) async fn run(arguments: EvalArguments) -> Result<Exit, CliError> {
    match arguments.command {
        EvalCommand::Retrieval(arguments) => retrieval::run(*arguments).await,
        EvalCommand::Caption(arguments) => caption::run(*arguments).await,
        EvalCommand::Vqa(arguments) => vqa::run(*arguments).await,
        EvalCommand::Itm(arguments) => itm::run(*arguments).await,
        EvalCommand::Worker(arguments) => worker::run(*arguments).await,
        EvalCommand::Score(arguments) => score::run(&arguments).await,
    }
}
