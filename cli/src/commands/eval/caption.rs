//! `eval caption`: captions of a set's images, written and scored.

use std::collections::BTreeMap;
use std::path::PathBuf;

use blip2_evaluation::job::Phase;
use blip2_evaluation::metrics::captions::corpus::{Corpus, ImageCaptions};
use blip2_evaluation::presets::Written;
use blip2_evaluation::result_files;
use blip2_evaluation::row_id::RowId;
use blip2_evaluation::sets::captioned::{self, CaptionedImage};
use blip2_evaluation::sets::item::ItemSet;
use blip2_evaluation::writing::{WrittenText, from_lines};
use blip2_run::exit::Exit;
use blip2_worker::export::Layout;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::checkpoint;
use super::model::ModelFolder;
use super::read_ahead::ReadAhead;
use super::score::captions::{CaptionScorer, Tokenizer, unusable};
use super::set::{Evaluation, MAX_PIXELS, Pictured, SetArguments, for_workers};
use super::units::Session;
use super::writing::{WritingArguments, written_unit};
use crate::error::CliError;

#[derive(Debug, Args, Serialize, Deserialize)]
pub(crate) struct CaptionArguments {
    #[command(flatten)]
    pub(super) set: SetArguments,
    #[command(flatten)]
    writing: WritingArguments,
    /// What makes words of captions [default: ptb]: `ptb`, the native tokenizer, or `java:FOLDER`, with the
    /// toolkit's jar.
    #[arg(long, value_name = "TOKENIZER", value_parser = Tokenizer::parse, help_heading = "Scores")]
    #[serde(skip)]
    tokenizer: Option<Tokenizer>,
    /// Run METEOR, with the jar in this folder.
    #[arg(long, value_name = "FOLDER", help_heading = "Scores")]
    #[serde(skip)]
    meteor: Option<PathBuf>,
    /// Run SPICE, with the jar in this folder.
    #[arg(long, value_name = "FOLDER", help_heading = "Scores")]
    #[serde(skip)]
    spice: Option<PathBuf>,
}

/// What it is called.
pub(super) const TASK: &str = "caption";
/// Where units' captions are.
const CAPTIONS: Phase = Phase { folder: "captions", ending: "jsonl" };
/// The captions of all units, in COCO's form.
const RESULTS: &str = "results.json";

/// Writes captions and scores them, or measures a run's losses.
pub(super) async fn run(arguments: CaptionArguments) -> Result<Exit, CliError> {
    match arguments.set.is_of_checkpoint().await? {
        true => checkpoint::caption(&arguments.set).await,
        false => evaluate(arguments, Session::own()?).await,
    }
}

/// Writes captions, or this process's part of them, and scores them.
pub(super) async fn evaluate(arguments: CaptionArguments, session: Session) -> Result<Exit, CliError> {
    let typed = for_workers(&arguments);
    let CaptionArguments { set: of, writing, tokenizer, meteor, spice } = arguments;
    let model = ModelFolder::open(&of.model, Layout::HuggingFace).await?;
    let images = of.images.as_deref();
    let mut set = captioned::read(&of.data, images, &of.columns.names()?, MAX_PIXELS).await?;
    let writer = writing.of_folder(&model, &of, Written::Caption).await?;
    let (settings, mut notes) = (writer.settings.clone(), writer.notes.clone());
    let evaluation = Evaluation {
        task: TASK,
        arguments: typed,
        model: &model.digest,
        set: (set.digest(), set.items.len()),
        settings,
        phases: &[CAPTIONS],
    };
    let begun = of.begin(session, evaluation).await?;
    let mut kept = begun.computes().then_some(writer);
    let mut ahead = ReadAhead::default();
    let ended = begun.work(0, async |unit| {
        let items = set.items[unit.items.clone()].iter();
        let asked = items.map(|item| (item.row.id.clone(), String::new())).collect();
        ahead.compute(&mut set, unit, async |images| written_unit(&mut kept, images, asked).await).await
    });
    if let Some(exit) = ended.await? {
        return Ok(exit);
    }
    let rows: Vec<WrittenText> = begun.job().results(CAPTIONS, from_lines).await?;
    let results = result_files::captions(rows.iter().map(|row| (&row.key, row.text.as_str())));
    begun.keep(RESULTS, &results).await?;
    if set.items.iter().all(|item| item.row.captions.is_empty()) {
        eprintln!("{} captions are written; the set has none to compare them with", rows.len());
        return Ok(Exit::Done);
    }
    let corpus = corpus(&set, rows)?;
    begun.keep("references.json", &result_files::caption_references(corpus.images())).await?;
    let tokenizer = tokenizer.unwrap_or(Tokenizer::Native);
    let scorer = CaptionScorer { tokenizer, meteor, spice };
    let judged = scorer.judged(&corpus)?;
    notes.extend(scorer.notes());
    let places: BTreeMap<RowId, usize> =
        set.items.iter().enumerate().map(|(place, item)| (item.row.id.clone(), place)).collect();
    let items = corpus.images().iter().filter_map(|image| places.get(&image.image).copied()).collect();
    let pictured = Pictured { set: &mut set, items, results: RESULTS };
    of.show(&begun, ("caption", None), notes, judged, pictured).await
}

/// What was written beside what people wrote.
fn corpus(set: &ItemSet<CaptionedImage>, rows: Vec<WrittenText>) -> Result<Corpus, CliError> {
    let images = set.items.iter().zip(rows).map(|(item, row)| ImageCaptions {
        image: row.key,
        references: item.row.captions.clone(),
        hypothesis: row.text,
    });
    Corpus::new(images.collect()).map_err(unusable)
}
