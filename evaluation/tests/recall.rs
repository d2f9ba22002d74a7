//! Recalls against those of the reference implementation (LAVIS's `RetrievalTask`), to the last digit.

use std::path::Path;

use blip2_evaluation::metrics::retrieval::{BothRecalls, Similarities};
use serde::Deserialize;

/// Scores and what the reference makes of them.
#[derive(Deserialize)]
struct Golden {
    /// Captions of each image, which come one image after the other.
    captions_of_image: Vec<usize>,
    /// The value of pairs that were not ranked anew.
    unscored: Option<f32>,
    /// `[images, texts]`.
    image_to_text: Vec<Vec<f32>>,
    /// `[texts, images]`, where texts are scored by themselves.
    text_to_image: Option<Vec<Vec<f32>>>,
    expected: Expected,
}

/// In per cent, under the reference's names.
#[derive(Debug, PartialEq, Deserialize)]
struct Expected {
    txt_r1: f64,
    txt_r5: f64,
    txt_r10: f64,
    txt_r_mean: f64,
    img_r1: f64,
    img_r5: f64,
    img_r10: f64,
    img_r_mean: f64,
    r_mean: f64,
}

impl From<BothRecalls> for Expected {
    fn from(recalls: BothRecalls) -> Self {
        let [txt_r1, txt_r5, txt_r10] = recalls.image_to_text.percentages();
        let [img_r1, img_r5, img_r10] = recalls.text_to_image.percentages();
        let (txt_r_mean, img_r_mean) = (recalls.image_to_text.mean(), recalls.text_to_image.mean());
        Self {
            txt_r1,
            txt_r5,
            txt_r10,
            txt_r_mean,
            img_r1,
            img_r5,
            img_r10,
            img_r_mean,
            r_mean: recalls.mean(),
        }
    }
}

fn golden(name: &str) -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The image of each text.
fn owners(golden: &Golden) -> Vec<usize> {
    let images = golden.captions_of_image.iter().enumerate();
    images.flat_map(|(image, captions)| vec![image; *captions]).collect()
}

#[test]
fn one_table_of_similarities_gives_the_references_recalls() {
    let golden = golden("recall.json");
    let (owners, values) = (owners(&golden), golden.image_to_text.concat());
    let similarities = Similarities::new(&values, golden.image_to_text.len(), owners.len()).unwrap();
    let recalls = similarities.recalls(|image, text| owners[text] == image);
    assert_eq!(Expected::from(recalls), golden.expected);
}

#[test]
fn ranking_the_first_few_anew_gives_the_references_recalls() {
    let golden = golden("reranked.json");
    let (owners, unscored) = (owners(&golden), golden.unscored.unwrap());
    let (images, texts) = (golden.image_to_text.len(), owners.len());
    let table = |values: &[f32], rows, columns, belongs: &dyn Fn(usize, usize) -> bool| {
        let similarities = Similarities::new(values, rows, columns).unwrap().with_unscored(unscored);
        similarities.image_to_text(belongs)
    };
    let of_texts = golden.text_to_image.as_ref().unwrap().concat();
    let recalls = BothRecalls {
        image_to_text: table(&golden.image_to_text.concat(), images, texts, &|image, text| {
            owners[text] == image
        }),
        // The same table with the roles exchanged: a text asks.
        text_to_image: table(&of_texts, texts, images, &|text, image| owners[text] == image),
    };
    assert_eq!(Expected::from(recalls), golden.expected);
}
