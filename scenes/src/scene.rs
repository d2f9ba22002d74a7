//! What is in a scene, in one form for each: two descriptions of a scene are equal as values.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::words::{Colour, MOST, Relation, Shape, Thing};

/// Some things of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Group {
    /// Which thing.
    pub thing: Thing,
    /// How many, 1 to [`MOST`].
    pub count: u8,
}

impl Group {
    /// A single thing.
    pub fn one(thing: Thing) -> Self {
        Self { thing, count: 1 }
    }

    /// Its name, in the number that it has.
    pub fn name(self) -> &'static str {
        self.thing.named(self.count)
    }
}

/// A scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Scene {
    /// The colour of the ground.
    pub background: Colour,
    /// What stands on it.
    pub content: Content,
}

/// What stands on the ground.
///
/// [`Content::pair`] and [`Content::corner`] make those of several things; they have one form for each scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// One to four of a kind.
    Group(Group),
    /// Two groups of different things beside each other, or one above the other.
    Pair {
        /// The left or upper group.
        first: Group,
        /// Left of or above.
        relation: Relation,
        /// The right or lower group.
        second: Group,
    },
    /// Three different things in three quarters of the image.
    Corner {
        /// The one that has both others as neighbours.
        corner: Thing,
        /// Where it stands seen from its horizontal neighbour: left or right.
        side: Relation,
        /// The horizontal neighbour.
        beside: Thing,
        /// Where it stands seen from its vertical neighbour: above or below.
        height: Relation,
        /// The vertical neighbour.
        over: Thing,
    },
    /// A thing inside a shape.
    Inside {
        /// The thing.
        thing: Thing,
        /// The shape's colour, another than the ground's.
        colour: Colour,
        /// The shape.
        shape: Shape,
    },
}

/// Most of a kind beside something else.
pub const MOST_OF_A_PAIR: u8 = 2;

impl Content {
    /// `subject` stands `relation` of `object`; none if they are the same thing or too many.
    pub fn pair(subject: Group, relation: Relation, object: Group) -> Option<Self> {
        let fit = subject.thing != object.thing && subject.count.max(object.count) <= MOST_OF_A_PAIR;
        let (first, relation, second) = match relation {
            Relation::LeftOf | Relation::Above => (subject, relation, object),
            Relation::RightOf | Relation::Below => (object, relation.reversed(), subject),
        };
        fit.then_some(Self::Pair { first, relation, second })
    }

    /// `corner` stands so of one thing and so of another; none if two are the same or both relations are of
    /// one direction.
    pub fn corner(corner: Thing, one: (Relation, Thing), other: (Relation, Thing)) -> Option<Self> {
        let (horizontal, vertical) = if one.0.is_horizontal() { (one, other) } else { (other, one) };
        let directions = horizontal.0.is_horizontal() && !vertical.0.is_horizontal();
        let different = BTreeSet::from([corner, one.1, other.1]).len() == 3;
        (directions && different).then_some(Self::Corner {
            corner,
            side: horizontal.0,
            beside: horizontal.1,
            height: vertical.0,
            over: vertical.1,
        })
    }
}

impl Scene {
    /// A scene, if the content and the ground can be told apart and no number is out of range.
    pub fn new(background: Colour, content: Content) -> Option<Self> {
        let fits = match content {
            Content::Group(group) => (1..=MOST).contains(&group.count),
            Content::Inside { colour, .. } => colour != background,
            Content::Pair { .. } | Content::Corner { .. } => true,
        };
        fits.then_some(Self { background, content })
    }

    /// Its groups, in the order in which they are laid out.
    pub fn groups(&self) -> Vec<Group> {
        match self.content {
            Content::Group(group) => vec![group],
            Content::Pair { first, second, .. } => vec![first, second],
            Content::Corner { corner, beside, over, .. } => [corner, beside, over].map(Group::one).to_vec(),
            Content::Inside { thing, .. } => vec![Group::one(thing)],
        }
    }

    /// The shape, with its colour, if there is one.
    pub fn shape(&self) -> Option<(Colour, Shape)> {
        match self.content {
            Content::Inside { colour, shape, .. } => Some((colour, shape)),
            Content::Group(_) | Content::Pair { .. } | Content::Corner { .. } => None,
        }
    }

    /// Its things, each once.
    pub fn things(&self) -> BTreeSet<Thing> {
        self.groups().into_iter().map(|group| group.thing).collect()
    }

    /// What stands how of what, each pair in one direction.
    pub fn relations(&self) -> Vec<(Group, Relation, Group)> {
        match self.content {
            Content::Group(_) | Content::Inside { .. } => Vec::new(),
            Content::Pair { first, relation, second } => vec![(first, relation, second)],
            Content::Corner { corner, side, beside, height, over } => {
                let corner = Group::one(corner);
                vec![(corner, side, Group::one(beside)), (corner, height, Group::one(over))]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_has_one_form() {
        let [a, b, c] = [0, 1, 2].map(Thing::at);
        let (one, two) = (Group::one(a), Group { thing: b, count: 2 });
        assert_eq!(Content::pair(one, Relation::RightOf, two), Content::pair(two, Relation::LeftOf, one));
        assert_eq!(Content::pair(one, Relation::Below, two), Content::pair(two, Relation::Above, one));
        assert_ne!(Content::pair(one, Relation::LeftOf, two), Content::pair(two, Relation::LeftOf, one));
        let (left, above) = ((Relation::LeftOf, b), (Relation::Above, c));
        assert_eq!(Content::corner(a, left, above), Content::corner(a, above, left));
        assert_ne!(Content::corner(a, left, above), Content::corner(b, left, above));
    }

    #[test]
    fn what_cannot_be_told_apart_is_no_scene() {
        let [a, b] = [0, 1].map(Thing::at);
        assert_eq!(Content::pair(Group::one(a), Relation::Above, Group::one(a)), None);
        assert_eq!(Content::pair(Group::one(a), Relation::Above, Group { thing: b, count: 3 }), None);
        assert_eq!(Content::corner(a, (Relation::LeftOf, b), (Relation::Above, b)), None);
        let c = Thing::at(2);
        assert_eq!(Content::corner(a, (Relation::LeftOf, b), (Relation::RightOf, c)), None);
        let inside = Content::Inside { thing: a, colour: Colour::Blue, shape: Shape::Circle };
        assert_eq!(Scene::new(Colour::Blue, inside), None);
        assert_eq!(Scene::new(Colour::Blue, Content::Group(Group { thing: a, count: 5 })), None);
    }
}
