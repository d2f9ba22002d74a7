//! Questions on images and their answers.

use super::caption::{REPLACED, is_visible};

/// A question on an image, and what was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// As of [`clean_question`].
    pub text: String,
    /// One at least.
    pub answers: Answers,
}

impl Question {
    /// A caption, which is what was answered where nothing was asked.
    pub fn of_caption(caption: &str) -> Self {
        Self { text: String::new(), answers: Answers::of([caption]) }
    }

    /// Whether nothing was asked, so that a caption is the answer.
    pub fn asks_for_a_caption(&self) -> bool {
        self.text.is_empty()
    }
}

/// The different answers to a question with how often each was given, in the order in which they were first
/// given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    counts: Vec<(String, u32)>,
}

impl Answers {
    /// Of answers as they were written, which are kept so but for white space; those without a visible
    /// character are none.
    pub fn of<'a>(written: impl IntoIterator<Item = &'a str>) -> Self {
        let mut counts: Vec<(String, u32)> = Vec::new();
        for answer in written.into_iter().filter(|answer| is_visible(answer)) {
            let spaced = answer.replace(char::is_control, " ");
            let answer = spaced.split_whitespace().collect::<Vec<_>>().join(" ");
            match counts.iter_mut().find(|(known, _)| *known == answer) {
                Some((_, count)) => *count += 1,
                None => counts.push((answer, 1)),
            }
        }
        Self { counts }
    }

    /// Whether nobody answered.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// How many answered.
    pub fn total(&self) -> u32 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    /// Each answer with how often it was given, the most frequent first; of equally frequent ones, the one
    /// that was given first.
    pub fn by_frequency(&self) -> Vec<(&str, u32)> {
        let mut sorted: Vec<_> =
            self.counts.iter().map(|(answer, count)| (answer.as_str(), *count)).collect();
        sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        sorted
    }

    /// The most frequent answer; of equally frequent ones, the one that was given first.
    pub fn most_frequent(&self) -> &str {
        self.by_frequency().first().map_or("", |(answer, _)| answer)
    }

    /// The answer of the person of this number, below [`Answers::total`], where people are sorted by what
    /// they said: a number that is drawn evenly gives each answer by its frequency.
    pub fn of_person(&self, number: u32) -> &str {
        let mut before = 0;
        let found = self.counts.iter().find(|(_, count)| {
            before += count;
            number < before
        });
        found.map_or("", |(answer, _)| answer)
    }

    /// Every answer as often as it was given.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.counts.iter().flat_map(|(answer, count)| (0..*count).map(move |_| answer.as_str()))
    }
}

/// LAVIS's cleaning of questions: lower case, punctuation but the question mark's, commas, apostrophes and
/// hyphens taken out, at most `max_words` words. Unlike a caption's, its marks leave no space; control
/// characters are spaces.
///
/// ```
/// use blip2_dataset::text::clean_question;
/// assert_eq!(clean_question("Is this a T.V. (on)?", 50), "is this a tv on?");
/// ```
pub fn clean_question(question: &str, max_words: usize) -> String {
    let spaced = question.to_lowercase().replace(char::is_control, " ");
    let kept = spaced.replace(|character: char| REPLACED.contains(&character), "");
    kept.split_whitespace().take(max_words).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Answers {
        Answers::of(["no", "yes", " yes\n", "", "red  car", "\u{200b}", "yes", "no"])
    }

    #[test]
    fn equal_answers_are_counted() {
        let answers = answers();
        assert_eq!(answers.by_frequency(), [("yes", 3), ("no", 2), ("red car", 1)]);
        assert_eq!((answers.total(), answers.most_frequent()), (6, "yes"));
        assert_eq!(answers.all().collect::<Vec<_>>(), ["no", "no", "yes", "yes", "yes", "red car"]);
        assert!(Answers::of([" ", "\0"]).is_empty());
        // Of a tie the first that was given.
        assert_eq!(Answers::of(["two", "one", "one", "two"]).most_frequent(), "two");
    }

    #[test]
    fn each_person_has_one_answer() {
        let answers = answers();
        let said: Vec<&str> = (0..answers.total()).map(|number| answers.of_person(number)).collect();
        assert_eq!(said, answers.all().collect::<Vec<_>>());
    }

    #[test]
    fn questions_lose_marks_and_no_words_run_together_by_lines() {
        assert_eq!(clean_question("What's that,\nup there?!", 50), "what's that, up there?");
        assert_eq!(clean_question(&"why ".repeat(60), 50).split(' ').count(), 50);
        assert_eq!(clean_question("...", 50), "");
    }
}
