//! How a text is written, as it is typed: the options that `generate` and `chat` share.

use blip2_evaluation::captioning::Decoding;
use blip2_model::language::generation::{EarlyStopping, GenerateOptions, Sampling};
use blip2_tensors::device::DeviceName;
use blip2_tensors::device::placement::NarrowDtype;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::error::CliError;
use crate::typed_numbers::{count, length_penalty, repetition_penalty, some, temperature, top_p};

/// A model that writes, and how.
#[derive(Debug, Args)]
pub(crate) struct WriterArguments {
    /// An exported model: a folder or a URL.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: String,
    /// Device to compute on: `auto`, `cpu`, `cuda`, `cuda:N`, `vulkan` or `vulkan:N`.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub(crate) device: DeviceName,
    /// Numbers that the language model's matrices are kept in; fewer bits are read faster, on the CPU.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) dtype: WeightDtype,
    #[command(flatten)]
    pub(crate) decoding: DecodingArguments,
}

/// Numbers of a language model's matrices; all that is computed with them stays float32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WeightDtype {
    /// float32.
    #[default]
    F32,
    /// Half the bytes.
    Bf16,
    /// A quarter of the bytes: whole numbers with one scale for each output.
    Int8,
}

impl WeightDtype {
    /// The fewer bits, where there are to be any.
    pub(crate) fn narrow(self) -> Option<NarrowDtype> {
        match self {
            Self::F32 => None,
            Self::Bf16 => Some(NarrowDtype::Bf16),
            Self::Int8 => Some(NarrowDtype::Int8),
        }
    }
}

/// The options of the search, under the names of `transformers`' `generate` where it has them.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Writing")]
pub(crate) struct DecodingArguments {
    /// Beams of the search; 1 is greedy.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64), value_name = "N")]
    beams: u64,
    /// Longest text in tokens; the prompt does not count.
    #[arg(long, default_value_t = 30, value_parser = some, value_name = "N")]
    max_new_tokens: usize,
    /// No end before this many tokens.
    #[arg(long, default_value_t = 0, value_parser = count, value_name = "N")]
    min_new_tokens: usize,
    /// Beams compare texts by the sum of their log probabilities over tokens^P: 0 ignores the length, below 0
    /// short texts win.
    #[arg(long, default_value_t = 1.0, value_parser = length_penalty, allow_negative_numbers = true, value_name = "P")]
    length_penalty: f64,
    /// Above 1, tokens that occurred before, in the prompt too, become less likely.
    #[arg(long, default_value_t = 1.0, value_parser = repetition_penalty, value_name = "R")]
    repetition_penalty: f32,
    /// No N tokens in a row occur twice; 0 is off.
    #[arg(long, default_value_t = 0, value_parser = count, value_name = "N")]
    no_repeat_ngram_size: usize,
    /// When a full beam of finished texts ends the search.
    #[arg(long, value_enum, default_value_t = Early::Heuristic)]
    early_stopping: Early,
    /// Draw each token instead of taking the likeliest.
    #[arg(long, conflicts_with = "beams")]
    sample: bool,
    /// Divides the scores before a draw: below 1 likely tokens become likelier.
    #[arg(long, default_value_t = 1.0, requires = "sample", value_parser = temperature, value_name = "T")]
    temperature: f32,
    /// Draw from this many of the likeliest tokens; 0 is all.
    #[arg(long, default_value_t = 0, requires = "sample", value_parser = count, value_name = "K")]
    top_k: usize,
    /// Draw from the likeliest tokens that have this probability together; 1 is all.
    #[arg(long, default_value_t = 1.0, requires = "sample", value_parser = top_p, value_name = "P")]
    top_p: f64,
    /// Chooses the draws: the same seed, pictures and prompt give the same texts.
    #[arg(long, default_value_t = 0, requires = "sample", value_name = "SEED")]
    seed: u64,
    /// End a text before this string; may be repeated.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    stop: Vec<String>,
}

/// When a full beam of finished texts ends the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Early {
    /// When the best running text would not enter the beam at its present length.
    Heuristic,
    /// At once.
    WhenFull,
    /// When no running text can enter the beam at any length.
    Never,
}

impl DecodingArguments {
    /// Tokens that the longest text has.
    pub(crate) fn max_new_tokens(&self) -> usize {
        self.max_new_tokens
    }

    /// Texts end before these strings too.
    pub(crate) fn also_stop_at(&mut self, stop: &str) {
        self.stop.push(stop.to_owned());
    }

    /// What they ask for, with `samples` texts for each prompt.
    ///
    /// # Errors
    /// Usage: the shortest text is longer than the longest.
    pub(crate) fn decoding(&self, samples: usize) -> Result<Decoding, CliError> {
        let (least, most) = (self.min_new_tokens, self.max_new_tokens);
        if least > most {
            return Err(CliError::usage(format!(
                "--min-new-tokens {least} is more than --max-new-tokens {most}"
            )));
        }
        let sampling = self.sample.then(|| Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            seed: self.seed,
            ..Sampling::default()
        });
        let options = GenerateOptions {
            max_new_tokens: self.max_new_tokens,
            min_new_tokens: self.min_new_tokens,
            beams: self.beams as usize,
            length_penalty: self.length_penalty,
            length_offset: 0,
            repetition_penalty: self.repetition_penalty,
            early_stopping: match self.early_stopping {
                Early::Heuristic => EarlyStopping::Heuristic,
                Early::WhenFull => EarlyStopping::WhenFull,
                Early::Never => EarlyStopping::Never,
            },
            sampling,
            no_repeat_ngram: self.no_repeat_ngram_size,
            eos: Vec::new(),
        };
        Ok(Decoding { options, stop: self.stop.clone(), samples })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        writing: DecodingArguments,
    }

    fn typed(arguments: &[&str]) -> Result<Decoding, String> {
        let typed = Typed::try_parse_from([&["test"], arguments].concat());
        typed.map_err(|error| error.to_string())?.writing.decoding(2).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_typed_reaches_the_search() {
        let plain = typed(&[]).unwrap();
        assert_eq!(plain, Decoding { samples: 2, ..GenerateOptions::default().into() });
        let beams =
            typed(&["--beams", "5", "--length-penalty", "-1", "--early-stopping", "never", "--stop", "."]);
        let beams = beams.unwrap();
        assert_eq!((beams.options.beams, beams.options.length_penalty), (5, -1.0));
        assert_eq!((beams.options.early_stopping, beams.stop), (EarlyStopping::Never, vec![".".to_owned()]));
        let drawn =
            typed(&["--sample", "--top-p", "0.9", "--top-k", "7", "--seed", "3", "--temperature", "0.5"]);
        let sampling = Sampling { temperature: 0.5, top_k: 7, top_p: 0.9, seed: 3, numbers: Vec::new() };
        assert_eq!(drawn.unwrap().options.sampling, Some(sampling));
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for arguments in
            [&["--sample", "--beams", "2"][..], &["--top-p", "0.9"], &["--stop", ""], &["--beams", "0"]]
        {
            assert!(typed(arguments).is_err(), "{arguments:?}");
        }
        let error = typed(&["--min-new-tokens", "5", "--max-new-tokens", "4"]).unwrap_err();
        assert!(error.contains("--min-new-tokens 5"), "{error}");
    }

    #[test]
    fn numbers_have_ranges() {
        for (flag, odd) in [
            ("--temperature", &["0", "-1", "nan", "inf", "1e-30"][..]),
            ("--top-p", &["0", "-0.1", "1.5", "nan"]),
            ("--top-k", &["-1", "1.5", "99999999999"]),
            ("--length-penalty", &["nan", "inf", "1e300", "-6"]),
            ("--repetition-penalty", &["0", "-1", "nan", "inf"]),
            ("--max-new-tokens", &["0", "-1", "18446744073709551615"]),
            ("--min-new-tokens", &["-1", "18446744073709551615"]),
            ("--no-repeat-ngram-size", &["-1", "18446744073709551615"]),
            ("--beams", &["0", "-1", "65"]),
        ] {
            for odd in odd {
                let error = typed(&["--sample", &format!("{flag}={odd}")]).unwrap_err();
                assert!(error.contains(flag), "{flag} {odd}: {error}");
            }
        }
    }
}
