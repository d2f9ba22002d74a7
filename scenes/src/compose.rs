//! A row: an image, what is in it, a caption of it, a question about it and the answer.

mod paint;

use std::path::Path;

use image::RgbImage;
use serde::Serialize;

use crate::artwork::Artwork;
use crate::draw::{self, generator};
use crate::error::{Result, ScenesError};
use crate::grammar::{Question, captions};
use crate::layout::{Rect, layout};
use crate::scene::{Group, Scene};
use crate::split::{Split, combinations};

/// Sides of an image, pixels: from what can be recognised to what the drawings have.
const SIZES: [u32; 2] = [48, 160];

/// The side of an image unless another is asked for, pixels.
pub const SIZE: u32 = 96;

/// Makes rows.
#[derive(Debug, Clone)]
pub struct Composer {
    artwork: Artwork,
    size: u32,
    seed: u64,
}

/// A row of a split.
#[derive(Debug, Clone)]
pub struct Composed {
    /// Split and number.
    pub key: String,
    /// The image.
    pub image: RgbImage,
    /// The first of the scene's captions: what is left or above is told first.
    pub caption: String,
    /// A question.
    pub question: Question,
    /// Its answer.
    pub answer: String,
    /// What is in the image.
    pub structure: Structure,
}

/// What is in an image, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Structure {
    /// The scene.
    pub scene: Scene,
    /// Where its things are, in the order of [`Scene::groups`].
    pub groups: Vec<PlacedGroup>,
    /// The square around the shape, if there is one.
    pub shape: Option<Rect>,
    /// The combinations that training never shows.
    pub held_out: Vec<String>,
}

/// Things of a kind, and where they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlacedGroup {
    /// Which, and how many.
    #[serde(flatten)]
    pub group: Group,
    /// The drawings' keys in the corpus.
    pub drawings: Vec<String>,
    /// The drawings' pixels.
    pub boxes: Vec<Rect>,
}

impl Composer {
    /// Reads the drawings from a folder of the emoji corpus, for images of `size` pixels a side.
    ///
    /// # Errors
    /// [`ScenesError::Size`]; as [`Artwork::open`].
    pub fn open(corpus: &Path, size: u32, seed: u64) -> Result<Self> {
        let [least, most] = SIZES;
        if !(least..=most).contains(&size) {
            return Err(ScenesError::Size { size, least, most });
        }
        Ok(Self { artwork: Artwork::open(corpus)?, size, seed })
    }

    /// The row of a split with this number.
    pub fn compose(&self, split: Split, number: u64) -> Composed {
        let draws = |purpose| generator(purpose, split, self.seed, number);
        let scene = draw::scene(split, self.seed, number);
        let laid = layout(&scene, self.size, &mut draws("layout"));
        let mut image = paint::ground(self.size, scene.background, laid.shape.zip(scene.shape()));
        let mut vendors = draws("drawings");
        let mut groups = Vec::new();
        for (group, squares) in scene.groups().into_iter().zip(laid.groups) {
            let own = split.vendors(group.thing);
            let mut placed = PlacedGroup { group, drawings: Vec::new(), boxes: Vec::new() };
            for square in squares {
                let vendor = own[vendors.below(own.len() as u64) as usize];
                let drawing = self.artwork.drawing(group.thing, vendor);
                let sprite = drawing.at_size(square.width);
                let place = square.middle(sprite.width, sprite.height);
                paint::paste(&mut image, &sprite, place);
                placed.drawings.push(drawing.key.clone());
                placed.boxes.push(place);
            }
            groups.push(placed);
        }
        // Of sentences for one image none could be told from it: drawing one would teach a guess.
        let caption = captions(&scene).swap_remove(0);
        let question = draw::question(&scene, &mut draws("question"));
        let answer = question.answer(&scene).expect("only what the scene answers is asked");
        let held_out = combinations(&scene).into_iter().filter(|combination| combination.is_held_out());
        let held_out = held_out.map(|combination| combination.words()).collect();
        let key = format!("{}-{number:06}", split.name());
        let structure = Structure { scene, groups, shape: laid.shape, held_out };
        Composed { key, image, caption, question, answer, structure }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::grammar::parse;
    use crate::properties::{cases, splits};
    use crate::words::Relation;

    static COMPOSER: LazyLock<Composer> = LazyLock::new(|| composer(SIZE));

    fn composer(size: u32) -> Composer {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/corpus");
        Composer::open(&corpus, size, 42).unwrap()
    }

    /// Pins every pixel of some rows: other bytes are other data for every model that was trained.
    #[test]
    fn pixels_are_pinned() {
        let mut hash = Sha256::new();
        for split in Split::ALL {
            for number in 0..8 {
                hash.update(COMPOSER.compose(split, number).image.as_raw());
            }
        }
        let found: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, "9549b8e6cd2ca041");
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        let corpus = Path::new("nowhere");
        for size in [0, 47, 161] {
            assert!(matches!(Composer::open(corpus, size, 1), Err(ScenesError::Size { .. })));
        }
    }

    #[test]
    fn drawings_are_those_of_the_split() {
        for number in 0..200 {
            for (split, held_out) in
                [(Split::Train, false), (Split::Combinations, false), (Split::Drawings, true)]
            {
                for placed in COMPOSER.compose(split, number).structure.groups {
                    let vendor = crate::split::held_out_drawing(placed.group.thing);
                    for key in placed.drawings {
                        let is_held_out = vendor.is_some_and(|vendor| key.starts_with(vendor.word()));
                        assert_eq!(is_held_out, held_out, "{key}");
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(cases(120))]

        #[test]
        fn the_words_hold_for_the_boxes(split in splits(), number in any::<u32>(), size in SIZES[0]..=SIZES[1]) {
            let own = Composer { size, ..COMPOSER.clone() };
            let Composed { caption, question, answer, structure, image, .. } = own.compose(split, number.into());
            let Structure { scene, groups, shape, .. } = structure;
            prop_assert_eq!(parse(&caption), Some(scene));
            prop_assert_eq!(&caption, &captions(&scene)[0], "an image has one caption");
            prop_assert_eq!(Question::parse(&question.text()).and_then(|read| read.answer(&scene)), Some(answer.clone()));
            for (placed, group) in groups.iter().zip(scene.groups()) {
                prop_assert_eq!((placed.group, placed.boxes.len()), (group, group.count.into()));
            }
            let boxes: Vec<&Rect> = groups.iter().flat_map(|placed| &placed.boxes).collect();
            let apart = |a: &Rect, b: &Rect| Relation::ALL.iter().any(|relation| a.is(*relation, b));
            for (number, one) in boxes.iter().enumerate() {
                prop_assert!(one.right() <= image.width() && one.bottom() <= image.height());
                prop_assert!(boxes[number + 1..].iter().all(|other| apart(one, other)), "{:?}", boxes);
            }
            let boxes_of = |group: Group| groups.iter().find(|placed| placed.group == group).map(|own| &own.boxes);
            for (subject, relation, object) in scene.relations() {
                for (a, b) in boxes_of(subject).into_iter().flatten().flat_map(|a| {
                    boxes_of(object).into_iter().flatten().map(move |b| (a, b))
                }) {
                    prop_assert!(a.is(relation, b), "{} {:?} {:?}", caption, a, b);
                }
            }
            if let Some(around) = shape {
                let one = boxes[0];
                prop_assert!(around.x <= one.x && one.right() <= around.right());
                prop_assert!(around.y <= one.y && one.bottom() <= around.bottom());
            }
        }

        /// Of a question after a place, the answer is what stands there.
        #[test]
        fn answers_hold_for_the_boxes(split in splits(), number in any::<u32>()) {
            let Composed { question, answer, structure, .. } = COMPOSER.compose(split, number.into());
            let boxes = |name: &str| -> Vec<Rect> {
                let own = structure.groups.iter().filter(|placed| placed.group.name() == name);
                own.flat_map(|placed| placed.boxes.clone()).collect()
            };
            match question {
                Question::Where(relation, thing, several) => {
                    let (found, named) = (boxes(&answer), boxes(thing.named(if several { 2 } else { 1 })));
                    prop_assert!(!found.is_empty() && !named.is_empty());
                    prop_assert!(found.iter().all(|a| named.iter().all(|b| a.is(relation, b))));
                }
                Question::Count(thing) => {
                    let shown: usize = structure.groups.iter().filter(|own| own.group.thing == thing).map(|own| own.boxes.len()).sum();
                    prop_assert_eq!(answer, shown.to_string());
                }
                Question::Presence(thing) => {
                    let there = structure.groups.iter().any(|placed| placed.group.thing == thing);
                    prop_assert_eq!(answer == "yes", there);
                }
                Question::Ground | Question::ShapeColour(_) | Question::Inside(_) => {}
            }
        }
    }
}
