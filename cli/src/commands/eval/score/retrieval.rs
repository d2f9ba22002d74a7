//! Similarities of images and texts.

use std::path::{Path, PathBuf};

use blip2_evaluation::metrics::recalls::{Ranking, Recalls};
use blip2_evaluation::metrics::retrieval::{Found, Similarities};
use blip2_evaluation::reranking::UNSCORED;
use blip2_evaluation::similarity_files;
use blip2_evaluation::similarity_files::matrix::{Matrix, SimilarityFile};
use blip2_evaluation::similarity_files::pairs::{self, Pairs};

use super::references::{Case, Judged, References};
use crate::error::CliError;

/// Right texts shown of an image.
const SHOWN: usize = 5;

/// Which texts belong to which image.
pub(in crate::commands::eval) enum RetrievalReferences {
    /// A file that is read once it is known how many there are.
    File(PathBuf),
    /// Images with their texts.
    Read(Pairs),
}

impl References for RetrievalReferences {
    fn judge(&self, results: &Path) -> Result<Judged, CliError> {
        let file = similarity_files::read(results)?;
        let (images, texts) = size(results, &file)?;
        match self {
            Self::File(path) => judged(&file, &pairs::read(path, images, texts)?),
            Self::Read(pairs) if (pairs.images(), pairs.image_of_text().len()) == (images, texts) => {
                judged(&file, pairs)
            }
            Self::Read(pairs) => Err(CliError::BadInput(format!(
                "{} is of {images} images and {texts} texts, the references are of {} and {}",
                results.display(),
                pairs.images(),
                pairs.image_of_text().len()
            ))),
        }
    }

    fn notes(&self) -> Vec<String> {
        notes()
    }
}

/// The recalls of similarities.
pub(in crate::commands::eval) fn judged(file: &SimilarityFile, pairs: &Pairs) -> Result<Judged, CliError> {
    let rankings = rankings(file, pairs)?;
    let cases = rankings.last().map(|ranking| cases(ranking, pairs)).unwrap_or_default();
    Ok(Judged { scored: Box::new(Recalls::new(&rankings, pairs.image_of_text())), cases })
}

/// What the reader of recalls must know of them.
pub(in crate::commands::eval) fn notes() -> Vec<String> {
    vec!["a tie counts against; a pair that was not scored (-100) is never found".to_owned()]
}

/// How many images and texts all matrices of the file are of.
fn size(path: &Path, file: &SimilarityFile) -> Result<(usize, usize), CliError> {
    let mut sizes: Vec<(usize, usize)> = file.all.iter().map(|all| (all.rows, all.columns)).collect();
    if let Some((images, texts)) = &file.reranked {
        sizes.extend([(images.rows, images.columns), (texts.columns, texts.rows)]);
    }
    let first = sizes.first().copied().unwrap_or_default();
    match sizes.iter().find(|size| **size != first) {
        None => Ok(first),
        Some(other) => Err(CliError::BadInput(format!(
            "{}: one matrix is of {} images and {} texts, another of {} and {}; `scores_t2i` is [texts, images]",
            path.display(),
            first.0,
            first.1,
            other.0,
            other.1
        ))),
    }
}

/// By the similarities of all pairs, and by the scores of the best few.
fn rankings(file: &SimilarityFile, pairs: &Pairs) -> Result<Vec<Ranking>, CliError> {
    let mut rankings = Vec::new();
    let belongs = |image, text| pairs.belongs(image, text);
    if let Some(all) = &file.all {
        let similarities = similarities(all)?;
        let texts = similarities.texts_found(belongs);
        rankings.push(Ranking { name: "ITC", texts, images: similarities.images_found(belongs) });
    }
    if let Some((by_images, by_texts)) = &file.reranked {
        let texts = similarities(by_images)?.texts_found(belongs);
        // The same with the roles exchanged: a text looks for images.
        let images = similarities(by_texts)?.texts_found(|text, image| belongs(image, text));
        rankings.push(Ranking { name: "re-ranked", texts, images });
    }
    Ok(rankings)
}

fn similarities(matrix: &Matrix) -> Result<Similarities<'_>, CliError> {
    Ok(Similarities::new(&matrix.values, matrix.rows, matrix.columns)?.with_unscored(UNSCORED))
}

/// All queries: images, then texts.
fn cases(ranking: &Ranking, pairs: &Pairs) -> Vec<Case> {
    let name_of = |first: Option<usize>, name: &dyn Fn(usize) -> String| first.map(name).unwrap_or_default();
    let of_images = ranking.texts.iter().enumerate().map(|(image, found)| {
        let right = pairs.texts_of_image(image).iter().take(SHOWN).map(|text| pairs.text(*text));
        let expected = right.collect::<Vec<_>>().join("; ");
        let given = name_of(found.first, &|text| pairs.text(text));
        case(*found, pairs.image_name(image), "which text?", expected, given)
    });
    let of_texts =
        ranking.images.iter().zip(pairs.image_of_text()).enumerate().map(|(text, (found, image))| {
            let given = name_of(found.first, &|image| pairs.image_name(image));
            case(*found, pairs.text(text), "which image?", pairs.image_name(*image), given)
        });
    of_images.chain(of_texts).collect()
}

fn case(found: Found, key: String, asked: &str, expected: String, given: String) -> Case {
    let (score, order) = match found.before {
        Some(before) => (format!("rank {}", before + 1), -(before as f64)),
        None => ("never found".to_owned(), f64::NEG_INFINITY),
    };
    Case { key, asked: Some(asked.to_owned()), expected, given, score, order, thumbnail: None }
}
