//! How texts are written in an evaluation: a preset, and flags that win over it.

use blip2_evaluation::captioning::{Captioner, Decoding};
use blip2_evaluation::job_error::{JobError, Result as JobResult};
use blip2_evaluation::presets::{self, Preset, Source, Written};
use blip2_evaluation::row_id::RowId;
use blip2_evaluation::writing::{Asked, ImageWriter, to_lines, write};
use blip2_images::RgbImage;
use blip2_model::language::generation::GenerateOptions;
use blip2_tensors::device::DeviceName;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::model::{AnsweringModel, ModelFolder};
use super::set::{SetArguments, aside, opened};
use crate::decoding::WeightDtype;
use crate::error::CliError;
use crate::typed_numbers::{count, length_penalty, repetition_penalty, some};

/// Preset, prompt and search.
#[derive(Debug, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Writing")]
pub(super) struct WritingArguments {
    /// Whose prompts, beams and penalties; the flags below win over it.
    #[arg(long, value_enum, default_value_t = PresetArgument::Paper)]
    preset: PresetArgument,
    /// What the language model continues; `{}` stands for the question.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Beams of the search; 1 is greedy.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=64))]
    beams: Option<u64>,
    /// Longest text in tokens; the prompt does not count.
    #[arg(long, value_name = "N", value_parser = some)]
    max_new_tokens: Option<usize>,
    /// No end before this many tokens.
    #[arg(long, value_name = "N", value_parser = count)]
    min_new_tokens: Option<usize>,
    /// Beams compare texts by the sum of their log probabilities over tokens^P.
    #[arg(long, value_name = "P", value_parser = length_penalty, allow_negative_numbers = true)]
    length_penalty: Option<f64>,
    /// Count N tokens more where beams compare lengths, as older `transformers` counted the prompt.
    #[arg(long, value_name = "N", value_parser = count)]
    length_penalty_offset: Option<usize>,
    /// Above 1, tokens that occurred before, in the prompt too, become less likely.
    #[arg(long, value_name = "R", value_parser = repetition_penalty)]
    repetition_penalty: Option<f32>,
    /// Texts written at a time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = some)]
    batch: usize,
    /// Numbers that the language model's matrices are kept in; fewer bits are read faster, on the CPU.
    #[arg(long, value_enum, default_value_t)]
    #[serde(default)]
    dtype: WeightDtype,
}

/// Whose numbers are to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PresetArgument {
    /// The paper's.
    Paper,
    /// LAVIS's files of evaluation.
    Lavis,
    /// LAVIS's file for NoCaps with a model that was not fine-tuned.
    LavisNocaps,
}

impl PresetArgument {
    fn source(self) -> Source {
        match self {
            Self::Paper => Source::Paper,
            Self::Lavis => Source::Lavis,
            Self::LavisNocaps => Source::LavisNocaps,
        }
    }
}

/// A model that writes, and how.
pub(super) struct Writer {
    pub(super) model: Box<dyn ImageWriter>,
    pub(super) decoding: Decoding,
    pub(super) prompt: String,
    /// For the record.
    pub(super) settings: Value,
    pub(super) notes: Vec<String>,
}

impl WritingArguments {
    /// Opens the model of a folder, to write as the preset and the flags say.
    pub(super) async fn of_folder(
        &self,
        folder: &ModelFolder,
        of: &SetArguments,
        written: Written,
    ) -> Result<Writer, CliError> {
        let (batch, folder) = (self.batch, folder.path.clone());
        let (device, side) = (of.device.unwrap_or(DeviceName::Cpu), of.image_size);
        let narrow = self.dtype.narrow();
        let captioner = opened(move || {
            let captioner = Captioner::open(&folder, device, narrow)?.with_batch(batch);
            match side {
                Some(side) => captioner.resized(side),
                None => Ok(captioner),
            }
        });
        self.writer(Box::new(captioner.await?), written)
    }

    /// Opens what answers questions.
    pub(super) async fn answering(
        &self,
        model: AnsweringModel,
        of: &SetArguments,
    ) -> Result<Writer, CliError> {
        match model {
            AnsweringModel::Folder(folder) => self.of_folder(&folder, of, Written::Answer).await,
            AnsweringModel::Checkpoint(checkpoint) => {
                if self.dtype != WeightDtype::F32 {
                    let reason = "--dtype: a run's checkpoint is read in f32; export it (checkpoint export)";
                    return Err(CliError::usage(reason));
                }
                let (device, side) = (of.device.unwrap_or(DeviceName::Cpu), of.image_size);
                let batch = self.batch;
                let answerer = opened(move || checkpoint.answerer(device, side, batch)).await?;
                self.writer(Box::new(answerer), Written::Answer)
            }
        }
    }

    fn writer(&self, model: Box<dyn ImageWriter>, written: Written) -> Result<Writer, CliError> {
        let preset = Preset::of(self.preset.source(), written, model.is_encoder_decoder());
        let (options, mut prompt) = self.over(&preset)?;
        if let Some(own) = model.own_prompt() {
            if self.prompt.is_some() {
                let reason =
                    format!("--prompt: this model was trained to answer behind its own prompt, \"{own}\"");
                return Err(CliError::usage(reason));
            }
            prompt = own;
        } else if written == Written::Answer && self.prompt.is_none() {
            prompt = model.question_prompt().unwrap_or(prompt);
        }
        let mut notes = Vec::new();
        let (own, side) = (model.image_size(), preset.image_size);
        if own != side {
            notes.push(format!("images of {own} pixels; the preset's numbers are of {side} (--image-size)"));
        }
        let mut settings = json!({
            "prompt": prompt, "beams": options.beams, "max_new_tokens": options.max_new_tokens,
            "min_new_tokens": options.min_new_tokens, "length_penalty": options.length_penalty,
            "length_penalty_offset": options.length_offset, "repetition_penalty": options.repetition_penalty,
            "batch": self.batch,
        });
        if self.dtype != WeightDtype::F32 {
            settings["dtype"] = json!(self.dtype);
        }
        Ok(Writer { model, decoding: options.into(), prompt, settings, notes })
    }

    /// The preset, with what was typed.
    fn over(&self, preset: &Preset) -> Result<(GenerateOptions, String), CliError> {
        let options = GenerateOptions {
            beams: self.beams.map_or(preset.beams, |beams| beams as usize),
            max_new_tokens: self.max_new_tokens.unwrap_or(preset.max_new_tokens),
            min_new_tokens: self.min_new_tokens.unwrap_or(preset.min_new_tokens),
            length_penalty: self.length_penalty.unwrap_or(preset.length_penalty),
            length_offset: self.length_penalty_offset.unwrap_or(preset.length_offset),
            repetition_penalty: self.repetition_penalty.unwrap_or(preset.repetition_penalty),
            ..GenerateOptions::default()
        };
        let (least, most) = (options.min_new_tokens, options.max_new_tokens);
        if least > most {
            let reason = format!("--min-new-tokens {least} is more than --max-new-tokens {most}");
            return Err(CliError::usage(reason));
        }
        Ok((options, self.prompt.clone().unwrap_or_else(|| preset.prompt.to_owned())))
    }
}

/// The lines of a unit: `images` and which is each item's, `asked` are the items' keys with their questions,
/// which are empty where the prompt asks for itself.
pub(super) async fn written_unit(
    writer: &mut Option<Writer>,
    (images, places): (Vec<RgbImage>, Vec<usize>),
    items: Vec<(RowId, String)>,
) -> JobResult<Vec<u8>> {
    let write = move |Writer { model, decoding, prompt, .. }: &mut Writer| {
        let asked = |(key, question): (RowId, String)| {
            (key, Asked { prompt: presets::asked(prompt, &question), question })
        };
        let (keys, asked): (Vec<_>, Vec<_>) = items.into_iter().map(asked).unzip();
        write(model.as_ref(), decoding, (&images, &places), &asked, keys)
    };
    let rows = aside(writer, write).await??;
    to_lines(&rows).map_err(|reason| JobError::Unit { place: "a unit's texts".to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        writing: WritingArguments,
    }

    fn typed(arguments: &[&str]) -> Result<(GenerateOptions, String), String> {
        let typed =
            Typed::try_parse_from([&["test"], arguments].concat()).map_err(|error| error.to_string())?;
        let preset = Preset::of(typed.writing.preset.source(), Written::Answer, false);
        typed.writing.over(&preset).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_win_over_the_preset() {
        let (options, prompt) = typed(&[]).unwrap();
        assert_eq!((options.beams, options.length_penalty), (5, -1.0));
        assert_eq!(prompt, "Question: {} Answer:");
        let flags = ["--preset", "lavis", "--beams", "1", "--prompt", "{}", "--length-penalty", "-0.5"];
        let (options, prompt) = typed(&flags).unwrap();
        assert_eq!((options.beams, options.length_penalty, options.max_new_tokens), (1, -0.5, 10));
        assert_eq!(prompt, "{}");
        assert!(typed(&["--min-new-tokens", "11"]).unwrap_err().contains("--max-new-tokens 10"));
    }
}
