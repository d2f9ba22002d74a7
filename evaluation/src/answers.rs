//! Scores of a model's answers to questions on images.

use std::collections::{BTreeMap, BTreeSet};

use crate::answer_files::questions::Question;
use crate::metrics::bootstrap::ScoreName;
use crate::metrics::means::{Item, Means};
use crate::metrics::vqa::{Mode, accuracy, direct_accuracy, is_right};
use crate::row_id::RowId;

/// What is counted of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// VQA's accuracy, also of OK-VQA.
    Accuracy(Mode),
    /// GQA's: right or wrong.
    Gqa,
    /// A-OKVQA's, of direct answers.
    Direct,
}

impl Measure {
    /// Of one answer, 0 to 1.
    pub fn of(self, question: &Question, answer: &str) -> f64 {
        match self {
            Self::Accuracy(mode) => accuracy(mode, &question.answers, answer),
            Self::Gqa => {
                f64::from(u8::from(question.answers.iter().any(|known| is_right(&known.answer, answer))))
            }
            Self::Direct => direct_accuracy(&question.answers, answer),
        }
    }
}

/// The means of what each question's answer counts, over all questions and over those of each type. `counts`
/// are in the order of the questions; images come in the order of their ids, whatever order the file has.
pub fn means(questions: &[Question], counts: &[f64]) -> Means {
    let types: BTreeSet<&(&'static str, String)> =
        questions.iter().flat_map(|question| &question.types).collect();
    let scores: BTreeMap<&(&'static str, String), usize> = types.into_iter().zip(1..).collect();
    let images: BTreeSet<&RowId> = questions.iter().map(|question| &question.image).collect();
    let images: BTreeMap<&RowId, usize> = images.into_iter().zip(0..).collect();
    let items = questions.iter().zip(counts).map(|(question, value)| Item {
        image: images[&question.image],
        value: *value,
        scores: [0].into_iter().chain(question.types.iter().map(|kind| scores[kind])).collect(),
    });
    let of_types = scores.keys().map(|(kind, name)| ScoreName::of("accuracy", kind, name.clone()));
    let names = [ScoreName::overall("accuracy")].into_iter().chain(of_types).collect();
    Means::new(names, images.len(), items)
}
