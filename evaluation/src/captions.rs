//! The captions of a set, as they are evaluated.

use std::collections::BTreeSet;

use blip2_dataset::corpus::samples::Sample;
use blip2_dataset::text::{TextEncoder, Tokens, clean_caption};
use blip2_random::KeyedPermutation;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::error::{EvaluationError, Result};

/// Words of a caption that are kept.
const MAX_WORDS: usize = 50;

/// A sample's first caption, as it is evaluated.
pub fn caption(sample: &Sample) -> String {
    clean_caption(sample.captions.first().map_or("", String::as_str), MAX_WORDS)
}

/// The samples whose captions the tokenizer can take; the others are counted in the log.
pub fn readable<'a>(samples: &'a [Sample], encoder: &TextEncoder) -> Vec<&'a Sample> {
    let mut left_out = 0;
    let mut readable = Vec::with_capacity(samples.len());
    for sample in samples {
        match encoder.encode(&caption(sample)) {
            Ok(_) => readable.push(sample),
            Err(error) => {
                if left_out == 0 {
                    tracing::warn!(key = sample.key, %error, "a caption that the tokenizer cannot take: its row is left out");
                }
                left_out += 1;
            }
        }
    }
    if left_out > 0 {
        tracing::warn!(left_out, rows = samples.len(), "rows are left out of this evaluation");
    }
    readable
}

/// The distinct captions in order, and each sample's among them.
pub(crate) fn distinct(samples: &[&Sample]) -> Result<(Vec<String>, Vec<usize>)> {
    let all: Vec<String> = samples.iter().map(|sample| caption(sample)).collect();
    let distinct: Vec<String> = all.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    if distinct.len() < 2 {
        let reason = format!("{} distinct captions: retrieval needs two or more", distinct.len());
        return Err(EvaluationError::Configuration(format!("evaluation set: {reason}")));
    }
    // Every caption is in the set made of them.
    let place = |caption: &String| distinct.binary_search(caption).unwrap_or(0);
    let truth = all.iter().map(place).collect();
    Ok((distinct, truth))
}

/// For each row, a row with another caption: a keyed shuffle in which equal captions are passed over.
pub fn other_rows(captions: &[String], seed: u64) -> Vec<usize> {
    let count = captions.len();
    let shuffle = KeyedPermutation::keyed(seed, "shuffled pictures", &[], count as u64);
    (0..count)
        .map(|row| {
            let start = shuffle.apply(row as u64) as usize;
            let candidates = (0..count).map(|offset| (start + offset) % count);
            candidates.into_iter().find(|other| captions[*other] != captions[row]).unwrap_or(row)
        })
        .collect()
}

/// Ids and mask of texts, each `[b, T]`.
///
/// # Errors
/// A text that the tokenizer refuses.
pub(crate) fn token_tensors(
    encoder: &TextEncoder,
    texts: &[String],
    device: &Device,
) -> Result<(Tensor<2, Int>, Tensor<2, Int>)> {
    let tokens: Vec<Tokens> = texts.iter().map(|text| encoder.encode(text)).collect::<Result<_, _>>()?;
    let ids: Vec<i32> = tokens.iter().flat_map(|tokens| tokens.ids.iter().copied()).collect();
    let mask: Vec<i32> = tokens.iter().flat_map(|tokens| tokens.mask.iter().copied()).collect();
    let shape = [tokens.len(), ids.len() / tokens.len().max(1)];
    Ok((
        Tensor::from_data(TensorData::new(ids, shape), device),
        Tensor::from_data(TensorData::new(mask, shape), device),
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use blip2_dataset::text::TextEncoding;

    use super::*;

    #[test]
    fn rows_whose_captions_the_tokenizer_cannot_take_are_left_out() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones/clip-tiny/tokenizer.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let broken = text.replacen("\"unk_token\": null", "\"unk_token\": \"<nowhere>\"", 1);
        let encoder = TextEncoder::from_json(broken.as_bytes(), &path, TextEncoding::new(16, 0)).unwrap();
        let sample = |caption: &str| Sample {
            key: caption.into(),
            captions: vec![caption.into()],
            question: None,
            image: image::RgbImage::new(2, 2),
        };
        let samples = [sample("a red apple"), sample("日本"), sample("a dog")];
        let kept: Vec<&str> = readable(&samples, &encoder).iter().map(|sample| sample.key.as_str()).collect();
        assert_eq!(kept, ["a red apple", "a dog"]);
    }

    #[test]
    fn shuffled_images_have_other_captions() {
        let captions: Vec<String> = (0..30).map(|i| format!("caption {}", i / 3)).collect();
        let order = other_rows(&captions, 7);
        assert!((0..30).all(|row| captions[row] != captions[order[row]]));
    }
}
