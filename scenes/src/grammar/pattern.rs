//! A sentence with slots: filled to write it, matched to read it.

use crate::scene::Group;
use crate::words::{Colour, MOST, Relation, Shape, Thing, number_word, read_number};

/// What fills a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    /// `{group}`: things with their number, "a cat", "two cats".
    Group(Group),
    /// `{name}`: things without their number, "cat" (one) or "cats" (more).
    Name(Thing, bool),
    /// `{relation}`
    Relation(Relation),
    /// `{colour}`
    Colour(Colour),
    /// `{shape}`
    Shape(Shape),
}

/// Words and slots, separated by single spaces.
pub(crate) type Pattern = &'static str;

/// The sentence with its slots filled in order.
///
/// # Panics
/// Where there are fewer values than slots: the tables of this crate's grammar go with their values.
pub(crate) fn write(pattern: Pattern, values: &[Value]) -> String {
    let mut values = values.iter();
    let word = |word: &'static str| {
        if !word.starts_with('{') {
            return word.to_owned();
        }
        match values.next().expect("a value for every slot") {
            Value::Group(Group { thing, count: 1 }) => format!("{} {}", thing.article(), thing.name()),
            Value::Group(group) => format!("{} {}", number_word(group.count), group.name()),
            Value::Name(thing, plural) => thing.named(if *plural { MOST } else { 1 }).to_owned(),
            Value::Relation(relation) => relation.word().to_owned(),
            Value::Colour(colour) => colour.word().to_owned(),
            Value::Shape(shape) => shape.word().to_owned(),
        }
    };
    pattern.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The values in the slots of a sentence of this pattern.
pub(crate) fn read(pattern: Pattern, sentence: &[&str]) -> Option<Vec<Value>> {
    let (mut rest, mut values) = (sentence, Vec::new());
    for expected in pattern.split(' ') {
        let (value, after) = match expected {
            "{group}" => group(rest)?,
            "{name}" => name(rest)?,
            "{relation}" => one_of(Relation::ALL, Relation::word, Value::Relation, rest)?,
            "{colour}" => one_of(Colour::ALL, Colour::word, Value::Colour, rest)?,
            "{shape}" => one_of(Shape::ALL, Shape::word, Value::Shape, rest)?,
            word => {
                rest = rest.strip_prefix(&[word])?;
                continue;
            }
        };
        values.push(value);
        rest = after;
    }
    rest.is_empty().then_some(values)
}

/// The words of a sentence: lower case, without the mark at its end.
pub(crate) fn words(text: &str) -> String {
    text.trim().trim_end_matches(['.', '?']).to_lowercase()
}

/// Takes a number with its things; their numbers must agree.
fn group<'a>(words: &'a [&'a str]) -> Option<(Value, &'a [&'a str])> {
    let [number, word, rest @ ..] = words else { return None };
    let (thing, plural) = Thing::read(word)?;
    let count = if *number == thing.article() { 1 } else { read_number(number)? };
    (plural == (count > 1)).then_some((Value::Group(Group { thing, count }), rest))
}

fn name<'a>(words: &'a [&'a str]) -> Option<(Value, &'a [&'a str])> {
    let (word, rest) = words.split_first()?;
    Thing::read(word).map(|(thing, plural)| (Value::Name(thing, plural), rest))
}

/// Takes the words of one of a vocabulary.
fn one_of<'a, T: Copy>(
    all: &[T],
    word: impl Fn(T) -> &'static str,
    value: impl Fn(T) -> Value,
    words: &'a [&'a str],
) -> Option<(Value, &'a [&'a str])> {
    all.iter().find_map(|member| {
        let own: Vec<&str> = word(*member).split(' ').collect();
        words.strip_prefix(own.as_slice()).map(|rest| (value(*member), rest))
    })
}
