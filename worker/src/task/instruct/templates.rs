//! The words in which an instruction is put.

use blip2_model::blip2::asking::PLACE;
use blip2_random::KeyedRng;

use crate::task::vqa::DrawKey;

/// What the draw of a sample's words is keyed by.
const DRAWN: &str = "words of an instruction";

/// Ways to put a question, where none are given.
pub(super) const QUESTIONS: &[&str] = &[
    "{}",
    "{} Answer:",
    "Question: {} Answer:",
    "Question: {} Short answer:",
    "Q: {} A:",
    "{} Answer in one or two words:",
    "{} Give a short answer:",
    "{} Keep the answer brief:",
    "Look at the image. {}",
    "Look at the image and answer. {}",
    "Going by the image, {}",
    "Here is a question on the image: {} The answer is",
    "Someone asks about this image: {} What do you reply?",
    "Use what the image shows to answer: {}",
    "Please answer this question on the image: {}",
    "Tell me briefly: {}",
    "I would like to know: {}",
    "From what can be seen, {}",
    "Think about the image, then answer: {}",
    "The question is: {} Reply with as few words as you can:",
];

/// Ways to ask for a caption, where none are given.
pub(super) const CAPTIONS: &[&str] = &[
    "A short caption:",
    "A caption of the image:",
    "Caption this image.",
    "Write one sentence about the image.",
    "Write a short text that goes with this image.",
    "Describe the image in a sentence.",
    "Describe briefly what can be seen.",
    "Say what is in the image.",
    "Say in a few words what the image shows.",
    "What does the image show?",
    "What can be seen here?",
    "What would you write below this image?",
    "Sum up the image in one line.",
    "Give the image a fitting caption.",
    "Give a short account of this image.",
    "Put into words what you see.",
    "Tell someone who cannot see the image what is in it.",
    "If this image were in a newspaper, its caption would be",
    "The image shows",
    "In short, this is an image of",
];

/// The ways in which questions are put and captions asked for.
#[derive(Debug, Clone)]
pub(super) struct Templates {
    questions: Vec<String>,
    captions: Vec<String>,
}

impl Templates {
    /// Those given, or those of the program where none are.
    pub(super) fn of(questions: &[String], captions: &[String]) -> Self {
        let given_or = |given: &[String], own: &[&str]| match given {
            [] => own.iter().map(|template| (*template).to_owned()).collect(),
            given => given.to_vec(),
        };
        Self { questions: given_or(questions, QUESTIONS), captions: given_or(captions, CAPTIONS) }
    }

    /// The question in words drawn for a sample, or words that ask for a caption where there is no question:
    /// a function of seed, stage and sample alone.
    pub(super) fn drawn(&self, question: &str, key: DrawKey, sample: u64) -> String {
        let ways = self.ways(question);
        let mut rng = KeyedRng::new(key.seed, DRAWN, &[u64::from(key.stage), sample]);
        let drawn = rng.below(ways.len() as u64) as usize;
        ways[drawn].replacen(PLACE, question, 1)
    }

    /// The same in the first of the words, as held-out rows have them.
    pub(super) fn first(&self, question: &str) -> String {
        self.ways(question)[0].replacen(PLACE, question, 1)
    }

    /// The first way to put a question.
    pub(super) fn of_question(&self) -> &str {
        &self.questions[0]
    }

    /// None of the lists is empty.
    fn ways(&self, question: &str) -> &[String] {
        if question.is_empty() { &self.captions } else { &self.questions }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const KEY: DrawKey = DrawKey { seed: 7, stage: 3 };

    #[test]
    fn words_are_drawn_by_seed_stage_and_sample() {
        let own = Templates::of(&[], &[]);
        let drawn = |key, sample| own.drawn("why?", key, sample);
        let of_question: Vec<String> = (0..400).map(|sample| drawn(KEY, sample)).collect();
        let different: BTreeSet<&String> = of_question.iter().collect();
        assert_eq!(different.len(), QUESTIONS.len(), "all of them are met");
        assert!(of_question.iter().all(|text| text.contains("why?") && !text.contains(PLACE)));
        let with = |key| (0..400).map(|sample| drawn(key, sample)).collect::<Vec<_>>();
        assert_ne!(with(DrawKey { seed: 8, ..KEY }), of_question);
        assert_ne!(with(DrawKey { stage: 2, ..KEY }), of_question);
        let captions: BTreeSet<String> = (0..400).map(|sample| own.drawn("", KEY, sample)).collect();
        assert!(captions.iter().map(String::as_str).eq(CAPTIONS.iter().copied().collect::<BTreeSet<_>>()));
    }

    /// A run that goes on with another program goes on with the same words.
    #[test]
    fn what_is_drawn_stays_what_it_was() {
        let own = Templates::of(&[], &[]);
        let places = |question: &str, ways: &[&str]| -> Vec<usize> {
            let place = |sample| {
                let text = own.drawn(question, KEY, sample);
                ways.iter().position(|way| way.replacen(PLACE, question, 1) == text).unwrap()
            };
            (0..12).map(place).collect()
        };
        let drawn = [6, 8, 15, 14, 2, 10, 15, 17, 16, 8, 14, 1];
        assert_eq!((places("why?", QUESTIONS), places("", CAPTIONS)), (drawn.to_vec(), drawn.to_vec()));
    }

    #[test]
    fn given_words_replace_those_of_the_program() {
        let templates = Templates::of(&["Q {}".into()], &["C".into()]);
        assert_eq!((templates.first("why?"), templates.first("")), ("Q why?".to_owned(), "C".to_owned()));
        assert_eq!((templates.drawn("why?", KEY, 5), templates.of_question()), ("Q why?".to_owned(), "Q {}"));
        let own = Templates::of(&[], &["C".into()]);
        assert_eq!((own.first("why?"), own.first("")), ("why?".to_owned(), "C".to_owned()));
    }

    #[test]
    fn every_way_to_put_a_question_has_one_place_for_it_and_none_is_there_twice() {
        assert!(QUESTIONS.iter().all(|way| way.matches(PLACE).count() == 1));
        assert!(CAPTIONS.iter().all(|way| !way.contains(PLACE)));
        let all: BTreeSet<&&str> = QUESTIONS.iter().chain(CAPTIONS).collect();
        assert_eq!(all.len(), QUESTIONS.len() + CAPTIONS.len());
    }
}
