//! Which pairs are ranked anew, against the reference's scores and recalls.

use std::path::{Path, PathBuf};

use blip2_evaluation::metrics::bootstrap::Scored as _;
use blip2_evaluation::metrics::recalls::{Ranking, Recalls};
use blip2_evaluation::metrics::retrieval::Similarities;
use blip2_evaluation::reranking::{Candidates, UNSCORED};
use blip2_evaluation::similarity_files;
use blip2_evaluation::similarity_files::matrix::Matrix;
use serde_json::Value;

/// Largest difference of a score that is taken apart and put together again.
const TOLERANCE: f32 = 1e-5;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/retrieval-0").join(name)
}

fn assert_same(got: &Matrix, want: &Matrix) {
    assert_eq!((got.rows, got.columns), (want.rows, want.columns));
    for (place, (got, want)) in got.values.iter().zip(&want.values).enumerate() {
        assert_eq!(*got == UNSCORED, *want == UNSCORED, "pair {place}: {got} and {want}");
        assert!((got - want).abs() < TOLERANCE, "pair {place}: {got} and {want}");
    }
}

#[test]
fn the_references_pairs_are_scored_anew_and_no_others() {
    let file = similarity_files::read(&golden("evaluation.safetensors")).unwrap();
    let (cosines, (by_images, by_texts)) = (file.all.unwrap(), file.reranked.unwrap());
    let meta: Value = serde_json::from_slice(&std::fs::read(golden("meta.json")).unwrap()).unwrap();
    let meta = &meta["evaluation"];
    let candidates = Candidates::of(&cosines, meta["k"].as_u64().unwrap() as usize);
    // A pair's logit is in one of the tables or in both.
    let (images, texts) = (cosines.rows, cosines.columns);
    let logit = |image: usize, text: usize| {
        let scores = [by_images.values[image * texts + text], by_texts.values[text * images + image]];
        let score = scores.into_iter().find(|score| *score != UNSCORED).expect("the reference scored it");
        score - cosines.values[image * texts + text]
    };
    let logits: Vec<Vec<f32>> = (0..images)
        .map(|image| candidates.texts(image).iter().map(|text| logit(image, *text)).collect())
        .collect();
    let scored = candidates.scores(cosines, &logits).unwrap();
    let (own_images, own_texts) = scored.reranked.unwrap();
    assert_same(&own_images, &by_images);
    assert_same(&own_texts, &by_texts);

    let counts = meta["captions_of_picture"].as_array().unwrap();
    let owners: Vec<usize> = (counts.iter().enumerate())
        .flat_map(|(image, count)| vec![image; count.as_u64().unwrap() as usize])
        .collect();
    let found = |matrix: &Matrix, belongs: &dyn Fn(usize, usize) -> bool| {
        let similarities = Similarities::new(&matrix.values, matrix.rows, matrix.columns).unwrap();
        similarities.with_unscored(UNSCORED).texts_found(belongs)
    };
    let ranking = Ranking {
        name: "re-ranked",
        texts: found(&own_images, &|image, text| owners[text] == image),
        images: found(&own_texts, &|text, image| owners[text] == image),
    };
    let recalls = Recalls::new(&[ranking], &owners);
    for (name, value) in recalls.names().iter().zip(recalls.values()) {
        let due = meta["recalls"][name.name].as_f64().unwrap();
        assert!((value - due).abs() < 1e-9, "{}: {value} and {due}", name.name);
    }
}
