//! `eval`: how good a model is on images it was not trained on, and how good anybody's results are.

mod caption;
mod checkpoint;
mod itm;
mod model;
mod retrieval;
mod score;
mod set;
mod vqa;
mod writing;

use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::samples::{Sample, read_all};
use blip2_evaluation::retrieval::Retrieval;
use blip2_pages::quickstart_page::RetrievalScores;
use blip2_run::exit::Exit;
use blip2_worker::evaluate;
use blip2_worker::settings::train::StepSettings;
use clap::Args;
use clap::Subcommand;

use crate::error::CliError;
use caption::CaptionArguments;
use itm::ItmArguments;
use retrieval::RetrievalArguments;
use score::ScoreArguments;
use vqa::VqaArguments;

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
    Vqa(Box<VqaArguments>),
    /// Score the pairs of a set: how well each text goes with its image.
    Itm(Box<ItmArguments>),
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
        EvalCommand::Score(arguments) => score::run(&arguments),
    }
}

/// The usable rows of evaluation files; what is not usable is said and left out.
pub(crate) async fn held_out(
    sources: &[String],
    columns: &ColumnNames,
    max_pixels: u64,
) -> Result<Vec<Sample>, CliError> {
    let set = read_all(sources, columns, max_pixels).await?;
    if let Some(first) = set.quarantined.first() {
        eprintln!(
            "warning: {} rows are left out; the first is row {} of row group {} of {}: {}",
            set.quarantined.len(),
            first.row,
            first.row_group,
            first.file,
            first.reason
        );
    }
    if set.not_downloaded > 0 {
        eprintln!("{} rows were not downloaded and are passed over", set.not_downloaded);
    }
    Ok(set.samples)
}

/// Retrieval, without a CLIP to compare with.
pub(crate) fn retrieval_scores(measured: Retrieval) -> RetrievalScores {
    RetrievalScores {
        ours: measured.recall,
        clip: None,
        chance: measured.chance,
        names: measured.texts,
        pictures: measured.images,
    }
}

/// Retrieval by the frozen CLIP in a folder.
pub(crate) fn clip_recall(
    folder: &str,
    train: &StepSettings,
    samples: &[Sample],
) -> Result<[f64; 3], CliError> {
    Ok(evaluate::clip_retrieval(folder.as_ref(), train, samples)?.recall)
}
