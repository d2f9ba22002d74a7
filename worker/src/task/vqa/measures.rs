//! What the answers that a model writes are worth.

use blip2_dataset::text::Answers;
use blip2_evaluation::metrics::vqa::{HumanAnswer, Mode, accuracy};

/// People of whom each has three others, as VQA's accuracy asks for.
const ENOUGH_PEOPLE: u32 = 4;

/// The accuracy of what was written, 0 to 1: VQA's own, or right and wrong where so few people answered that
/// a right answer would count less than 1 there.
pub(super) fn accuracy_of(answers: &Answers, written: &str) -> f64 {
    let mode = if answers.total() < ENOUGH_PEOPLE { Mode::Exact } else { Mode::Official };
    let people = HumanAnswer::numbered(answers.all().map(str::to_owned));
    accuracy(mode, &people, written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_answers_are_right_or_wrong_and_many_are_those_of_vqa() {
        let of =
            |answers: &[&str], written: &str| accuracy_of(&Answers::of(answers.iter().copied()), written);
        assert_eq!(
            (of(&["red"], "red"), of(&["red"], "blue"), of(&["red", "crimson"], "crimson")),
            (1.0, 0.0, 1.0)
        );
        assert_eq!(of(&["red"; 4], "red"), 1.0);
        let ten = ["no", "yes", "no", "no", "no", "no", "no", "no", "yes", "no"];
        assert_eq!(of(&ten, "no"), 1.0);
        assert!((of(&ten, "yes") - 0.6).abs() < 1e-12);
    }
}
