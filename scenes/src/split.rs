//! What training never shows: some combinations, and some drawings.
//!
//! Both are fixed, whatever the seed of the scenes. Every part of a held-out combination is in training on
//! its own: the thing, the number, the colour, the relation; and of every held-out drawing, the same thing by
//! two other artists.

use blip2_random::KeyedRng;

use crate::scene::{Content, Scene};
use crate::words::{Colour, MOST, Relation, Thing, Vendor};

/// The key of what is held out. With another number, models that were trained before have seen what is now
/// held out.
const KEY: u64 = 1;

/// Of a hundred pairs with their relation, so many are held out.
const PAIRS_HELD_OUT: u64 = 12;

/// Of every four things, one has a drawing that is held out.
const EVERY: usize = 4;

/// A set of scenes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Split {
    /// To train on: no held-out combination, no held-out drawing.
    Train,
    /// As training, other scenes.
    Validation,
    /// Each scene has a held-out combination.
    Combinations,
    /// Each thing is a held-out drawing, in combinations that training has.
    Drawings,
}

impl Split {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Train, Self::Validation, Self::Combinations, Self::Drawings];

    /// Its name: what its files begin with.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Combinations => "combinations",
            Self::Drawings => "drawings",
        }
    }

    /// Whether a scene of the split may have this content and ground.
    pub fn allows(self, scene: &Scene) -> bool {
        let held_out = combinations(scene).iter().any(|combination| combination.is_held_out());
        match self {
            Self::Train | Self::Validation => !held_out,
            Self::Combinations => held_out,
            Self::Drawings => {
                !held_out && scene.things().into_iter().all(|thing| held_out_drawing(thing).is_some())
            }
        }
    }

    /// The artists whose drawings of a thing the split shows.
    pub fn vendors(self, thing: Thing) -> Vec<Vendor> {
        let held_out = held_out_drawing(thing);
        let shows = |vendor: &Vendor| (held_out == Some(*vendor)) == (self == Self::Drawings);
        Vendor::ALL.iter().copied().filter(shows).collect()
    }
}

/// What a scene combines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Combination {
    /// One thing left of or above another.
    Pair(Thing, Relation, Thing),
    /// So many of a thing.
    Count(Thing, u8),
    /// A thing on a ground, or in a shape, of a colour.
    Colour(Thing, Colour),
}

impl Combination {
    /// Whether training never shows it.
    pub fn is_held_out(self) -> bool {
        let draw = |purpose: &str, parts: &[u64], below| KeyedRng::new(KEY, purpose, parts).below(below);
        match self {
            Self::Pair(a, relation, b) => {
                let parts = [a.number() as u64, u64::from(relation.is_horizontal()), b.number() as u64];
                draw("held-out pair", &parts, 100) < PAIRS_HELD_OUT
            }
            // One number above one of every second thing.
            Self::Count(thing, count) => {
                let held_out = draw("held-out count", &[thing.number() as u64], 2 * u64::from(MOST - 1));
                u64::from(count) == held_out + 2
            }
            // One colour of every thing.
            Self::Colour(thing, colour) => {
                let held_out = draw("held-out colour", &[thing.number() as u64], Colour::ALL.len() as u64);
                Colour::ALL.iter().position(|own| *own == colour) == Some(held_out as usize)
            }
        }
    }

    /// In words, for those who read the files.
    pub fn words(self) -> String {
        match self {
            Self::Pair(a, relation, b) => format!("{} {} {}", a.name(), relation.word(), b.name()),
            Self::Count(thing, count) => format!("{count} {}", thing.named(count)),
            Self::Colour(thing, colour) => format!("{} on {}", thing.name(), colour.word()),
        }
    }
}

/// Everything that a scene combines.
pub fn combinations(scene: &Scene) -> Vec<Combination> {
    let mut found = Vec::new();
    for (a, relation, b) in scene.relations() {
        found.push(match relation {
            Relation::LeftOf | Relation::Above => Combination::Pair(a.thing, relation, b.thing),
            Relation::RightOf | Relation::Below => Combination::Pair(b.thing, relation.reversed(), a.thing),
        });
    }
    for group in scene.groups() {
        found.extend([
            Combination::Count(group.thing, group.count),
            Combination::Colour(group.thing, scene.background),
        ]);
    }
    if let Content::Inside { thing, colour, .. } = scene.content {
        found.push(Combination::Colour(thing, colour));
    }
    found
}

/// The artist whose drawing of a thing is held out, if there is one.
pub fn held_out_drawing(thing: Thing) -> Option<Vendor> {
    let turn = thing.number() / EVERY;
    (thing.number() % EVERY == EVERY - 1).then(|| Vendor::ALL[turn % Vendor::ALL.len()])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::draw;
    use crate::properties::cases;

    fn pairs() -> impl Iterator<Item = Combination> {
        let of = |a: Thing| Thing::all().filter(move |b| *b != a).map(move |b| (a, b));
        let both = |(a, b)| [Relation::LeftOf, Relation::Above].map(|how| Combination::Pair(a, how, b));
        Thing::all().flat_map(of).flat_map(both)
    }

    #[test]
    fn every_part_of_what_is_held_out_is_left_elsewhere() {
        for thing in Thing::all() {
            let counts = (1..=MOST).filter(|count| Combination::Count(thing, *count).is_held_out());
            let counts: Vec<u8> = counts.collect();
            assert!(counts.len() <= 1 && !counts.contains(&1), "{counts:?} of {}", thing.name());
            let colours =
                Colour::ALL.iter().filter(|colour| Combination::Colour(thing, **colour).is_held_out());
            assert_eq!(colours.count(), 1, "{}", thing.name());
            assert!(Split::Train.vendors(thing).len() >= 2);
        }
        for colour in Colour::ALL {
            let held_out = Thing::all().filter(|thing| Combination::Colour(*thing, *colour).is_held_out());
            assert!((3..=20).contains(&held_out.count()), "{}", colour.word());
        }
        for count in 2..=MOST {
            let held_out = Thing::all().filter(|thing| Combination::Count(*thing, count).is_held_out());
            assert!((3..=20).contains(&held_out.count()), "{count}");
        }
        let (held_out, all) = (pairs().filter(|pair| pair.is_held_out()).count(), pairs().count());
        assert!((11 * all..=13 * all).contains(&(100 * held_out)), "{held_out} of {all}");
    }

    /// Number and colour (by its place) of the first things. After a change, models that were trained before
    /// have seen what is held out.
    #[test]
    fn what_is_held_out_is_pinned() {
        let held_out = Thing::all().map(|thing| {
            let count = (2..=MOST).find(|count| Combination::Count(thing, *count).is_held_out()).unwrap_or(0);
            let is_held_out = |colour: &Colour| Combination::Colour(thing, *colour).is_held_out();
            format!("{count}{}", Colour::ALL.iter().position(is_held_out).unwrap_or_default())
        });
        assert_eq!(held_out.take(12).collect::<Vec<_>>().join(" "), "04 04 05 02 44 43 21 21 05 02 44 33");
    }

    #[test]
    fn a_quarter_of_the_things_have_a_held_out_drawing() {
        let held_out: Vec<Vendor> = Thing::all().filter_map(held_out_drawing).collect();
        assert_eq!(held_out.len(), Thing::COUNT / 4);
        assert_eq!(held_out.iter().collect::<BTreeSet<_>>().len(), Vendor::ALL.len());
    }

    proptest! {
        #![proptest_config(cases(300))]

        #[test]
        fn splits_share_no_combination_and_no_drawing(seed in any::<u64>(), number in any::<u32>()) {
            let held_out = |split| {
                let scene: Scene = draw::scene(split, seed, number.into());
                combinations(&scene).into_iter().filter(|combination| combination.is_held_out()).count()
            };
            prop_assert_eq!(held_out(Split::Train) + held_out(Split::Validation) + held_out(Split::Drawings), 0);
            prop_assert!(held_out(Split::Combinations) > 0);
            for thing in draw::scene(Split::Drawings, seed, number.into()).things() {
                let shown: BTreeSet<_> = Split::Train.vendors(thing).into_iter().collect();
                let held_out = Split::Drawings.vendors(thing);
                prop_assert!(held_out.len() == 1 && !shown.contains(&held_out[0]), "{}", thing.name());
            }
        }
    }
}
