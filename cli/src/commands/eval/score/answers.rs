//! Answers to questions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use blip2_evaluation::answer_files::questions::{self, Form, Question};
use blip2_evaluation::answer_files::{lemmas, results};
use blip2_evaluation::answers::{Measure, means};
use blip2_evaluation::metrics::vqa::Mode;

use super::references::{Case, Judged, References};
use crate::error::CliError;

/// Questions with the answers of people.
pub(in crate::commands::eval) struct AnswerReferences {
    questions: Vec<Question>,
    measure: Measure,
    /// Where predictions are to be lemmatised: the file that says how, if there is one.
    lemmas: Option<Option<PathBuf>>,
}

impl AnswerReferences {
    /// Reads the references, and the questions' texts where they lie in a file of their own.
    pub(in crate::commands::eval) fn read(
        path: &Path,
        texts: Option<&Path>,
        measure: Measure,
    ) -> Result<Self, CliError> {
        let form = match measure {
            Measure::Accuracy(_) => Form::Vqa,
            Measure::Gqa => Form::Gqa,
            Measure::Direct => Form::AOkVqa,
        };
        let mut questions = questions::read(path, form)?;
        if let Some(texts) = texts {
            questions::add_texts(texts, &mut questions)?;
        }
        Ok(Self { questions, measure, lemmas: None })
    }

    /// Of questions that were read.
    pub(in crate::commands::eval) fn of(questions: Vec<Question>, measure: Measure) -> Self {
        Self { questions, measure, lemmas: None }
    }

    /// With predictions as the file has them, which published numbers need.
    pub(in crate::commands::eval) fn lemmatised(self, lemmas: Option<PathBuf>) -> Self {
        Self { lemmas: Some(lemmas), ..self }
    }

    /// The scores of an answer to each question, in their order.
    pub(in crate::commands::eval) fn judged(&self, answers: &[String]) -> Judged {
        let answered = || self.questions.iter().zip(answers);
        let counts: Vec<f64> =
            answered().map(|(question, answer)| self.measure.of(question, answer)).collect();
        let cases =
            answered().zip(&counts).map(|((question, answer), count)| self.case(question, answer, *count));
        let cases = cases.collect();
        Judged { scored: Box::new(means(&self.questions, &counts)), cases }
    }

    fn case(&self, question: &Question, answer: &str, count: f64) -> Case {
        Case {
            thumbnail: None,
            key: format!("question {}, image {}", question.id, question.image),
            asked: question.text.clone(),
            expected: counted(question),
            given: answer.to_owned(),
            score: format!("{:.2}", 100.0 * count),
            order: count,
        }
    }
}

/// The answers of people, the most frequent first.
fn counted(question: &Question) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for answer in &question.answers {
        *counts.entry(&answer.answer).or_default() += 1;
    }
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let shown = |(answer, count): (&str, usize)| match count {
        1 => answer.to_owned(),
        count => format!("{answer} ×{count}"),
    };
    counts.into_iter().map(shown).collect::<Vec<_>>().join(", ")
}

impl References for AnswerReferences {
    fn judge(&self, path: &Path) -> Result<Judged, CliError> {
        let mut answers = results::read(path, &self.questions)?;
        if let Some(Some(lemmatised)) = &self.lemmas {
            answers = lemmas::apply(lemmatised, &answers)?;
        }
        Ok(self.judged(&answers))
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.lemmas == Some(None) {
            notes.push(
                "without lemmatiser: published numbers are of lemmatised predictions (--lemmas)".to_owned(),
            );
        }
        let alone = self.questions.iter().filter(|question| question.answers.len() == 1).count();
        let leaves_one_out = matches!(self.measure, Measure::Accuracy(mode) if mode != Mode::Exact);
        if leaves_one_out && alone > 0 {
            let all = self.questions.len();
            notes.push(format!(
                "questions with one answer count 0 whatever is answered ({alone} of {all}): --mode exact compares it"
            ));
        }
        notes
    }
}
