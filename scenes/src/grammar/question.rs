//! Questions about scenes, and the answers that follow from a scene.

use serde::{Deserialize, Serialize};

use super::pattern::{Pattern, Value, read, words, write};
use crate::scene::{Content, Group, Scene};
use crate::words::{Relation, Shape, Thing};

const WHERE: Pattern = "what is {relation} the {name}";
const COUNT: Pattern = "how many {name}";
const GROUND: Pattern = "what colour is the background";
const SHAPE_COLOUR: Pattern = "what colour is the {shape}";
const INSIDE: Pattern = "what is inside the {shape}";
const PRESENCE: Pattern = "is there {group}";

/// A question about a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// What stands so of some things: named in the plural if there are several of them.
    Where(Relation, Thing, bool),
    /// How many of them there are.
    Count(Thing),
    /// What colour the ground has.
    Ground,
    /// What colour the shape has.
    ShapeColour(Shape),
    /// What is inside the shape.
    Inside(Shape),
    /// Whether there is at least one of them.
    Presence(Thing),
}

/// What a question asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuestionKind {
    /// The name of a thing by its place.
    Place,
    /// A number.
    Count,
    /// A colour.
    Colour,
    /// Yes or no.
    Presence,
}

impl QuestionKind {
    /// Its name, as the files have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Place => "place",
            Self::Count => "count",
            Self::Colour => "colour",
            Self::Presence => "presence",
        }
    }
}

impl Question {
    /// What it asks for.
    pub fn kind(self) -> QuestionKind {
        match self {
            Self::Where(..) | Self::Inside(_) => QuestionKind::Place,
            Self::Count(_) => QuestionKind::Count,
            Self::Ground | Self::ShapeColour(_) => QuestionKind::Colour,
            Self::Presence(_) => QuestionKind::Presence,
        }
    }

    /// The question in words.
    pub fn text(self) -> String {
        let (pattern, values): (Pattern, &[Value]) = match self {
            Self::Where(relation, thing, several) => {
                (WHERE, &[Value::Relation(relation), Value::Name(thing, several)])
            }
            Self::Count(thing) => (COUNT, &[Value::Name(thing, true)]),
            Self::Ground => (GROUND, &[]),
            Self::ShapeColour(shape) => (SHAPE_COLOUR, &[Value::Shape(shape)]),
            Self::Inside(shape) => (INSIDE, &[Value::Shape(shape)]),
            Self::Presence(thing) => (PRESENCE, &[Value::Group(Group::one(thing))]),
        };
        write(pattern, values) + "?"
    }

    /// The question that a text asks; none if it is no question of the grammar.
    pub fn parse(text: &str) -> Option<Self> {
        let text = words(text);
        let sentence: Vec<&str> = text.split_whitespace().collect();
        let asked = |pattern| read(pattern, &sentence);
        if let Some([Value::Relation(relation), Value::Name(thing, several)]) = asked(WHERE).as_deref() {
            return Some(Self::Where(*relation, *thing, *several));
        }
        if let Some([Value::Name(thing, true)]) = asked(COUNT).as_deref() {
            return Some(Self::Count(*thing));
        }
        if let Some([Value::Shape(shape)]) = asked(SHAPE_COLOUR).as_deref() {
            return Some(Self::ShapeColour(*shape));
        }
        if let Some([Value::Shape(shape)]) = asked(INSIDE).as_deref() {
            return Some(Self::Inside(*shape));
        }
        if let Some([Value::Group(Group { thing, count: 1 })]) = asked(PRESENCE).as_deref() {
            return Some(Self::Presence(*thing));
        }
        asked(GROUND).map(|_| Self::Ground)
    }

    /// The answer, one word; none where the question does not fit the scene.
    ///
    /// Numbers are digits, as evaluation of answers normalises them.
    pub fn answer(self, scene: &Scene) -> Option<String> {
        match self {
            Self::Where(relation, thing, several) => {
                let relations = scene.relations().into_iter();
                let both = relations.flat_map(|(a, how, b)| [(a, how, b), (b, how.reversed(), a)]);
                let mut fitting = both.filter(|(_, how, object)| {
                    *how == relation && object.thing == thing && several == (object.count > 1)
                });
                fitting.next().map(|(subject, ..)| subject.name().to_owned())
            }
            Self::Count(thing) => {
                let group = scene.groups().into_iter().find(|group| group.thing == thing);
                group.map(|group| group.count.to_string())
            }
            Self::Ground => Some(scene.background.word().to_owned()),
            Self::ShapeColour(asked) => match scene.content {
                Content::Inside { colour, shape, .. } if shape == asked => Some(colour.word().to_owned()),
                _ => None,
            },
            Self::Inside(asked) => match scene.content {
                Content::Inside { thing, shape, .. } if shape == asked => Some(thing.name().to_owned()),
                _ => None,
            },
            Self::Presence(thing) => {
                Some(if scene.things().contains(&thing) { "yes" } else { "no" }.to_owned())
            }
        }
    }
}

/// All questions that a scene answers but those of presence, which any thing may be asked for.
///
/// How many there are is asked of groups alone, where every number is as likely as another.
pub fn answerable(scene: &Scene) -> Vec<Question> {
    let mut questions = vec![Question::Ground];
    match scene.content {
        Content::Group(group) => questions.push(Question::Count(group.thing)),
        Content::Inside { shape, .. } => {
            questions.extend([Question::ShapeColour(shape), Question::Inside(shape)]);
        }
        Content::Pair { .. } | Content::Corner { .. } => {}
    }
    for (subject, relation, object) in scene.relations() {
        let of = |group: Group, relation| Question::Where(relation, group.thing, group.count > 1);
        questions.extend([of(object, relation), of(subject, relation.reversed())]);
    }
    questions
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::draw;
    use crate::grammar::parse;
    use crate::properties::{cases, splits};

    fn answer(question: &str, caption: &str) -> Option<String> {
        Question::parse(question).expect("a question").answer(&parse(caption).expect("a caption"))
    }

    #[test]
    fn answers_are_what_the_caption_says() {
        let pair = "two cats left of a dog on green";
        let corner = "a cat left of a dog and above a pig on pink";
        let inside = "an owl inside a blue circle on gray";
        for (question, caption, expected) in [
            ("what is left of the dog?", pair, Some("cats")),
            ("what is right of the cats?", pair, Some("dog")),
            ("what is right of the cat?", pair, None),
            ("what is above the dog?", pair, None),
            ("how many cats?", pair, Some("2")),
            ("how many pigs?", pair, None),
            ("what colour is the background?", pair, Some("green")),
            ("is there a dog?", pair, Some("yes")),
            ("is there an owl?", pair, Some("no")),
            ("what is below the cat?", corner, Some("pig")),
            ("what is left of the dog?", corner, Some("cat")),
            ("what is left of the pig?", corner, None),
            ("what is inside the circle?", inside, Some("owl")),
            ("what is inside the square?", inside, None),
            ("what colour is the circle?", inside, Some("blue")),
            ("what colour is the background?", inside, Some("gray")),
        ] {
            assert_eq!(answer(question, caption).as_deref(), expected, "{question} {caption}");
        }
        assert_eq!(Question::parse("how many cat?"), None);
        assert_eq!(Question::parse("is there two cats?"), None);
        assert_eq!(Question::parse("what is the background?"), None);
    }

    proptest! {
        #![proptest_config(cases(300))]

        #[test]
        fn every_question_is_read_as_written_and_answered(
            split in splits(), seed in any::<u64>(), number in any::<u32>(), thing in 0..Thing::COUNT
        ) {
            let scene = draw::scene(split, seed, number.into());
            for question in answerable(&scene).into_iter().chain([Question::Presence(Thing::at(thing))]) {
                prop_assert_eq!(Question::parse(&question.text()), Some(question), "{}", question.text());
                let answer = question.answer(&scene);
                prop_assert!(answer.is_some_and(|answer| !answer.contains(' ')), "{}", question.text());
            }
        }
    }
}
