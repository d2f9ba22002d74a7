//! Text from a model that scores next tokens: greedy and beam search and sampling, with the rules of
//! `transformers`' `generate`.

mod beam;
mod decoder;
mod options;
mod sampling;
mod scores;
mod sequential;

pub use decoder::Decoder;
pub use options::{EarlyStopping, GenerateOptions, Sampling, Stop};

use blip2_model_files::error::ModelError;

/// Continues the prompts of `decoder`; each text has its end token, if it reached one, as its last token.
///
/// `prompts` are the token ids that the repetition rules see, one list for each of the decoder's rows.
/// Equal scores are resolved towards the better hypothesis and then the smaller token id.
///
/// # Errors
/// Options that contradict each other, or scores that are not numbers.
pub fn generate(
    decoder: &mut impl Decoder,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
) -> Result<Vec<Vec<u32>>, ModelError> {
    generate_until(decoder, prompts, options, &|_| false)
}

/// [`generate`], where a text also ends with the first token after which `stop` holds for its new tokens.
///
/// # Errors
/// As of [`generate`].
pub fn generate_until(
    decoder: &mut impl Decoder,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
    stop: Stop<'_>,
) -> Result<Vec<Vec<u32>>, ModelError> {
    options.validate(prompts.len(), decoder.vocabulary())?;
    match options.beams {
        1 => sequential::search(decoder, prompts, options, stop),
        _ => beam::search(decoder, prompts, options, stop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores depend on the last token alone, by a table of probabilities.
    pub(super) struct Chain {
        pub(super) table: Vec<Vec<f32>>,
        pub(super) last: Vec<usize>,
    }

    impl Chain {
        pub(super) fn new(table: &[&[f32]], prompts: &[Vec<u32>]) -> Self {
            Self {
                table: table.iter().map(|row| row.to_vec()).collect(),
                last: prompts.iter().map(|prompt| *prompt.last().unwrap() as usize).collect(),
            }
        }
    }

    impl Decoder for Chain {
        fn vocabulary(&self) -> usize {
            self.table.len()
        }

        fn start(&mut self) -> Result<Vec<f32>, ModelError> {
            let logits = |last: &usize| self.table[*last].iter().map(|p| p.ln()).collect::<Vec<_>>();
            Ok(self.last.iter().flat_map(logits).collect())
        }

        fn advance(&mut self, parents: &[usize], tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
            assert!(parents.iter().all(|parent| *parent < self.last.len()));
            self.last = tokens.iter().map(|token| *token as usize).collect();
            self.start()
        }
    }

    fn sampled(beams: usize, sampling: Sampling) -> GenerateOptions {
        GenerateOptions { beams, sampling: Some(sampling), ..Default::default() }
    }

    #[test]
    fn contradictory_options_are_refused() {
        let prompts = vec![vec![0]];
        for (options, word) in [
            (GenerateOptions { beams: 0, ..Default::default() }, "beams"),
            (GenerateOptions { min_new_tokens: 31, ..Default::default() }, "min_new_tokens 31"),
            (GenerateOptions { repetition_penalty: 0.0, ..Default::default() }, "repetition_penalty"),
            (GenerateOptions { eos: vec![2], ..Default::default() }, "end token 2"),
            (sampled(2, Sampling::default()), "one beam"),
            (sampled(1, Sampling { temperature: 0.0, ..Default::default() }), "temperature 0"),
            (sampled(1, Sampling { top_p: 1.5, ..Default::default() }), "top_p 1.5"),
            (sampled(1, Sampling { numbers: vec![1, 2], ..Default::default() }), "2 numbers"),
        ] {
            let mut chain = Chain::new(&[&[0.5, 0.5], &[0.5, 0.5]], &prompts);
            let error = generate(&mut chain, &prompts, &options).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn scores_that_are_no_numbers_are_an_error() {
        let prompts = vec![vec![0]];
        for (beams, odd) in [(1, f32::NAN), (2, f32::NAN), (1, f32::INFINITY), (2, f32::INFINITY)] {
            let mut chain = Chain::new(&[&[odd, 0.5], &[0.5, 0.5]], &prompts);
            let options = GenerateOptions { beams, ..Default::default() };
            let error = generate(&mut chain, &prompts, &options).unwrap_err().to_string();
            assert!(error.contains("not a number"), "{error}");
        }
    }
}
