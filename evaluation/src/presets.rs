//! How texts were written where published numbers come from: prompts, searches and image sizes, as one table.

/// Whose numbers are to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The paper's published numbers.
    Paper,
    /// LAVIS's files of evaluation, as they are in its last version.
    Lavis,
    /// LAVIS's file for NoCaps with a model that was not fine-tuned.
    LavisNocaps,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// A caption of an image.
    Caption,
    /// An answer to a question.
    Answer,
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preset {
    /// What the language model continues; `{}` is the question.
    pub prompt: &'static str,
    /// Side of the images, pixels.
    pub image_size: usize,
    /// Beams of the search.
    pub beams: usize,
    /// Longest text in tokens, without the prompt.
    pub max_new_tokens: usize,
    /// No end before this many tokens.
    pub min_new_tokens: usize,
    /// Exponent of a text's length.
    pub length_penalty: f64,
    /// Tokens that count besides a text's own where lengths are compared.
    pub length_offset: usize,
    /// Divides the scores of tokens that occurred.
    pub repetition_penalty: f32,
}

const fn captions(
    image_size: usize,
    prompt: &'static str,
    tokens: [usize; 2],
    penalties: [f32; 2],
) -> Preset {
    let [min_new_tokens, max_new_tokens] = tokens;
    let [length_penalty, repetition_penalty] = penalties;
    let (length_penalty, length_offset) = (length_penalty as f64, 0);
    Preset {
        prompt,
        image_size,
        beams: 5,
        max_new_tokens,
        min_new_tokens,
        length_penalty,
        length_offset,
        repetition_penalty,
    }
}

const fn answers(prompt: &'static str, length_penalty: f32) -> Preset {
    captions(224, prompt, [1, 10], [length_penalty, 1.0])
}

/// The prompts of questions.
const ANSWER: &str = "Question: {} Answer:";
const SHORT_ANSWER: &str = "Question: {} Short answer:";

/// The library of the paper's captions counted the prompt's four tokens and not the end token; here it is
/// the other way round.
const PROMPT_LESS_END: usize = 3;

impl Preset {
    /// The preset for a language model that is decoder-only (OPT) or an encoder-decoder (T5).
    ///
    /// The minimum of the paper's captions counts four tokens of the prompt with OPT, and the start token
    /// with T5: 8 are 4 and 7 new ones.
    pub fn of(source: Source, written: Written, is_encoder_decoder: bool) -> Self {
        match (source, written, is_encoder_decoder) {
            (Source::Paper, Written::Caption, false) => {
                Self { length_offset: PROMPT_LESS_END, ..captions(364, "a photo of", [4, 30], [1.0, 1.0]) }
            }
            (Source::Paper, Written::Caption, true) => captions(364, "a photo of", [7, 30], [1.0, 1.0]),
            (Source::Lavis, Written::Caption, _) => captions(364, "a photo of", [8, 30], [0.0, 1.15]),
            (Source::LavisNocaps, Written::Caption, false) => captions(224, "", [10, 80], [1.0, 1.15]),
            (Source::LavisNocaps, Written::Caption, true) => captions(224, "", [9, 80], [1.0, 1.15]),
            (Source::Paper, Written::Answer, false) => answers(ANSWER, -1.0),
            (Source::Lavis | Source::LavisNocaps, Written::Answer, false) => answers(SHORT_ANSWER, 0.0),
            (_, Written::Answer, true) => answers(SHORT_ANSWER, -1.0),
        }
    }
}

/// A prompt with its question in the place of `{}`.
pub fn asked(prompt: &str, question: &str) -> String {
    prompt.replacen("{}", question, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_ways_of_captions_are_not_mixed_up() {
        let of = |source| Preset::of(source, Written::Caption, false);
        let numbers = |preset: Preset| {
            let lengths = (preset.min_new_tokens, preset.max_new_tokens);
            (preset.image_size, lengths, preset.length_penalty, preset.repetition_penalty)
        };
        assert_eq!(numbers(of(Source::Paper)), (364, (4, 30), 1.0, 1.0));
        assert_eq!((of(Source::Paper).length_offset, of(Source::Lavis).length_offset), (3, 0));
        assert_eq!(numbers(of(Source::Lavis)), (364, (8, 30), 0.0, 1.15));
        assert_eq!(numbers(of(Source::LavisNocaps)), (224, (10, 80), 1.0, 1.15));
    }

    #[test]
    fn questions_stand_in_their_prompt() {
        let paper = |t5| Preset::of(Source::Paper, Written::Answer, t5);
        assert_eq!(asked(paper(false).prompt, "why {}?"), "Question: why {}? Answer:");
        assert_eq!((paper(true).prompt, paper(true).length_penalty), (SHORT_ANSWER, -1.0));
        let lavis = Preset::of(Source::Lavis, Written::Answer, false);
        assert_eq!((lavis.prompt, lavis.length_penalty, lavis.beams), (SHORT_ANSWER, 0.0, 5));
    }
}
