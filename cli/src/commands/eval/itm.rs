//! `eval itm`: how well each text of a set goes with its image.

use blip2_evaluation::error::job::JobError;
use blip2_evaluation::job::Phase;
use blip2_evaluation::pair_scorer::PairScorer;
use blip2_evaluation::row_id::RowId;
use blip2_evaluation::writing::{from_lines, to_lines};
use blip2_images::RgbImage;
use blip2_run::exit::Exit;
use blip2_worker::export::Layout;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::model::ModelFolder;
use super::retrieval::{captioned_set, open_scorer};
use super::set::{SetArguments, aside};
use crate::commands::{print_json, print_text};
use crate::error::CliError;
use crate::signals::Signals;

#[derive(Debug, Args)]
pub(crate) struct ItmArguments {
    #[command(flatten)]
    set: SetArguments,
}

/// Where units' scores are: one line an image.
const PAIRS: Phase = Phase { folder: "pairs", ending: "jsonl" };

/// An image's pairs.
#[derive(Debug, Serialize, Deserialize)]
struct ScoredImage {
    key: RowId,
    pairs: Vec<ScoredPair>,
}

/// A pair.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ScoredPair {
    caption: String,
    /// Logit of "matched".
    logit: f32,
    /// Probability of "matched".
    probability: f32,
    /// Of the image's best query and the text.
    cosine: f32,
}

/// A pair in the results.
#[derive(Debug, Serialize)]
struct ResultLine<'a> {
    image_id: &'a RowId,
    #[serde(flatten)]
    pair: &'a ScoredPair,
}

/// What is said of all pairs.
#[derive(Debug, Serialize)]
struct Summary {
    images: usize,
    pairs: usize,
    mean_probability: f64,
    /// Share of the pairs that are rather matched than not.
    matched: f64,
    mean_cosine: f64,
}

/// Scores a set's pairs.
pub(super) async fn run(arguments: ItmArguments) -> Result<Exit, CliError> {
    let ItmArguments { set: of } = arguments;
    if let Some(page) = &of.shown.report {
        let page = page.display();
        return Err(CliError::usage(format!(
            "--report {page}: pairs are scored, not judged; there is no page"
        )));
    }
    let signals = Signals::listen()?;
    let mut set = captioned_set(&of).await?;
    let model = ModelFolder::open(&of.model, Layout::Retrieval).await?;
    let mut kept = Some(open_scorer(&of, model.path.clone()).await?);
    let begun = of.begin(&signals, "itm", &model.digest, (set.digest(), set.items.len()), json!({})).await?;
    let ended = begun.work(PAIRS, async |items| {
        let rows: Vec<(RowId, Vec<String>)> = set.items[items.clone()]
            .iter()
            .map(|item| (item.row.id.clone(), item.row.captions.clone()))
            .collect();
        let (images, places) = set.images(items).await?;
        let scored = move |scorer: &mut PairScorer| scored(scorer, rows, &images, &places);
        let rows = aside(&mut kept, scored).await??;
        to_lines(&rows).map_err(|reason| JobError::Unit { place: "a unit's pairs".to_owned(), reason })
    });
    if let Some(exit) = ended.await? {
        return Ok(exit);
    }
    let rows: Vec<ScoredImage> = begun.job.results(PAIRS, from_lines).await?;
    let lines: Vec<ResultLine<'_>> = rows
        .iter()
        .flat_map(|row| row.pairs.iter().map(|pair| ResultLine { image_id: &row.key, pair }))
        .collect();
    begun.keep("results.json", &lines).await?;
    let summary = Summary::of(rows.len(), &lines);
    begun.keep("scores.json", &summary).await?;
    match of.shown.json {
        true => print_json(&summary)?,
        false => print_text(&summary.table())?,
    }
    Ok(Exit::Done)
}

/// Each image with its texts.
fn scored(
    scorer: &PairScorer,
    rows: Vec<(RowId, Vec<String>)>,
    images: &[RgbImage],
    places: &[usize],
) -> blip2_evaluation::Result<Vec<ScoredImage>> {
    let mut all = Vec::with_capacity(rows.len());
    for ((key, captions), place) in rows.into_iter().zip(places) {
        let image = &images[*place];
        let matched = scorer.matched(image, &captions)?;
        let cosines = scorer.cosines(std::slice::from_ref(image), &scorer.texts(&captions)?)?;
        let pairs = captions.into_iter().zip(matched).zip(cosines).map(|((caption, matched), cosine)| {
            ScoredPair { caption, logit: matched.logit, probability: matched.probability, cosine }
        });
        all.push(ScoredImage { key, pairs: pairs.collect() });
    }
    Ok(all)
}

impl Summary {
    fn of(images: usize, lines: &[ResultLine<'_>]) -> Self {
        let mean = |value: &dyn Fn(&ScoredPair) -> f64| {
            lines.iter().map(|line| value(line.pair)).sum::<f64>() / lines.len().max(1) as f64
        };
        Self {
            images,
            pairs: lines.len(),
            mean_probability: mean(&|pair| f64::from(pair.probability)),
            matched: mean(&|pair| f64::from(u8::from(pair.probability > 0.5))),
            mean_cosine: mean(&|pair| f64::from(pair.cosine)),
        }
    }

    fn table(&self) -> String {
        let Self { images, pairs, mean_probability, matched, mean_cosine } = self;
        format!(
            "{pairs} pairs of {images} images\nmatched            {:.1} %\nmean probability   {mean_probability:.4}\nmean cosine        {mean_cosine:.4}\n",
            100.0 * matched
        )
    }
}
