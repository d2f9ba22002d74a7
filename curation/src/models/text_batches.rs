//! Texts in batches of similar length.

use blip2_dataset::text::{MAX_CAPTION_WORDS, TextEncoder, clean_caption};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::scored::ScoredText;

/// Some texts as one batch, without padding behind the longest.
pub(super) struct TextBatch {
    /// Of the texts, among all.
    pub(super) texts: Vec<usize>,
    /// The image that each is about.
    pub(super) images: Vec<usize>,
    /// `[texts, T]`.
    pub(super) ids: Tensor<2, Int>,
    /// 1: a token, 0: padding.
    pub(super) mask: Tensor<2, Int>,
}

impl TextBatch {
    /// The rows of a tensor of images that the texts are about.
    pub(super) fn image_rows(&self, device: &Device) -> Tensor<1, Int> {
        let rows: Vec<i32> = self.images.iter().map(|image| *image as i32).collect();
        Tensor::from_data(TensorData::new(rows, [self.images.len()]), device)
    }
}

/// All texts, cleaned as in training, `most` at a time from the shortest to the longest. `first` takes the
/// place of each text's first token. A text that the tokenizer cannot take is left out: it gets no score.
pub(super) fn batches(
    all: &[Vec<ScoredText>],
    text: &TextEncoder,
    first: Option<u32>,
    most: usize,
    device: &Device,
) -> Vec<TextBatch> {
    let mut tokens = Vec::new();
    let of_image = |(image, texts): (usize, &Vec<ScoredText>)| -> Vec<(usize, String)> {
        texts.iter().map(|scored| (image, clean_caption(&scored.text, MAX_CAPTION_WORDS))).collect()
    };
    for (index, (image, cleaned)) in all.iter().enumerate().flat_map(of_image).enumerate() {
        let mut ids = match text.encode_plain(&cleaned) {
            Ok(ids) => ids,
            Err(error) => {
                tracing::debug!(text = cleaned, %error, "a text is not scored");
                continue;
            }
        };
        if let (Some(first), Some(place)) = (first, ids.first_mut()) {
            *place = first;
        }
        tokens.push((ids, image, index));
    }
    // Equal lengths stay in their order, so that a batch is a function of the texts.
    tokens.sort_by_key(|(ids, ..)| ids.len());
    tokens.chunks(most).map(|chunk| batch(chunk, text.encoding().pad_id, device)).collect()
}

fn batch(tokens: &[(Vec<u32>, usize, usize)], pad: u32, device: &Device) -> TextBatch {
    let longest = tokens.iter().map(|(ids, ..)| ids.len()).max().unwrap_or_default();
    let (mut all_ids, mut all_mask) = (Vec::new(), Vec::new());
    for (ids, ..) in tokens {
        let padding = longest - ids.len();
        // Vocabularies are far smaller than 2^31.
        all_ids.extend(ids.iter().map(|id| *id as i32).chain(std::iter::repeat_n(pad as i32, padding)));
        all_mask.extend(ids.iter().map(|_| 1).chain(std::iter::repeat_n(0, padding)));
    }
    let tensor =
        |values: Vec<i32>| Tensor::from_data(TensorData::new(values, [tokens.len(), longest]), device);
    TextBatch {
        texts: tokens.iter().map(|(_, _, index)| *index).collect(),
        images: tokens.iter().map(|(_, image, _)| *image).collect(),
        ids: tensor(all_ids),
        mask: tensor(all_mask),
    }
}

/// Scores of some of the texts in their places.
pub(super) fn put(scores: &mut [Option<f32>], texts: &[usize], found: &[f32]) {
    texts.iter().zip(found).for_each(|(text, score)| scores[*text] = Some(*score));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use blip2_dataset::text::TextEncoding;

    use super::*;
    use crate::scored::TextSource;

    /// A tokenizer whose token for what it does not know is not in its vocabulary, as some are published.
    fn broken_tokenizer() -> TextEncoder {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones/clip-tiny/tokenizer.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let broken = text.replacen("\"unk_token\": null", "\"unk_token\": \"<nowhere>\"", 1);
        assert_ne!(text, broken);
        TextEncoder::from_json(broken.as_bytes(), &path, TextEncoding::new(16, 0)).unwrap()
    }

    #[test]
    fn a_text_that_the_tokenizer_cannot_take_is_left_out() {
        let text = |text: &str| ScoredText {
            text: text.into(),
            source: TextSource::Web,
            clip_score: None,
            itm_score: None,
        };
        let all = [
            vec![text("a red apple"), text("a <b>red</b> apple")],
            vec![text("日本語")],
            vec![text("a dog")],
        ];
        let batches = batches(&all, &broken_tokenizer(), None, 8, &Device::flex());
        let mut texts: Vec<usize> = batches.iter().flat_map(|batch| batch.texts.clone()).collect();
        texts.sort_unstable();
        assert_eq!(texts, [0, 3]);
    }

    /// What the project's own small CLIP does not know is left out of a text, not the text.
    #[test]
    fn the_small_clip_takes_texts_of_every_language() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones/clip-tiny");
        let encoder = TextEncoder::open(&path, TextEncoding::new(16, 0)).unwrap();
        for text in [
            "a <b>red</b> apple",
            "日本語のりんご",
            "пример яблока",
            "تفاحة حمراء",
            "🍎🍏",
            "naïve café",
            "½ €",
            "\u{200b}",
        ] {
            encoder.encode(text).unwrap();
            encoder.encode_plain(text).unwrap();
        }
    }
}
