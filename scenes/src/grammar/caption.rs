//! Scenes to captions and back.

use super::pattern::{Pattern, Value, read, words, write};
use crate::scene::{Content, Group, Scene};

/// The captions; each contains whatever its content needs, and ends with the ground.
const CAPTIONS: [Pattern; 4] = [GROUP, PAIR, CORNER, INSIDE];
const GROUP: Pattern = "{group} on {colour}";
const PAIR: Pattern = "{group} {relation} {group} on {colour}";
const CORNER: Pattern = "{group} {relation} {group} and {relation} {group} on {colour}";
const INSIDE: Pattern = "{group} inside a {colour} {shape} on {colour}";

/// All captions of a scene, at least one.
pub fn captions(scene: &Scene) -> Vec<String> {
    let ground = Value::Colour(scene.background);
    match scene.content {
        Content::Group(group) => vec![write(GROUP, &[Value::Group(group), ground])],
        Content::Pair { first, relation, second } => {
            [(first, relation, second), (second, relation.reversed(), first)]
                .map(|(one, relation, other)| {
                    write(PAIR, &[Value::Group(one), Value::Relation(relation), Value::Group(other), ground])
                })
                .to_vec()
        }
        Content::Corner { corner, side, beside, height, over } => {
            let [corner, beside, over] = [corner, beside, over].map(|thing| Value::Group(Group::one(thing)));
            let (side, height) = (Value::Relation(side), Value::Relation(height));
            vec![
                write(CORNER, &[corner, side, beside, height, over, ground]),
                write(CORNER, &[corner, height, over, side, beside, ground]),
            ]
        }
        Content::Inside { thing, colour, shape } => {
            let thing = Value::Group(Group::one(thing));
            vec![write(INSIDE, &[thing, Value::Colour(colour), Value::Shape(shape), ground])]
        }
    }
}

/// The scene that a caption describes; none if it is no sentence of the grammar, or describes what no scene
/// shows.
pub fn parse(caption: &str) -> Option<Scene> {
    let caption = words(caption);
    let sentence: Vec<&str> = caption.split_whitespace().collect();
    let values = CAPTIONS.iter().find_map(|pattern| read(pattern, &sentence))?;
    let one = |group: Group| (group.count == 1).then_some(group.thing);
    let (background, content) = match values[..] {
        [Value::Group(group), Value::Colour(ground)] => (ground, Content::Group(group)),
        [Value::Group(subject), Value::Relation(relation), Value::Group(object), Value::Colour(ground)] => {
            (ground, Content::pair(subject, relation, object)?)
        }
        [
            Value::Group(corner),
            Value::Relation(first),
            Value::Group(a),
            Value::Relation(second),
            Value::Group(b),
            Value::Colour(ground),
        ] => (ground, Content::corner(one(corner)?, (first, one(a)?), (second, one(b)?))?),
        [Value::Group(group), Value::Colour(colour), Value::Shape(shape), Value::Colour(ground)] => {
            (ground, Content::Inside { thing: one(group)?, colour, shape })
        }
        _ => return None,
    };
    Scene::new(background, content)
}

/// Whether a caption names all of a scene's things and no others, whatever it says of their number, place
/// and colours.
pub fn things_agree(caption: &str, scene: &Scene) -> bool {
    parse(caption).is_some_and(|described| described.things() == scene.things())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::draw;
    use crate::properties::{cases, splits};

    #[test]
    fn what_is_no_caption_is_no_scene() {
        for caption in [
            "",
            "a cat",
            "cat on green",
            "two cat on green",
            "a cats on green",
            "an cat on green",
            "a cat on teal",
            "a cat left a dog on green",
            "a cat left of a cat on green",
            "a cat left of a dog and right of a pig on green",
            "a cat inside a green circle on green",
            "two cats inside a pink circle on green",
            "a cat on green on green",
            "five cats on green",
        ] {
            assert_eq!(parse(caption), None, "{caption}");
        }
    }

    #[test]
    fn case_spaces_and_the_final_dot_do_not_matter() {
        assert_eq!(parse(" A cat  on green."), parse("a cat on green"));
        assert!(parse("a cat on green").is_some());
    }

    #[test]
    fn things_may_be_right_where_the_caption_is_wrong() {
        let scene = parse("two cats left of a dog on green").unwrap();
        assert!(things_agree("a dog above a cat on pink", &scene));
        assert!(!things_agree("two cats on green", &scene));
        assert!(!things_agree("cats dogs", &scene));
    }

    proptest! {
        #![proptest_config(cases(300))]

        #[test]
        fn every_caption_describes_its_scene(split in splits(), seed in any::<u64>(), number in any::<u32>()) {
            let scene = draw::scene(split, seed, number.into());
            let written = captions(&scene);
            for caption in &written {
                prop_assert_eq!(parse(caption), Some(scene), "{}", caption);
                prop_assert!(caption.split(' ').count() <= 14, "{}", caption);
            }
            let mut distinct = written.clone();
            distinct.sort();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), written.len());
        }
    }
}
