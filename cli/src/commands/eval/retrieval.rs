//! `eval retrieval`: images that look for their texts and texts that look for their image, by cosine and
//! ranked anew by the matching head.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use blip2_evaluation::job::Phase;
use blip2_evaluation::pair_scorer::{PairScorer, TextFeatures};
use blip2_evaluation::reranking::{Candidates, from_bytes, to_bytes};
use blip2_evaluation::result_files;
use blip2_evaluation::sets::captioned::{self, CaptionedImage};
use blip2_evaluation::sets::item::ItemSet;
use blip2_evaluation::similarity_files::matrix::{Matrix, SimilarityFile};
use blip2_evaluation::similarity_files::pairs::Pairs;
use blip2_images::RgbImage;
use blip2_run::exit::Exit;
use blip2_tensors::device::DeviceName;
use blip2_worker::export::Layout;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::checkpoint;
use super::model::ModelFolder;
use super::read_ahead::{ReadAhead, UnitImages};
use super::score::retrieval::{judged, notes};
use super::set::{Evaluation, MAX_PIXELS, Pictured, SetArguments, aside, for_workers, opened};
use super::units::Session;
use crate::error::CliError;
use crate::typed_numbers;

#[derive(Debug, Args, Serialize, Deserialize)]
pub(crate) struct RetrievalArguments {
    #[command(flatten)]
    pub(super) set: SetArguments,
    /// Rank this many of the best anew by the matching head, of each image and of each text; 0 for none.
    #[arg(long, value_name = "K", default_value_t = 128, value_parser = typed_numbers::count, help_heading = None::<&str>)]
    rerank: usize,
}

/// What it is called.
pub(super) const TASK: &str = "retrieval";
/// Where units' cosines are: of each image with every text.
const COSINES: Phase = Phase { folder: "cosines", ending: "f32" };
/// Where units' logits are: of each image with the texts that it is scored anew with.
const MATCHES: Phase = Phase { folder: "matches", ending: "f32" };
/// All of them.
const RESULTS: &str = "results.safetensors";

/// Ranks a set's texts and images, or a run's one caption an image.
pub(super) async fn run(arguments: RetrievalArguments) -> Result<Exit, CliError> {
    match arguments.set.is_of_checkpoint().await? {
        true => checkpoint::retrieval(&arguments.set).await,
        false => evaluate(arguments, Session::own()?).await,
    }
}

/// Ranks a set's texts and images, or does this process's part of that.
pub(super) async fn evaluate(arguments: RetrievalArguments, session: Session) -> Result<Exit, CliError> {
    let typed = for_workers(&arguments);
    let RetrievalArguments { set: of, rerank } = arguments;
    let model = ModelFolder::open(&of.model, Layout::Retrieval).await?;
    let mut set = captioned_set(&of).await?;
    let texts: Vec<String> = set.items.iter().flat_map(|item| item.row.captions.clone()).collect();
    let (images, count) = (set.items.len(), texts.len());
    let evaluation = Evaluation {
        task: TASK,
        arguments: typed,
        model: &model.digest,
        set: (set.digest(), images),
        settings: json!({"rerank": rerank}),
        phases: if rerank == 0 { &[COSINES] } else { &[COSINES, MATCHES] },
    };
    let begun = of.begin(session, evaluation).await?;
    let mut kept = None;
    if begun.computes() {
        let pairs = open_scorer(&of, model.path.clone()).await?;
        kept = Some(Scorer { pairs, texts, features: None });
    }
    let mut ahead = ReadAhead::default();
    let ended = begun.work(0, async |unit| {
        let compared = async |(images, places): UnitImages| {
            let cosines = aside(&mut kept, move |scorer| scorer.cosines(&images)).await??;
            let of_items = places.iter().flat_map(|place| &cosines[place * count..(place + 1) * count]);
            Ok(to_bytes(&of_items.copied().collect::<Vec<_>>()))
        };
        ahead.compute(&mut set, unit, compared).await
    });
    if let Some(exit) = ended.await? {
        return Ok(exit);
    }
    let read = |items: Range<usize>, bytes: &[u8]| from_bytes(items.len() * count, bytes);
    let values = begun.job().results(COSINES, read).await?;
    let cosines = Matrix { rows: images, columns: count, values };
    let similarities = if rerank == 0 {
        SimilarityFile { all: Some(cosines), reranked: None }
    } else {
        let candidates = Arc::new(Candidates::of(&cosines, rerank));
        let ended = begun.work(1, async |unit| {
            let (candidates, items) = (candidates.clone(), unit.items.clone());
            let matched = async |(images, places): UnitImages| {
                let logits =
                    aside(&mut kept, move |scorer| scorer.logits(&candidates, items, &images, &places));
                Ok(to_bytes(&logits.await??))
            };
            ahead.compute(&mut set, unit, matched).await
        });
        if let Some(exit) = ended.await? {
            return Ok(exit);
        }
        let logits =
            begun.job().results(MATCHES, |items, bytes| logits_of(&candidates, items, bytes)).await?;
        candidates.scores(cosines, &logits).map_err(CliError::failed)?
    };
    let named = set.items.iter().map(|item| (item.name.as_str(), item.row.captions.as_slice()));
    begun.keep("references.json", &result_files::pair_references(named)).await?;
    let bytes = result_files::similarities(&similarities).map_err(CliError::failed)?;
    begun.keep_bytes(RESULTS, bytes.into()).await?;
    let captioned = set.items.iter().map(|item| (item.name.clone(), item.row.captions.clone())).collect();
    let pairs = Pairs::of_captions(captioned).map_err(CliError::BadInput)?;
    let judged = judged(&similarities, &pairs)?;
    // First come the images as queries, then the texts.
    let items = (0..images).chain(pairs.image_of_text().iter().copied()).collect();
    let pictured = Pictured { set: &mut set, items, results: RESULTS };
    of.show(&begun, ("retrieval", None), notes(), judged, pictured).await
}

/// A model and the set's texts.
struct Scorer {
    pairs: PairScorer,
    texts: Vec<String>,
    /// Computed for the first unit.
    features: Option<TextFeatures>,
}

impl Scorer {
    fn cosines(&mut self, images: &[RgbImage]) -> blip2_evaluation::Result<Vec<f32>> {
        let features = match self.features.take() {
            Some(features) => features,
            None => self.pairs.texts(&self.texts)?,
        };
        let cosines = self.pairs.cosines(images, &features);
        self.features = Some(features);
        cosines
    }

    fn logits(
        &self,
        candidates: &Candidates,
        items: Range<usize>,
        images: &[RgbImage],
        places: &[usize],
    ) -> blip2_evaluation::Result<Vec<f32>> {
        let mut logits = Vec::new();
        for (item, place) in items.zip(places) {
            let texts: Vec<String> =
                candidates.texts(item).iter().map(|text| self.texts[*text].clone()).collect();
            let matched = self.pairs.matched(&images[*place], &texts)?;
            logits.extend(matched.into_iter().map(|matched| matched.logit));
        }
        Ok(logits)
    }
}

/// The logits of a unit's images, each with its texts.
fn logits_of(candidates: &Candidates, items: Range<usize>, bytes: &[u8]) -> Result<Vec<Vec<f32>>, String> {
    let counts: Vec<usize> = items.map(|item| candidates.texts(item).len()).collect();
    let mut values = from_bytes(counts.iter().sum(), bytes)?.into_iter();
    Ok(counts.into_iter().map(|count| values.by_ref().take(count).collect()).collect())
}

/// A set whose images all have texts.
pub(super) async fn captioned_set(of: &SetArguments) -> Result<ItemSet<CaptionedImage>, CliError> {
    let images = of.images.as_deref();
    let set = captioned::read(&of.data, images, &of.columns.names()?, MAX_PIXELS).await?;
    match set.items.iter().find(|item| item.row.captions.is_empty()) {
        None => Ok(set),
        Some(item) => {
            Err(CliError::BadInput(format!("image `{}` has no text to compare it with", item.name)))
        }
    }
}

/// The model of a folder that compares images with texts.
pub(super) async fn open_scorer(of: &SetArguments, folder: PathBuf) -> Result<PairScorer, CliError> {
    let (device, side) = (of.device.unwrap_or(DeviceName::Cpu), of.image_size);
    opened(move || PairScorer::open(&folder, device, side)).await
}
