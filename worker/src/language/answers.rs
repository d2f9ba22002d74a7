//! Questions with answers, and instructions with what they ask for, as texts of a language model.

use blip2_dataset::text::{TextEncoder, Tokens};
use blip2_model::blip2::asking::{CONTINUED, PLACE, READ};
use blip2_model::language::LanguageModel;
use blip2_model::language::generation::GenerateOptions;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::batch::{CaptionBatch, Flat};
use crate::error::{Result, WorkerError};

/// How a stage's questions and answers become texts of the language model.
pub(crate) struct AnswerTexts {
    /// The prompt before and behind the question; nothing where the question is the whole instruction.
    around: (String, String),
    /// Cuts a prompt that is too long to one token more than fits; an instruction not at all.
    prompts: TextEncoder,
    form: Form,
    /// Where the question is a whole instruction, of which the last tokens are read: what ends that which it
    /// asks for, whatever ends a caption of the family.
    instructed_end: Option<u32>,
    pad: u32,
    /// Tokens of a prompt, and of an answer.
    lengths: (usize, usize),
}

/// How a family answers.
enum Form {
    /// A decoder writes the answer behind the prompt: of both together.
    Continued(TextEncoder),
    /// An encoder reads the prompt, a decoder writes the answer.
    Read(TextEncoder),
}

/// Tokens that no instruction with its answer has.
const WHOLE: usize = 1 << 20;

/// A question and its answer, or an instruction and what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AskedText<'a> {
    pub(crate) question: &'a str,
    pub(crate) answer: &'a str,
}

/// An answer that the language model wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GeneratedAnswer {
    /// Trimmed.
    pub(crate) text: String,
    /// With the end token.
    pub(crate) tokens: Vec<u32>,
}

impl AnswerTexts {
    /// The texts behind `prompt`, or behind that of the family where it is empty; `lengths` are the tokens of
    /// a prompt and of an answer, and `open` opens the tokenizer for texts of a length.
    ///
    /// # Errors
    /// Those of `open`; a prompt without a place for the question, or one that does not fit.
    pub(super) fn open(
        prompt: &str,
        lengths: (usize, usize),
        encoder_decoder: bool,
        open: impl Fn(usize) -> Result<TextEncoder>,
    ) -> Result<Self> {
        let prompt = match (prompt, encoder_decoder) {
            ("", true) => READ,
            ("", false) => CONTINUED,
            (prompt, _) => prompt,
        };
        let Some((before, after)) = prompt.split_once(PLACE) else {
            let reason = format!("the prompt \"{prompt}\" has no {PLACE} for the question");
            return Err(WorkerError::Configuration(reason));
        };
        let (of_prompt, of_answer) = lengths;
        let prompts = open(of_prompt + 1)?;
        let form = match encoder_decoder {
            true => Form::Read(open(of_answer)?),
            false => Form::Continued(open(of_prompt + of_answer)?),
        };
        let pad = prompts.encoding().pad_id;
        let around = (before.into(), after.into());
        let texts = Self { around, prompts, form, instructed_end: None, pad, lengths };
        if texts.prompts.encode_plain(&texts.framed(""))?.len() > of_prompt {
            let reason =
                format!("{of_prompt} tokens do not hold the prompt \"{prompt}\": raise prompt_length");
            return Err(WorkerError::Configuration(reason));
        }
        Ok(texts)
    }

    /// The texts of instructions, in the place of questions: the last tokens of an instruction are read, and
    /// what is asked for ends with the end token `end`.
    ///
    /// # Errors
    /// Those of `open`.
    pub(super) fn of_instructions(
        lengths: (usize, usize),
        end: u32,
        encoder_decoder: bool,
        open: impl Fn(usize) -> Result<TextEncoder>,
    ) -> Result<Self> {
        let prompts = open(WHOLE)?;
        let form = match encoder_decoder {
            true => Form::Read(open(lengths.1)?),
            false => Form::Continued(open(WHOLE)?),
        };
        let pad = prompts.encoding().pad_id;
        Ok(Self { around: Default::default(), prompts, form, instructed_end: Some(end), pad, lengths })
    }

    /// The prompt before and behind the question.
    pub(crate) fn around(&self) -> (&str, &str) {
        (&self.around.0, &self.around.1)
    }

    fn framed(&self, question: &str) -> String {
        let (before, after) = self.around();
        format!("{before}{question}{after}")
    }

    /// The prompt with the question, and its tokens. Of a question that is too long the last words are left
    /// out: the prompt itself is never cut.
    fn prompt(&self, question: &str) -> Result<(String, Vec<u32>)> {
        if self.instructed_end.is_some() {
            let ids = self.last_of(self.prompts.encode_plain(question)?)?;
            return Ok((question.to_owned(), ids));
        }
        let mut words: Vec<&str> = question.split_whitespace().collect();
        loop {
            let prompt = self.framed(&words.join(" "));
            let ids = self.prompts.encode_plain(&prompt)?;
            if ids.len() <= self.lengths.0 || words.pop().is_none() {
                return Ok((prompt, ids));
            }
        }
    }

    /// The texts of questions with their answers, with a loss on the answer and its end token alone;
    /// `weights` are the factors of their losses, or none.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub(crate) fn batch(&self, texts: &[AskedText<'_>], weights: Vec<f32>) -> Result<CaptionBatch> {
        let mut batch = CaptionBatch { weights, ..CaptionBatch::default() };
        for text in texts {
            let (prompt, ids) = self.prompt(text.question)?;
            batch.rows += 1;
            match (&self.form, self.instructed_end) {
                (Form::Read(answers), _) => {
                    batch.prefix.push(self.padded(&ids, self.lengths.0));
                    let mut answer = Flat::default();
                    answer.push(answers.encode(text.answer)?);
                    batch.labels.extend(answer.labels(1, 0));
                    batch.text.append(answer);
                }
                (Form::Continued(whole), Some(end)) => {
                    let (both, given) = self.instructed(whole, end, text)?;
                    batch.labels.extend(both.labels(1, given));
                    batch.text.append(both);
                }
                // The space is the answer's: a word behind one is another token than the same at the
                // beginning of a text.
                (Form::Continued(whole), None) => {
                    let tokens = whole.encode(&format!("{prompt} {}", text.answer))?;
                    let given = ids.iter().zip(&tokens.ids).take_while(|(a, b)| **a as i32 == **b).count();
                    let mut both = Flat::default();
                    both.push(tokens);
                    batch.labels.extend(both.labels(1, given));
                    batch.text.append(both);
                }
            }
        }
        Ok(batch)
    }

    /// The last tokens of an instruction, as many as fit, behind a start token.
    fn last_of(&self, mut ids: Vec<u32>) -> Result<Vec<u32>> {
        let excess = ids.len().saturating_sub(self.lengths.0);
        if excess > 0 {
            let starts = match self.form {
                // Its encoder's texts begin with nothing, and end with the token that stays.
                Form::Read(_) => 0,
                Form::Continued(_) => self.prompts.encode_plain("")?.len().min(1),
            };
            ids.drain(starts..starts + excess);
        }
        Ok(ids)
    }

    /// An instruction with what it asks for, which a decoder writes behind it, and how many of the tokens are
    /// given. The space between them is that of the answer.
    fn instructed(&self, whole: &TextEncoder, end: u32, text: &AskedText<'_>) -> Result<(Flat, usize)> {
        let asked = whole.encode_plain(text.question)?;
        let mut ids = whole.encode_plain(&format!("{} {}", text.question, text.answer))?;
        let given = asked.iter().zip(&ids).take_while(|(a, b)| a == b).count();
        let mut answer = ids.split_off(given);
        // A text that is cut does not end.
        answer.push(end);
        answer.truncate(self.lengths.1);
        let mut ids = self.last_of(ids)?;
        let given = ids.len();
        ids.append(&mut answer);
        let mut both = Flat::default();
        both.push(self.padded(&ids, self.lengths.0 + self.lengths.1));
        Ok((both, given))
    }

    /// Tokens padded on the right to a length.
    fn padded(&self, ids: &[u32], length: usize) -> Tokens {
        // Vocabularies are far smaller than 2^31.
        let mut padded: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let mut mask = vec![1; padded.len()];
        padded.resize(length, self.pad as i32);
        mask.resize(length, 0);
        Tokens { ids: padded, mask, has_text: true }
    }

    /// The search that takes the likeliest token each time.
    pub(crate) fn greedy(&self) -> GenerateOptions {
        GenerateOptions { max_new_tokens: self.lengths.1, ..GenerateOptions::default() }
    }

    /// What `model` answers behind each question's soft prompt, as `search` has it but for the end tokens.
    ///
    /// # Shapes
    /// - soft_prompts `[questions, queries, width]`
    ///
    /// # Errors
    /// A text that the tokenizer refuses, a device that fails.
    pub(crate) fn written(
        &self,
        model: &LanguageModel,
        soft_prompts: Tensor<3>,
        questions: &[&str],
        search: &GenerateOptions,
        device: &Device,
    ) -> Result<Vec<GeneratedAnswer>> {
        let prompts: Vec<Vec<u32>> =
            questions.iter().map(|question| Ok(self.prompt(question)?.1)).collect::<Result<_>>()?;
        let [rows, queries, _] = soft_prompts.dims();
        // A decoder goes on behind the last place of a row; an encoder's positions are distances, which
        // padding between the soft prompt and the text would change.
        let side = match self.form {
            Form::Continued(_) => Side::Left,
            Form::Read(_) => Side::Right,
        };
        let (ids, mask) = padded_to_longest(&prompts, self.pad, side, device);
        let inputs = Tensor::cat(vec![soft_prompts, model.embed(ids)], 1);
        let mask = Tensor::cat(vec![Tensor::ones([rows, queries], device), mask], 1);
        let options = GenerateOptions { eos: self.end_tokens(model)?, ..search.clone() };
        let written = model.generate(inputs, mask, &prompts, &options, &|_| false)?;
        let text = |tokens: Vec<u32>| {
            let text = self.prompts.decode(&tokens, true)?.trim().to_owned();
            Ok(GeneratedAnswer { text, tokens })
        };
        written.into_iter().map(text).collect()
    }

    /// The tokens that end an answer, as it was trained.
    fn end_tokens(&self, model: &LanguageModel) -> Result<Vec<u32>> {
        let tokens = model.special_tokens();
        if let Some(end) = self.instructed_end {
            return Ok([end].into_iter().chain(tokens.eos).collect());
        }
        match tokens.captions_end_with_newline {
            true => {
                Ok(self.prompts.encode_plain("\n")?.last().copied().into_iter().chain(tokens.eos).collect())
            }
            false => Ok(tokens.eos),
        }
    }
}

/// Where rows are padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// Ids and their mask, padded to the longest.
fn padded_to_longest(
    prompts: &[Vec<u32>],
    pad: u32,
    side: Side,
    device: &Device,
) -> (Tensor<2, Int>, Tensor<2, Int>) {
    let length = prompts.iter().map(Vec::len).max().unwrap_or_default();
    let (mut ids, mut mask) = (Vec::new(), Vec::new());
    for prompt in prompts {
        let missing = length - prompt.len();
        let (left, right) = if side == Side::Left { (missing, 0) } else { (0, missing) };
        for (padding, text) in [(left, &prompt[..]), (right, &[][..])] {
            ids.extend(std::iter::repeat_n(pad as i32, padding).chain(text.iter().map(|id| *id as i32)));
            mask.extend(std::iter::repeat_n(0, padding).chain(std::iter::repeat_n(1, text.len())));
        }
    }
    let tensor =
        |values: Vec<i32>| Tensor::from_data(TensorData::new(values, [prompts.len(), length]), device);
    (tensor(ids), tensor(mask))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use blip2_evaluation::tokenizer::open_tokenizer;
    use blip2_tensors::train::loss::IGNORED;

    use super::*;
    use crate::language::encoding::encoding;

    fn texts(backbone: &str, prompt: &str, lengths: (usize, usize)) -> Result<(AnswerTexts, LanguageModel)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones").join(backbone);
        let model = LanguageModel::open(&folder, Device::flex()).unwrap();
        let (tokens, encoder_decoder) = (model.special_tokens(), model.is_encoder_decoder());
        let open = |length| Ok(open_tokenizer(&folder, encoding(length, "", &tokens, encoder_decoder))?);
        Ok((AnswerTexts::open(prompt, lengths, encoder_decoder, open)?, model))
    }

    fn said(texts: &AnswerTexts, ids: &[i32]) -> String {
        let ids: Vec<u32> = ids.iter().map(|id| *id as u32).collect();
        texts.prompts.decode(&ids, true).unwrap()
    }

    #[test]
    fn a_decoders_loss_is_that_of_the_answer_with_its_space_and_its_end() {
        let (texts, _) = texts("opt-tiny", "", (24, 6)).unwrap();
        let asked = AskedText { question: "what is this?", answer: "red car" };
        let batch = texts.batch(&[asked], Vec::new()).unwrap();
        assert_eq!((batch.text.ids.len(), batch.prefix.ids.len()), (30, 0));
        let used = batch.text.mask.iter().filter(|used| **used == 1).count();
        assert_eq!(said(&texts, &batch.text.ids[..used]), "Question: what is this? Answer: red car\n");
        let labels: Vec<i32> = batch.labels.iter().copied().filter(|label| *label != IGNORED).collect();
        assert_eq!(said(&texts, &labels), " red car\n");
        // They are the last of the text: what is before them is given.
        assert_eq!(batch.labels[used - labels.len()..used], labels);
    }

    #[test]
    fn an_encoder_reads_the_question_and_the_answer_is_written() {
        let (texts, model) = texts("t5-scenes", "", (24, 6)).unwrap();
        let asked = AskedText { question: "what is this?", answer: "red car" };
        let batch = texts.batch(&[asked; 2], vec![0.3, 0.7]).unwrap();
        assert_eq!((batch.prefix.ids.len(), batch.text.ids.len(), batch.weights.len()), (48, 12, 2));
        assert!(
            said(&texts, &batch.prefix.ids[..24]).trim().ends_with("hort answer:"),
            "the family's prompt"
        );
        let labels: Vec<i32> = batch.labels[..6].iter().copied().filter(|label| *label != IGNORED).collect();
        assert_eq!(said(&texts, &labels), "red car");
        assert!(model.special_tokens().eos.contains(&(*labels.last().unwrap() as u32)), "{labels:?}");
    }

    #[test]
    fn of_a_long_question_words_are_left_out_and_the_prompt_stays() {
        for backbone in ["opt-tiny", "t5-scenes"] {
            let (texts, _) = texts(backbone, "Q: {} A:", (16, 4)).unwrap();
            let long = "what is this red car ".repeat(20);
            let (prompt, ids) = texts.prompt(&long).unwrap();
            assert!(ids.len() <= 16, "{backbone}: {ids:?}");
            assert!(prompt.starts_with("Q: what is") && prompt.ends_with(" A:"), "{backbone}: {prompt}");
            let batch = texts.batch(&[AskedText { question: &long, answer: "car" }], Vec::new()).unwrap();
            assert!(batch.tokens() >= 2, "{backbone}: the answer is whole");
        }
    }

    fn instructions(backbone: &str, lengths: (usize, usize)) -> (AnswerTexts, LanguageModel) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/backbones").join(backbone);
        let model = LanguageModel::open(&folder, Device::flex()).unwrap();
        let (tokens, encoder_decoder) = (model.special_tokens(), model.is_encoder_decoder());
        let open = |length| Ok(open_tokenizer(&folder, encoding(length, "", &tokens, encoder_decoder))?);
        (AnswerTexts::of_instructions(lengths, tokens.eos[0], encoder_decoder, open).unwrap(), model)
    }

    #[test]
    fn of_an_instruction_the_end_is_read_and_what_it_asks_for_ends_with_the_end_token() {
        let long = "red green blue yellow ".repeat(20) + "what is this?";
        for backbone in ["opt-tiny", "t5-scenes"] {
            let (texts, model) = instructions(backbone, (12, 6));
            let end = model.special_tokens().eos[0] as i32;
            let asked = AskedText { question: &long, answer: "car" };
            let batch = texts.batch(&[asked], Vec::new()).unwrap();
            let labels: Vec<i32> = batch.labels.iter().copied().filter(|label| *label != IGNORED).collect();
            assert_eq!(labels.last(), Some(&end), "{backbone}");
            assert_eq!(said(&texts, &labels).trim(), "car", "{backbone}");
            let (_, ids) = texts.prompt(&long).unwrap();
            assert_eq!(ids.len(), 12, "{backbone}");
            let read: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
            assert!(said(&texts, &read).trim().ends_with("what is this?"), "{backbone}");
            match model.is_encoder_decoder() {
                true => assert_eq!((batch.prefix.ids.len(), batch.prefix.ids[11]), (12, end)),
                // The start token stays, and so does all that comes behind the instruction.
                false => {
                    assert_eq!((&batch.text.ids[..12], batch.text.ids.len()), (&read[..], 18));
                    assert_eq!(read[0], texts.prompts.encode_plain("").unwrap()[0] as i32);
                    assert_eq!(batch.labels[..12], [IGNORED; 12]);
                }
            }
            // Of a long answer the end is cut off.
            let asked = AskedText { question: "what is this?", answer: &long };
            assert_eq!(texts.batch(&[asked], Vec::new()).unwrap().tokens(), 6, "{backbone}");
        }
    }

    #[test]
    fn prompts_that_cannot_ask_are_refused() {
        let error = |prompt, lengths| texts("opt-tiny", prompt, lengths).err().unwrap().to_string();
        assert!(error("Answer:", (24, 6)).contains("{}"));
        assert!(error("Question: {} Answer:", (3, 6)).contains("prompt_length"));
    }

    #[test]
    fn answers_are_written_behind_prompts_of_any_lengths() {
        let device = Device::flex();
        for backbone in ["opt-tiny", "t5-scenes"] {
            let (texts, model) = texts(backbone, "", (24, 4)).unwrap();
            let soft = Tensor::<3>::ones([2, 3, model.width()], &device) * 0.1;
            for beams in [1, 3] {
                let search = GenerateOptions { beams, ..texts.greedy() };
                let write = |soft: Tensor<3>, questions: &[&str]| {
                    texts.written(&model, soft, questions, &search, &device).unwrap()
                };
                let both = write(soft.clone(), &["what is this red car?", "why?"]);
                let alone = write(soft.clone().narrow(0, 1, 1), &["why?"]);
                assert_eq!(both[1..], alone, "{backbone}, {beams} beams: padding is not read");
            }
        }
    }
}
