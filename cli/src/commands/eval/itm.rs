//! `eval itm`: how well each text of a set goes with its image.

use blip2_evaluation::job::Phase;
use blip2_evaluation::job_error::JobError;
use blip2_evaluation::metrics::bootstrap::ScoreName;
use blip2_evaluation::metrics::means::{Item, Means};
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
use super::read_ahead::{ReadAhead, UnitImages};
use super::retrieval::{captioned_set, open_scorer};
use super::score::references::{Case, Judged};
use super::set::{Evaluation, Pictured, SetArguments, aside, for_workers};
use super::units::Session;
use crate::error::CliError;

#[derive(Debug, Args, Serialize, Deserialize)]
pub(crate) struct ItmArguments {
    #[command(flatten)]
    pub(super) set: SetArguments,
}

/// What it is called.
pub(super) const TASK: &str = "itm";
/// Where units' scores are: one line an image.
const PAIRS: Phase = Phase { folder: "pairs", ending: "jsonl" };
/// The pairs of all units.
const RESULTS: &str = "results.json";

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

/// What the means are of, in per cent.
const NAMES: [&str; 3] = ["matched", "probability", "cosine"];

/// Scores a set's pairs.
pub(super) async fn run(arguments: ItmArguments) -> Result<Exit, CliError> {
    evaluate(arguments, Session::own()?).await
}

/// Scores pairs, or this process's part of them.
pub(super) async fn evaluate(arguments: ItmArguments, session: Session) -> Result<Exit, CliError> {
    let typed = for_workers(&arguments);
    let ItmArguments { set: of } = arguments;
    let model = ModelFolder::open(&of.model, Layout::Retrieval).await?;
    let mut set = captioned_set(&of).await?;
    let evaluation = Evaluation {
        task: TASK,
        arguments: typed,
        model: &model.digest,
        set: (set.digest(), set.items.len()),
        settings: json!({}),
        phases: &[PAIRS],
    };
    let begun = of.begin(session, evaluation).await?;
    let mut kept = match begun.computes() {
        true => Some(open_scorer(&of, model.path.clone()).await?),
        false => None,
    };
    let mut ahead = ReadAhead::default();
    let ended = begun.work(0, async |unit| {
        let rows: Vec<(RowId, Vec<String>)> = set.items[unit.items.clone()]
            .iter()
            .map(|item| (item.row.id.clone(), item.row.captions.clone()))
            .collect();
        let scored = async |(images, places): UnitImages| {
            let scored = move |scorer: &mut PairScorer| scored(scorer, rows, &images, &places);
            let rows = aside(&mut kept, scored).await??;
            to_lines(&rows).map_err(|reason| JobError::Unit { place: "a unit's pairs".to_owned(), reason })
        };
        ahead.compute(&mut set, unit, scored).await
    });
    if let Some(exit) = ended.await? {
        return Ok(exit);
    }
    let rows: Vec<ScoredImage> = begun.job().results(PAIRS, from_lines).await?;
    let lines: Vec<ResultLine<'_>> = rows
        .iter()
        .flat_map(|row| row.pairs.iter().map(|pair| ResultLine { image_id: &row.key, pair }))
        .collect();
    begun.keep(RESULTS, &lines).await?;
    let items = rows.iter().enumerate().flat_map(|(item, row)| vec![item; row.pairs.len()]).collect();
    let notes = vec!["matched: the share of pairs with a probability above one half".to_owned()];
    let pictured = Pictured { set: &mut set, items, results: RESULTS };
    of.show(&begun, ("itm", None), notes, judged(&rows), pictured).await
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

/// Means over all pairs, and the pairs themselves: the worst is the least matched.
fn judged(rows: &[ScoredImage]) -> Judged {
    let (mut items, mut cases) = (Vec::new(), Vec::new());
    for (image, row) in rows.iter().enumerate() {
        for ScoredPair { caption, logit, probability, cosine } in &row.pairs {
            let is_matched = if *probability > 0.5 { 1.0 } else { 0.0 };
            let values = [is_matched, f64::from(*probability), f64::from(*cosine)];
            items.extend((0..).zip(values).map(|(score, value)| Item { image, value, scores: vec![score] }));
            cases.push(Case {
                key: format!("image {}", row.key),
                asked: None,
                expected: "matched".to_owned(),
                given: caption.clone(),
                score: format!("probability {probability:.4}, logit {logit:.3}, cosine {cosine:.3}"),
                thumbnail: None,
                order: f64::from(*logit),
            });
        }
    }
    let names = NAMES.map(ScoreName::overall).to_vec();
    Judged { scored: Box::new(Means::new(names, rows.len(), items)), cases }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_have_means_and_the_least_matched_is_the_worst() {
        let pair =
            |logit, probability, cosine| ScoredPair { caption: "x".into(), logit, probability, cosine };
        let rows = [
            ScoredImage { key: RowId::Number(1), pairs: vec![pair(1.0, 0.75, 0.5), pair(-2.0, 0.25, 0.25)] },
            ScoredImage { key: RowId::Number(2), pairs: vec![pair(3.0, 1.0, 0.0)] },
        ];
        let judged = judged(&rows);
        assert_eq!(judged.scored.items(), [3; 3]);
        let values = judged.scored.values();
        assert!((values[0] - 200.0 / 3.0).abs() < 1e-9 && (values[1] - 200.0 / 3.0).abs() < 1e-9);
        assert_eq!(values[2], 25.0);
        assert_eq!(crate::commands::eval::score::page::worst_first(&judged.cases), [1, 0, 2]);
    }
}
