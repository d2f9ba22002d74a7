//! The things, colours, shapes, relations and numbers of scenes, and the words for them.
//!
//! Every thing has one word in the singular and another in the plural, so that a caption has one reading.

use serde::{Deserialize, Serialize};

/// A thing's words and the caption under which the corpus has its drawings.
#[derive(Debug, PartialEq, Eq)]
struct ThingWords {
    one: &'static str,
    many: &'static str,
    drawn: &'static str,
}

const fn of(one: &'static str, many: &'static str, drawn: &'static str) -> ThingWords {
    ThingWords { one, many, drawn }
}

/// Concrete things whose drawings, of each vendor, are told from all others at 30 pixels.
const THINGS: [ThingWords; 64] = [
    of("cat", "cats", "cat"),
    of("dog", "dogs", "dog"),
    of("horse", "horses", "horse"),
    of("cow", "cows", "cow"),
    of("pig", "pigs", "pig"),
    of("rabbit", "rabbits", "rabbit"),
    of("elephant", "elephants", "elephant"),
    of("giraffe", "giraffes", "giraffe"),
    of("zebra", "zebras", "zebra"),
    of("lion", "lions", "lion"),
    of("tiger", "tigers", "tiger"),
    of("panda", "pandas", "panda"),
    of("monkey", "monkeys", "monkey"),
    of("frog", "frogs", "frog"),
    of("turtle", "turtles", "turtle"),
    of("snake", "snakes", "snake"),
    of("owl", "owls", "owl"),
    of("duck", "ducks", "duck"),
    of("penguin", "penguins", "penguin"),
    of("flamingo", "flamingos", "flamingo"),
    of("whale", "whales", "whale"),
    of("octopus", "octopuses", "octopus"),
    of("crab", "crabs", "crab"),
    of("snail", "snails", "snail"),
    of("butterfly", "butterflies", "butterfly"),
    of("bee", "bees", "honeybee"),
    of("spider", "spiders", "spider"),
    of("fox", "foxes", "fox"),
    of("apple", "apples", "red apple"),
    of("banana", "bananas", "banana"),
    of("strawberry", "strawberries", "strawberry"),
    of("lemon", "lemons", "lemon"),
    of("pineapple", "pineapples", "pineapple"),
    of("carrot", "carrots", "carrot"),
    of("mushroom", "mushrooms", "mushroom"),
    of("pizza", "pizzas", "pizza"),
    of("burger", "burgers", "hamburger"),
    of("donut", "donuts", "doughnut"),
    of("cake", "cakes", "birthday cake"),
    of("pretzel", "pretzels", "pretzel"),
    of("car", "cars", "automobile"),
    of("bus", "buses", "bus"),
    of("truck", "trucks", "delivery truck"),
    of("bike", "bikes", "bicycle"),
    of("train", "trains", "locomotive"),
    of("plane", "planes", "airplane"),
    of("helicopter", "helicopters", "helicopter"),
    of("rocket", "rockets", "rocket"),
    of("boat", "boats", "sailboat"),
    of("hammer", "hammers", "hammer"),
    of("key", "keys", "key"),
    of("book", "books", "closed book"),
    of("pencil", "pencils", "pencil"),
    of("umbrella", "umbrellas", "umbrella"),
    of("clock", "clocks", "alarm clock"),
    of("camera", "cameras", "camera"),
    of("guitar", "guitars", "guitar"),
    of("drum", "drums", "drum"),
    of("chair", "chairs", "chair"),
    of("house", "houses", "house"),
    of("tree", "trees", "deciduous tree"),
    of("rose", "roses", "rose"),
    of("crown", "crowns", "crown"),
    of("hat", "hats", "top hat"),
];

/// A thing that scenes show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub struct Thing(u8);

impl Thing {
    /// How many there are.
    pub const COUNT: usize = THINGS.len();

    /// All of them, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self::at)
    }

    /// The thing with this number.
    ///
    /// # Panics
    /// For a number of [`Thing::COUNT`] or more.
    pub fn at(number: usize) -> Self {
        assert!(number < Self::COUNT, "there are {} things", Self::COUNT);
        Self(number as u8)
    }

    /// Its place among all.
    pub fn number(self) -> usize {
        self.0.into()
    }

    /// Its name in the singular.
    pub fn name(self) -> &'static str {
        THINGS[self.number()].one
    }

    /// Its name where there are so many.
    pub fn named(self, count: u8) -> &'static str {
        if count == 1 { self.name() } else { THINGS[self.number()].many }
    }

    /// The caption of its drawings in the corpus.
    pub fn drawn(self) -> &'static str {
        THINGS[self.number()].drawn
    }

    /// `a` or `an`.
    pub fn article(self) -> &'static str {
        if self.name().starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
    }

    /// The thing of this name, and whether the name is a plural.
    pub fn read(word: &str) -> Option<(Self, bool)> {
        Self::all().find_map(|thing| {
            let plural = thing.named(2) == word;
            (plural || thing.name() == word).then_some((thing, plural))
        })
    }
}

impl From<Thing> for &'static str {
    fn from(thing: Thing) -> Self {
        thing.name()
    }
}

impl TryFrom<String> for Thing {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        let known = Self::read(&word).filter(|(_, plural)| !plural);
        known.map(|(thing, _)| thing).ok_or_else(|| format!("no scene shows a `{word}`"))
    }
}

/// Implements a closed set of words: all of them, the word for each, and back.
macro_rules! vocabulary {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $member:ident = $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $member,)*
        }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$member,)*];

            /// The word, or words, for it.
            pub fn word(self) -> &'static str {
                match self { $(Self::$member => $word,)* }
            }
        }
    };
}

vocabulary! {
    /// A colour of the ground, or of a shape on it.
    Colour {
        /// White, as paper.
        White = "white",
        /// Light grey.
        Gray = "gray",
        /// Light yellow.
        Yellow = "yellow",
        /// Light green.
        Green = "green",
        /// Light blue.
        Blue = "blue",
        /// Light red.
        Pink = "pink",
    }
}

vocabulary! {
    /// A shape that something is inside of.
    Shape {
        /// A filled circle.
        Circle = "circle",
        /// A filled square.
        Square = "square",
    }
}

vocabulary! {
    /// Where one thing stands, seen from another.
    Relation {
        /// All of it is further left.
        LeftOf = "left of",
        /// All of it is further right.
        RightOf = "right of",
        /// All of it is higher.
        Above = "above",
        /// All of it is lower.
        Below = "below",
    }
}

vocabulary! {
    /// An artist, as the corpus' column `source` has it.
    Vendor {
        /// Noto Emoji.
        Google = "google",
        /// Twemoji.
        Twitter = "twitter",
        /// Fluent Emoji 3D.
        Fluent = "fluent",
    }
}

impl Colour {
    /// Red, green and blue: light, so that every drawing stands out.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::White => [255, 255, 255],
            Self::Gray => [176, 176, 180],
            Self::Yellow => [255, 232, 128],
            Self::Green => [152, 214, 140],
            Self::Blue => [140, 188, 244],
            Self::Pink => [252, 176, 204],
        }
    }
}

impl Relation {
    /// The same seen from the other thing.
    pub fn reversed(self) -> Self {
        match self {
            Self::LeftOf => Self::RightOf,
            Self::RightOf => Self::LeftOf,
            Self::Above => Self::Below,
            Self::Below => Self::Above,
        }
    }

    /// Whether it speaks of left and right.
    pub fn is_horizontal(self) -> bool {
        matches!(self, Self::LeftOf | Self::RightOf)
    }
}

/// Most of a kind in a scene.
pub const MOST: u8 = 4;

/// The words of numbers above one, from two.
const NUMBERS: [&str; 3] = ["two", "three", "four"];

/// The word for 2 to [`MOST`] things.
///
/// # Panics
/// For other numbers.
pub fn number_word(count: u8) -> &'static str {
    NUMBERS[usize::from(count) - 2]
}

/// The number that a word of [`number_word`] means.
pub fn read_number(word: &str) -> Option<u8> {
    NUMBERS.iter().position(|known| *known == word).map(|place| place as u8 + 2)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_word_has_two_meanings() {
        let things = Thing::all().flat_map(|thing| [thing.name(), thing.named(2)]);
        let others = Colour::ALL.iter().map(|colour| colour.word());
        let others = others.chain(Shape::ALL.iter().map(|shape| shape.word())).chain(NUMBERS);
        let words: Vec<&str> = things.chain(others).collect();
        assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len());
        assert!(words.iter().all(|word| !word.contains(' ')), "a thing's name is one word");
    }

    #[test]
    fn things_are_found_by_their_names() {
        for thing in Thing::all() {
            assert_eq!(Thing::read(thing.name()), Some((thing, false)));
            assert_eq!(Thing::read(thing.named(3)), Some((thing, true)));
        }
        assert_eq!(Thing::read("face"), None);
        assert!((2..=MOST).all(|count| read_number(number_word(count)) == Some(count)));
    }
}
