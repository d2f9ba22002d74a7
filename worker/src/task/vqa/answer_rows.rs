//! Which answers of a slot's questions are trained on, and with which weights.

use blip2_dataset::text::Question;
use blip2_random::KeyedRng;

use super::settings::{AnswerMode, VqaSettings};

/// What the draw of one of a question's answers is keyed by.
const DRAWN: &str = "answer to a question";

/// An answer to train on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct AnswerRow<'a> {
    /// The question's place in its slot.
    pub(super) question: usize,
    pub(super) answer: &'a str,
    /// Factor of its loss.
    pub(super) weight: f32,
}

/// A stage of a run, which draws are keyed by.
#[derive(Debug, Clone, Copy)]
pub(in crate::task) struct DrawKey {
    pub(in crate::task) seed: u64,
    pub(in crate::task) stage: u32,
}

/// The answers of a slot's questions, whose samples these are: a function of the slot's samples alone.
pub(super) fn answer_rows<'a>(
    settings: &VqaSettings,
    key: DrawKey,
    questions: &'a [Question],
    samples: &[u64],
) -> Vec<AnswerRow<'a>> {
    let one = |answer: fn(&'a Question, DrawKey, u64) -> &'a str| {
        let rows = questions.iter().zip(samples).enumerate();
        rows.map(|(place, (question, sample))| AnswerRow {
            question: place,
            answer: answer(question, key, *sample),
            weight: 1.0,
        })
        .collect()
    };
    match settings.answers {
        AnswerMode::Sample => one(drawn),
        AnswerMode::Majority => one(|question, _, _| question.answers.most_frequent()),
        AnswerMode::Weighted => weighted(settings, questions),
    }
}

/// An answer drawn by how often it was given.
fn drawn(question: &Question, key: DrawKey, sample: u64) -> &str {
    let mut rng = KeyedRng::new(key.seed, DRAWN, &[u64::from(key.stage), sample]);
    let person = rng.below(u64::from(question.answers.total().max(1)));
    // Below a 32-bit number.
    question.answers.of_person(person as u32)
}

/// As many rows whatever the answers are: each question's most frequent answer, then each one's second, and
/// so on while there is room; rows without weight fill the rest.
fn weighted<'a>(settings: &VqaSettings, questions: &'a [Question]) -> Vec<AnswerRow<'a>> {
    let count = questions.len() * settings.answer_rows as usize;
    let sorted: Vec<_> = questions.iter().map(|question| question.answers.by_frequency()).collect();
    let longest = sorted.iter().map(Vec::len).max().unwrap_or_default();
    let ranked = (0..longest).flat_map(|rank| {
        let of_rank = sorted.iter().zip(questions).enumerate();
        of_rank.filter_map(move |(place, (answers, question))| {
            let (answer, given) = answers.get(rank)?;
            let total = question.answers.total();
            let weight = match total {
                1 => settings.single_answer_weight as f32,
                total => *given as f32 / total as f32,
            };
            Some(AnswerRow { question: place, answer, weight })
        })
    });
    let mut rows: Vec<_> = ranked.take(count).collect();
    if let Some(first) = rows.first().copied() {
        rows.resize(count, AnswerRow { weight: 0.0, ..first });
    }
    rows
}

#[cfg(test)]
mod tests {
    use blip2_dataset::text::Answers;

    use super::*;

    fn question(answers: &[&str]) -> Question {
        Question { text: "what is this?".into(), answers: Answers::of(answers.iter().copied()) }
    }

    fn rows(settings: &VqaSettings, questions: &[Question], samples: &[u64]) -> Vec<(usize, String, f32)> {
        let rows = answer_rows(settings, DrawKey { seed: 7, stage: 3 }, questions, samples);
        rows.into_iter().map(|row| (row.question, row.answer.to_owned(), row.weight)).collect()
    }

    fn settings(answers: AnswerMode) -> VqaSettings {
        VqaSettings { answers, answer_rows: 2, single_answer_weight: 0.2, ..VqaSettings::default() }
    }

    #[test]
    fn answers_are_drawn_by_their_frequency_and_the_same_wherever_the_sample_is() {
        let settings = settings(AnswerMode::Sample);
        let asked = vec![question(&["yes", "yes", "yes", "no"]); 400];
        let samples: Vec<u64> = (0..400).collect();
        let drawn = rows(&settings, &asked, &samples);
        let yes = drawn.iter().filter(|(_, answer, _)| answer == "yes").count();
        assert!((260..340).contains(&yes), "{yes} of 400, 300 are expected");
        for at in [0, 17, 399] {
            let alone = rows(&settings, &asked[..1], &samples[at..at + 1]);
            assert_eq!((&alone[0].1, alone[0].2), (&drawn[at].1, 1.0));
        }
    }

    #[test]
    fn the_majority_is_the_most_frequent_answer() {
        let asked = [question(&["no", "yes", "yes"]), question(&["two", "one"])];
        let rows = rows(&settings(AnswerMode::Majority), &asked, &[0, 1]);
        assert_eq!(rows, [(0, "yes".to_owned(), 1.0), (1, "two".to_owned(), 1.0)]);
    }

    #[test]
    fn weights_are_shares_and_rows_are_as_many_whatever_is_answered() {
        let settings = settings(AnswerMode::Weighted);
        let asked = [question(&["a", "b", "b", "c"]), question(&["d"])];
        let said = |place: usize, answer: &str, weight: f32| (place, answer.to_owned(), weight);
        let all = [said(0, "b", 0.5), said(1, "d", 0.2), said(0, "a", 0.25), said(0, "c", 0.25)];
        assert_eq!(rows(&settings, &asked, &[0, 1]), all);
        // The rarest are left out where there is no room, and what is not needed has no weight.
        let narrow = VqaSettings { answer_rows: 1, ..settings.clone() };
        assert_eq!(rows(&narrow, &asked, &[0, 1]), all[..2]);
        assert_eq!(rows(&settings, &asked[1..], &[1]), [said(0, "d", 0.2), said(0, "d", 0.0)]);
    }
}
