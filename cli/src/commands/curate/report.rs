//! `curate report`: what was kept and dropped, and why.

use std::collections::BTreeMap;
use std::path::PathBuf;

use blip2_curation::finish::KEPT;
use blip2_curation::job::CurationJob;
use blip2_curation::scored::{ScoredText, TextSource};
use blip2_curation::select::{DropReason, select};
use blip2_dataset::corpus::survey::thumbnail;
use clap::Args;
use serde::Serialize;

use super::page::render;
use crate::commands::print_json;
use crate::error::CliError;
use crate::exit::Exit;
use crate::places::typed_location;
use crate::report::write_page;
use crate::typed_numbers;

/// Tasks whose pictures are looked at for examples.
const EXAMPLE_TASKS: usize = 4;

#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    /// Folder or prefix of the curation.
    #[arg(value_name = "DIR_OR_URL")]
    output: String,
    /// The page.
    #[arg(long, value_name = "FILE", default_value = "curation.html")]
    out: PathBuf,
    /// Pictures shown with their texts.
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = typed_numbers::count)]
    pictures: usize,
    /// What an hour of all machines costs, for the cost of a million pictures.
    #[arg(long, value_name = "PRICE", value_parser = typed_numbers::price)]
    price_per_hour: Option<f64>,
    /// Print the figures as a JSON line.
    #[arg(long)]
    json: bool,
}

/// What the page shows.
#[derive(Debug, Default, Serialize)]
pub(super) struct Figures {
    /// Rows in the input.
    pub(super) rows: u64,
    /// Rows that were scored.
    pub(super) scored: u64,
    /// Scored rows that keep a text.
    pub(super) kept_rows: u64,
    /// By source and what became of them; `kept` is one of the names.
    pub(super) texts: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// Of all runs that are recorded.
    pub(super) rows_per_s: Option<f64>,
    /// At the price given.
    pub(super) cost_per_million: Option<f64>,
    #[serde(skip)]
    pub(super) clip: BTreeMap<&'static str, Vec<f64>>,
    #[serde(skip)]
    pub(super) itm: BTreeMap<&'static str, Vec<f64>>,
    #[serde(skip)]
    pub(super) examples: Vec<Example>,
}

/// A picture with its texts, best first.
#[derive(Debug)]
pub(super) struct Example {
    pub(super) key: String,
    pub(super) thumbnail: Vec<u8>,
    /// Text, source, score that decides, and why it was dropped.
    pub(super) texts: Vec<(String, &'static str, Option<f32>, Option<&'static str>)>,
}

/// Reads the scores and draws the page.
pub(super) async fn run(arguments: ReportArguments) -> Result<Exit, CliError> {
    let job = CurationJob::open(&typed_location(&arguments.output)?).await?;
    let mut figures = Figures { rows: job.rows(), ..Figures::default() };
    let mut scored_tasks = Vec::new();
    for task in 0..job.tasks().len() as u64 {
        let Some(rows) = job.read_scored(task).await? else { continue };
        scored_tasks.push(task);
        rows.iter().for_each(|row| figures.count(&row.texts, &job));
    }
    let step = scored_tasks.len().div_ceil(EXAMPLE_TASKS).max(1);
    let chosen: Vec<u64> = scored_tasks.into_iter().step_by(step).collect();
    let share = arguments.pictures.div_ceil(chosen.len().max(1));
    for task in chosen {
        figures.examples.extend(examples(&job, task, share).await?);
    }
    figures.examples.truncate(arguments.pictures);
    let runs = job.runs().await?;
    let rows: u64 = runs.iter().map(|run| run.rows).sum();
    let seconds: f64 = runs.iter().map(|run| run.seconds).sum();
    if rows > 0 && seconds > 0.0 {
        figures.rows_per_s = Some(rows as f64 / seconds);
        let million_hours = seconds / 3600.0 / rows as f64 * 1e6;
        figures.cost_per_million = arguments.price_per_hour.map(|price| price * million_hours);
    }
    write_page(&render(&figures), &arguments.out)?;
    match arguments.json {
        true => print_json(&figures)?,
        false => eprintln!(
            "{}: {} of {} rows keep a text",
            arguments.out.display(),
            figures.kept_rows,
            figures.scored
        ),
    }
    Ok(Exit::Done)
}

impl Figures {
    fn count(&mut self, texts: &[ScoredText], job: &CurationJob) {
        self.scored += 1;
        let mut keeps = false;
        for judged in select(texts, &job.settings().selection) {
            let source = judged.text.source.name();
            let name = judged.dropped.map_or(KEPT, DropReason::name);
            *self.texts.entry(source).or_default().entry(name).or_insert(0) += 1;
            keeps |= judged.dropped.is_none();
            for (scores, score) in
                [(&mut self.clip, judged.text.clip_score), (&mut self.itm, judged.text.itm_score)]
            {
                if let Some(score) = score.filter(|score| score.is_finite()) {
                    scores.entry(source).or_default().push(f64::from(score));
                }
            }
        }
        self.kept_rows += u64::from(keeps);
    }
}

/// Evenly spaced rows of a task.
async fn examples(job: &CurationJob, task: u64, count: usize) -> Result<Vec<Example>, CliError> {
    let Some(scored) = job.read_scored(task).await? else { return Ok(Vec::new()) };
    let read = job.read_task(task).await?;
    let step = read.rows.len().div_ceil(count.max(1)).max(1);
    let mut shown = Vec::new();
    for row in read.rows.iter().step_by(step) {
        let of_row = scored.iter().find(|scored| (scored.row_group, scored.row) == (row.row_group, row.row));
        // A picture that is too long to be shown is left out.
        let (Some(of_row), Ok(thumbnail)) = (of_row, thumbnail(row.decode()?)) else { continue };
        let texts = select(&of_row.texts, &job.settings().selection).into_iter().map(|judged| {
            let ScoredText { text, source, clip_score, itm_score } = judged.text;
            let source: TextSource = source;
            (text, source.name(), clip_score.or(itm_score), judged.dropped.map(DropReason::name))
        });
        shown.push(Example { key: row.key.clone(), thumbnail: thumbnail.to_vec(), texts: texts.collect() });
    }
    Ok(shown)
}
