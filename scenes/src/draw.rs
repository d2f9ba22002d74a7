//! The scene of a split, a seed and a number.

use blip2_random::KeyedRng;

use crate::grammar::{Question, answerable};
use crate::scene::{Content, Group, MOST_OF_A_PAIR, Scene};
use crate::split::{Combination, Split, combinations, held_out_drawing};
use crate::words::{Colour, MOST, Relation, Shape, Thing};

/// Chances of what is drawn, each out of their sum.
struct Chances {
    /// Several of a kind, pairs, corners, things inside a shape.
    contents: [u64; 4],
    /// One to [`MOST`] of a kind.
    counts: [u64; MOST as usize],
}

/// What is measured on: every number as often.
const MEASURED: Chances = Chances { contents: [6, 8, 3, 3], counts: [1, 1, 1, 1] };

/// What is trained on: more of what is hard to tell. Trained as often as they are measured, every fifth
/// group of three or four is told as two groups, and of three things one is told wrongly in three captions of
/// ten.
const TRAINED: Chances = Chances { contents: [6, 8, 4, 3], counts: [1, 2, 3, 3] };

/// Of five groups of a pair, one has several of its kind.
const SEVERAL: u64 = 5;

/// Of twenty questions, so many ask whether something is there; the rest ask for what is.
const PRESENCE: u64 = 3;

/// A generator for a purpose of one row.
pub(crate) fn generator(purpose: &str, split: Split, seed: u64, number: u64) -> KeyedRng {
    KeyedRng::new(seed, &format!("scenes {} {purpose}", split.name()), &[number])
}

/// The scene with this number.
pub fn scene(split: Split, seed: u64, number: u64) -> Scene {
    let mut rng = generator("scene", split, seed, number);
    loop {
        let scene = any_scene(split, &mut rng);
        if scene.is_some_and(|scene| split.allows(&scene) && is_in_turn(split, &scene, number)) {
            return scene.expect("it is one");
        }
    }
}

/// Held-out combinations come in turn: a number of things, a pair, a colour.
fn is_in_turn(split: Split, scene: &Scene, number: u64) -> bool {
    if split != Split::Combinations {
        return true;
    }
    let turn = |combination: &Combination| match combination {
        Combination::Count(..) => 0,
        Combination::Pair(..) => 1,
        Combination::Colour(..) => 2,
    };
    let held_out = combinations(scene).into_iter().filter(|combination| combination.is_held_out());
    held_out.map(|combination| turn(&combination)).any(|kind| kind == number % 3)
}

/// A scene of any combinations; none where the draws do not fit together.
fn any_scene(split: Split, rng: &mut KeyedRng) -> Option<Scene> {
    let background = one_of(Colour::ALL, rng);
    let chances = if split == Split::Train { &TRAINED } else { &MEASURED };
    let content = match weighted(&chances.contents, rng) {
        0 => {
            let thing = thing(split, rng);
            Content::Group(Group { thing, count: 1 + weighted(&chances.counts, rng) as u8 })
        }
        1 => {
            let relation = one_of(&[Relation::LeftOf, Relation::Above], rng);
            Content::pair(of_a_pair(split, rng), relation, of_a_pair(split, rng))?
        }
        2 => {
            let side = one_of(&[Relation::LeftOf, Relation::RightOf], rng);
            let height = one_of(&[Relation::Above, Relation::Below], rng);
            let [corner, beside, over] = [(); 3].map(|()| thing(split, rng));
            Content::corner(corner, (side, beside), (height, over))?
        }
        _ => Content::Inside {
            thing: thing(split, rng),
            colour: one_of(Colour::ALL, rng),
            shape: one_of(Shape::ALL, rng),
        },
    };
    Scene::new(background, content)
}

fn thing(split: Split, rng: &mut KeyedRng) -> Thing {
    loop {
        let thing = Thing::at(rng.below(Thing::COUNT as u64) as usize);
        if split != Split::Drawings || held_out_drawing(thing).is_some() {
            return thing;
        }
    }
}

fn of_a_pair(split: Split, rng: &mut KeyedRng) -> Group {
    let count = if rng.below(SEVERAL) == 0 { MOST_OF_A_PAIR } else { 1 };
    Group { thing: thing(split, rng), count }
}

/// A place, with the chance that stands there.
fn weighted(chances: &[u64], rng: &mut KeyedRng) -> usize {
    let mut draw = rng.below(chances.iter().sum());
    for (place, chance) in chances.iter().enumerate() {
        if draw < *chance {
            return place;
        }
        draw -= chance;
    }
    unreachable!("a draw is below the sum")
}

fn one_of<T: Copy>(all: &[T], rng: &mut KeyedRng) -> T {
    all[rng.below(all.len() as u64) as usize]
}

/// The question that is asked of a scene: yes as often as no.
pub fn question(scene: &Scene, rng: &mut KeyedRng) -> Question {
    if rng.below(20) < PRESENCE {
        let there: Vec<Thing> = scene.things().into_iter().collect();
        let is_there = rng.below(2) == 0;
        let absent = || Thing::all().filter(|thing| !there.contains(thing)).collect::<Vec<_>>();
        return Question::Presence(one_of(&if is_there { there.clone() } else { absent() }, rng));
    }
    let mut asked = answerable(scene);
    // The ground is the same question everywhere: one time in four.
    if rng.below(4) > 0 {
        asked.retain(|question| *question != Question::Ground);
    } else {
        asked.truncate(1);
    }
    one_of(&asked, rng)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SCENES: u64 = 4000;

    fn asked(split: Split) -> Vec<(Question, String)> {
        let ask = |number| {
            let scene = scene(split, 7, number);
            let question = question(&scene, &mut generator("question", split, 7, number));
            (question, question.answer(&scene).expect("an answer"))
        };
        (0..SCENES).map(ask).collect()
    }

    /// Whoever knows all training questions and never looks at an image.
    #[test]
    fn guessing_by_the_question_alone_answers_few() {
        let mut known: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        for (question, answer) in asked(Split::Train) {
            *known.entry(question.text()).or_default().entry(answer).or_default() += 1;
        }
        let held_out = asked(Split::Combinations);
        let right = held_out.iter().filter(|(question, answer)| {
            let answers = known.get(&question.text());
            let most = answers.and_then(|answers| answers.iter().max_by_key(|(_, count)| **count));
            most.is_some_and(|(guess, _)| guess == answer)
        });
        let share = right.count() as f64 / held_out.len() as f64;
        assert!(share < 0.35, "{share} of the answers are guessed");
    }

    #[test]
    fn yes_and_no_are_few_and_even() {
        let asked = asked(Split::Combinations);
        let of = |wanted: &str| asked.iter().filter(|(_, answer)| answer == wanted).count();
        let (yes, no) = (of("yes"), of("no"));
        assert!(yes.abs_diff(no) < 80 && (400..800).contains(&(yes + no)), "{yes} {no}");
    }

    #[test]
    fn scenes_are_of_all_kinds() {
        let mut kinds = [0; 4];
        for number in 0..SCENES {
            kinds[match scene(Split::Train, 3, number).content {
                Content::Group(_) => 0,
                Content::Pair { .. } => 1,
                Content::Corner { .. } => 2,
                Content::Inside { .. } => 3,
            }] += 1;
        }
        assert!(kinds.iter().all(|count| *count > SCENES / 20), "{kinds:?}");
    }
}
