//! What was kept and dropped, and why: the figures of a job, from its scores.

use std::collections::BTreeMap;

use blip2_dataset::corpus::survey::thumbnail;
use blip2_dataset::error::Result;
use serde::Serialize;

use crate::finish::KEPT;
use crate::job::CurationJob;
use crate::scored::ScoredText;
use crate::select::{DropReason, SelectionSettings, select};

/// Tasks whose images are looked at for examples.
const EXAMPLE_TASKS: usize = 4;

/// What a job has done to the texts of its pool.
#[derive(Debug, Default, Serialize)]
pub struct CurationFigures {
    /// Rows in the input.
    pub rows: u64,
    /// Rows that were scored.
    pub scored: u64,
    /// Scored rows that keep a text.
    pub kept_rows: u64,
    /// By source and what became of them; [`KEPT`] is one of the names.
    pub texts: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// Of all runs that are recorded.
    pub rows_per_s: Option<f64>,
    /// At the price given.
    pub cost_per_million: Option<f64>,
    /// Cosines, by source.
    #[serde(skip)]
    pub clip: BTreeMap<&'static str, Vec<f64>>,
    /// Probabilities of a match, by source.
    #[serde(skip)]
    pub itm: BTreeMap<&'static str, Vec<f64>>,
    /// Some of the images.
    #[serde(skip)]
    pub examples: Vec<Example>,
}

/// An image with its texts, best first.
#[derive(Debug)]
pub struct Example {
    /// The row's name.
    pub key: String,
    /// A small JPEG.
    pub thumbnail: Vec<u8>,
    /// Its texts.
    pub texts: Vec<ExampleText>,
}

/// A text of an example.
#[derive(Debug)]
pub struct ExampleText {
    /// As it is stored.
    pub text: String,
    /// Where it comes from.
    pub source: &'static str,
    /// The cosine, or else the probability of a match.
    pub score: Option<f32>,
    /// Why it was dropped; `None`: it is kept.
    pub dropped: Option<&'static str>,
}

impl CurationFigures {
    /// Reads all scores of `job`, and the images of at most `examples` rows; `price_per_hour` is that of all
    /// machines.
    ///
    /// # Errors
    /// `StoreError::Failed`,
    /// [`DatasetError::Malformed`](blip2_dataset::error::DatasetError::Malformed), an input that changed.
    pub async fn read(job: &CurationJob, examples: usize, price_per_hour: Option<f64>) -> Result<Self> {
        let mut figures = Self { rows: job.rows(), ..Self::default() };
        let mut scored_tasks = Vec::new();
        for task in 0..job.tasks().len() as u64 {
            let Some(rows) = job.read_scored(task).await? else { continue };
            scored_tasks.push(task);
            rows.iter().for_each(|row| figures.count(&row.texts, &job.settings().selection));
        }
        let step = scored_tasks.len().div_ceil(EXAMPLE_TASKS).max(1);
        let chosen: Vec<u64> = scored_tasks.into_iter().step_by(step).collect();
        let share = examples.div_ceil(chosen.len().max(1));
        for task in chosen {
            figures.examples.extend(examples_of(job, task, share).await?);
        }
        figures.examples.truncate(examples);
        let runs = job.runs().await?;
        let rows: u64 = runs.iter().map(|run| run.rows).sum();
        let seconds: f64 = runs.iter().map(|run| run.seconds).sum();
        if rows > 0 && seconds > 0.0 {
            figures.rows_per_s = Some(rows as f64 / seconds);
            let million_hours = seconds / 3600.0 / rows as f64 * 1e6;
            figures.cost_per_million = price_per_hour.map(|price| price * million_hours);
        }
        Ok(figures)
    }

    fn count(&mut self, texts: &[ScoredText], selection: &SelectionSettings) {
        self.scored += 1;
        let mut keeps = false;
        for judged in select(texts, selection) {
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
async fn examples_of(job: &CurationJob, task: u64, count: usize) -> Result<Vec<Example>> {
    let Some(scored) = job.read_scored(task).await? else { return Ok(Vec::new()) };
    let read = job.read_task(task).await?;
    let step = read.rows.len().div_ceil(count.max(1)).max(1);
    let mut shown = Vec::new();
    for row in read.rows.iter().step_by(step) {
        let of_row = scored.iter().find(|scored| (scored.row_group, scored.row) == (row.row_group, row.row));
        // An image that is too long to be shown is left out.
        let (Some(of_row), Ok(thumbnail)) = (of_row, thumbnail(row.decode()?)) else { continue };
        let texts = select(&of_row.texts, &job.settings().selection).into_iter().map(|judged| ExampleText {
            source: judged.text.source.name(),
            score: judged.text.clip_score.or(judged.text.itm_score),
            dropped: judged.dropped.map(DropReason::name),
            text: judged.text.text,
        });
        shown.push(Example { key: row.key.clone(), thumbnail: thumbnail.to_vec(), texts: texts.collect() });
    }
    Ok(shown)
}
