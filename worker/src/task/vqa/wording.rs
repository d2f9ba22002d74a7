//! Words in which questions are put before anything reads them.

use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;

use blip2_dataset::text::{Cut, Question, TextEncoder};
use blip2_model::blip2::asking::{Asking, QFormerReads};
use blip2_model::padded::Padded;

use crate::error::Result;
use crate::open::qformer_text_cut;
use crate::settings::model::ModelSettings;

/// Puts questions into words.
pub(in crate::task) trait Wording: fmt::Debug + Send {
    /// Those of a sample in training: a function of the sample alone, whoever computes it.
    fn drawn(&self, question: &str, sample: u64) -> String;

    /// Those of held-out rows.
    fn held_out(&self, question: &str) -> String;

    /// Those of held-out rows, with a place for the question, as a folder says how its model is asked.
    fn prompt(&self) -> &str;
}

/// A wording, and how the Q-Former reads the words: their last tokens, as many as there is room for.
#[derive(Debug)]
pub(in crate::task) struct Worded {
    wording: Box<dyn Wording>,
    length: usize,
    encoder: OnceCell<Arc<TextEncoder>>,
}

/// Texts as the Q-Former reads them, padded to one length.
pub(super) struct ReadTexts {
    ids: Vec<i32>,
    mask: Vec<i32>,
}

impl ReadTexts {
    pub(super) fn questions(&self) -> Padded<'_> {
        Padded { ids: &self.ids, mask: &self.mask }
    }
}

impl Worded {
    pub(in crate::task) fn new(wording: Box<dyn Wording>, length: usize) -> Self {
        Self { wording, length, encoder: OnceCell::new() }
    }

    /// The words of a slot's questions.
    pub(super) fn drawn(&self, questions: &[Question], samples: &[u64]) -> Vec<String> {
        let rows = questions.iter().zip(samples);
        rows.map(|(question, sample)| self.wording.drawn(&question.text, *sample)).collect()
    }

    /// The words of a held-out question.
    pub(super) fn held_out(&self, question: &str) -> String {
        self.wording.held_out(question)
    }

    /// How the model is asked, for its folder: both its parts read the words.
    pub(super) fn asking(&self) -> Asking {
        Asking { prompt: self.wording.prompt().into(), qformer: QFormerReads::Prompt }
    }

    /// The words as the Q-Former reads them.
    ///
    /// # Errors
    /// No tokenizer where `model` names it, or one that refuses a text.
    pub(super) fn read(&self, model: &ModelSettings, texts: &[String]) -> Result<ReadTexts> {
        let encoder = match self.encoder.get() {
            Some(encoder) => encoder,
            None => {
                let (opened, _) = qformer_text_cut(model, self.length, ("", ""), Cut::First)?;
                self.encoder.get_or_init(|| opened)
            }
        };
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for text in texts {
            let tokens = encoder.encode(text)?;
            ids.extend(tokens.ids);
            mask.extend(tokens.mask);
        }
        Ok(ReadTexts { ids, mask })
    }
}
