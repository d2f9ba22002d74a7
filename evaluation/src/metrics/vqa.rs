//! Accuracy of short answers against those of people.

mod contractions;
pub mod normalise;

use std::collections::{BTreeMap, BTreeSet};

use normalise::{clean, evalai_without_marks_and_articles, punctuation, without_marks_and_articles};

use crate::row_id::RowId;

/// Whose accuracy is computed: they differ in what is normalised before answers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The data set's own evaluator: both sides are normalised, where people do not all say the same.
    #[default]
    Official,
    /// LAVIS's: the prediction is always normalised, answers only lose their marks.
    Lavis,
    /// EvalAI's server, as MMF and lmms-eval have it.
    EvalAi,
    /// Right or wrong: the normalised prediction is one of the normalised answers. For questions with one
    /// answer.
    Exact,
}

/// What one person answered. Two that are equal in everything count as one where one is left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanAnswer {
    /// As it was written.
    pub answer: String,
    /// How sure the person was.
    pub confidence: Option<RowId>,
    /// Its number among the question's.
    pub id: Option<RowId>,
}

impl HumanAnswer {
    /// Answers without ids: each is of another person.
    pub fn numbered(answers: impl IntoIterator<Item = String>) -> Vec<Self> {
        let numbered = (0..).zip(answers);
        numbered.map(|(id, answer)| Self { answer, confidence: None, id: Some(RowId::Number(id)) }).collect()
    }

    fn with(&self, answer: String) -> Self {
        Self { answer, ..self.clone() }
    }
}

/// Accuracy of a prediction, 0 to 1: the mean over people of whether three of the *others* said the same, a
/// third for each. Three of ten give 0.9; the only answer there is gives 0, because nobody else is left.
pub fn accuracy(mode: Mode, answers: &[HumanAnswer], prediction: &str) -> f64 {
    match mode {
        Mode::Official => of_official(answers, clean(prediction), without_marks_and_articles),
        Mode::Lavis => of_lavis(answers, prediction),
        Mode::EvalAi => of_official(answers, for_evalai(prediction), evalai_without_marks_and_articles),
        Mode::Exact => {
            let normalised = |text: &str| without_marks_and_articles(&clean(text));
            let said = normalised(prediction);
            f64::from(u8::from(answers.iter().any(|answer| normalised(&answer.answer) == said)))
        }
    }
}

/// Accuracy on GQA, 0 or 1: both sides normalised, and the same.
pub fn is_right(answer: &str, prediction: &str) -> bool {
    without_marks_and_articles(answer) == without_marks_and_articles(prediction)
}

/// Accuracy of direct answers on A-OKVQA, 0 to 1: as written, a third for each that is the same.
pub fn direct_accuracy(answers: &[HumanAnswer], prediction: &str) -> f64 {
    thirds(answers.iter().filter(|answer| answer.answer == prediction).count())
}

/// Where not all say the same, both sides are normalised.
fn of_official(answers: &[HumanAnswer], prediction: String, normalised: fn(&str) -> String) -> f64 {
    let cleaned: Vec<_> = answers.iter().map(|answer| answer.with(clean(&answer.answer))).collect();
    if are_all_alike(&cleaned) {
        return leaving_one_out(&cleaned, &prediction);
    }
    let answers: Vec<_> = cleaned.iter().map(|answer| answer.with(normalised(&answer.answer))).collect();
    leaving_one_out(&answers, &normalised(&prediction))
}

fn of_lavis(answers: &[HumanAnswer], prediction: &str) -> f64 {
    let prediction = without_marks_and_articles(&clean(prediction));
    if are_all_alike(answers) {
        return leaving_one_out(answers, &prediction);
    }
    let without_marks: Vec<_> =
        answers.iter().map(|answer| answer.with(punctuation(&answer.answer))).collect();
    leaving_one_out(&without_marks, &prediction)
}

/// The server's own step before the official ones.
fn for_evalai(prediction: &str) -> String {
    let spoken = prediction.to_lowercase().replace([',', '?'], "").replace("'s", " 's");
    evalai_without_marks_and_articles(&clean(&spoken))
}

fn are_all_alike(answers: &[HumanAnswer]) -> bool {
    let different: BTreeSet<&str> = answers.iter().map(|answer| answer.answer.as_str()).collect();
    different.len() <= 1
}

/// The mean over records of how many *other* records are the prediction.
fn leaving_one_out(answers: &[HumanAnswer], prediction: &str) -> f64 {
    let mut same: BTreeMap<&HumanAnswer, usize> = BTreeMap::new();
    for answer in answers.iter().filter(|answer| answer.answer == prediction) {
        *same.entry(answer).or_default() += 1;
    }
    let matching: usize = same.values().sum();
    // Equal records are left out together.
    let others = |answer| matching - same.get(answer).copied().unwrap_or_default();
    let sum: f64 = answers.iter().map(|answer| thirds(others(answer))).sum();
    sum / answers.len().max(1) as f64
}

fn thirds(matching: usize) -> f64 {
    (matching as f64 / 3.0).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(answers: &[(&str, usize)]) -> Vec<HumanAnswer> {
        let all = answers.iter().flat_map(|(answer, times)| vec![(*answer).to_owned(); *times]);
        HumanAnswer::numbered(all)
    }

    #[test]
    fn three_others_make_it_right() {
        for (times, expected) in [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)] {
            let answers = said(&[("cat", times), ("dog", 10 - times)]);
            let value = accuracy(Mode::Official, &answers, "cat");
            assert!((value - expected).abs() < 1e-12, "{times}: {value}");
        }
        assert_eq!(accuracy(Mode::Official, &said(&[("cat", 1)]), "cat"), 0.0, "there is no other");
        assert_eq!(accuracy(Mode::Official, &[], "cat"), 0.0);
    }

    #[test]
    fn the_server_normalises_predictions_where_all_answers_are_alike() {
        let alike = said(&[("2", 10)]);
        assert_eq!(accuracy(Mode::Official, &alike, "Two?"), 0.0);
        assert_eq!(accuracy(Mode::EvalAi, &alike, "Two?"), 1.0);
        // `'s` is cut off on one side alone.
        let owners = said(&[("dog's", 5), ("cat", 5)]);
        assert_eq!(accuracy(Mode::Official, &owners, "dog's"), 1.0);
        assert_eq!(accuracy(Mode::EvalAi, &owners, "dog's"), 0.0);
        // Where it is cut off and a comma is gone, answers of several words meet.
        let several = said(&[("dog 's bowl", 5), ("cat", 5)]);
        assert_eq!(accuracy(Mode::EvalAi, &several, "The dog's, bowl"), 1.0);
    }

    #[test]
    fn one_answer_is_compared_exactly() {
        let one = said(&[("The red-white Boat.", 1)]);
        assert_eq!(accuracy(Mode::Exact, &one, "red white boat"), 1.0);
        assert_eq!(accuracy(Mode::Exact, &one, "red boat"), 0.0);
        assert!(is_right("two dogs", "The 2 dogs!") && !is_right("dog", "dogs"));
        let direct = said(&[("Boat", 2), ("boat", 5), ("ship", 1)]);
        assert_eq!(direct_accuracy(&direct, "Boat"), 2.0 / 3.0);
        assert_eq!((direct_accuracy(&direct, "boat"), direct_accuracy(&direct, "boat ")), (1.0, 0.0));
    }
}
