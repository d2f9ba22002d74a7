//! Where the things of a scene stand, so that the words for it hold.
//!
//! The image is cut in halves or quarters; a thing lies in its part alone, at a place and of a size that are
//! drawn. All lengths are whole pixels.

use blip2_random::KeyedRng;
use serde::{Deserialize, Serialize};

use crate::scene::{Content, Scene};
use crate::words::{Relation, Shape};

/// Pixels of an image: left, top, width and height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rect {
    /// First column.
    pub x: u32,
    /// First row.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Rect {
    /// The column after the last.
    pub fn right(&self) -> u32 {
        self.x + self.width
    }

    /// The row after the last.
    pub fn bottom(&self) -> u32 {
        self.y + self.height
    }

    /// Whether all of it stands so of all of another.
    pub fn is(&self, relation: Relation, other: &Self) -> bool {
        match relation {
            Relation::LeftOf => self.right() <= other.x,
            Relation::RightOf => other.right() <= self.x,
            Relation::Above => self.bottom() <= other.y,
            Relation::Below => other.bottom() <= self.y,
        }
    }

    /// A part of it of this size in its middle.
    pub(crate) fn middle(&self, width: u32, height: u32) -> Self {
        Self { x: self.x + (self.width - width) / 2, y: self.y + (self.height - height) / 2, width, height }
    }
}

/// Squares for the things of a scene; a drawing's longer side is as long as its square.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The square around the shape, if there is one.
    pub shape: Option<Rect>,
    /// For each group of the scene the squares of its things.
    pub groups: Vec<Vec<Rect>>,
}

/// Hundredths of the image's side: from and to.
type Range = [u32; 2];

const ALONE: Range = [42, 64];
const IN_A_HALF: Range = [38, 48];
const IN_A_QUARTER: Range = [36, 46];
const SHAPE: Range = [70, 84];
const IN_A_SHAPE: Range = [40, 48];

/// A single thing of a pair strays so far from the middle line, in hundredths.
const STRAY: u32 = 12;

/// The layout of a scene in an image of `size` pixels a side.
pub fn layout(scene: &Scene, size: u32, rng: &mut KeyedRng) -> Layout {
    let image = Rect { x: 0, y: 0, width: size, height: size };
    let mut shape = None;
    let groups = match scene.content {
        Content::Group(group) if group.count == 1 => vec![vec![square(image, size, ALONE, rng)]],
        Content::Group(group) => {
            vec![
                some_of([0, 1, 2, 3], group.count, rng)
                    .into_iter()
                    .map(|place| square(quarter(size, place), size, IN_A_QUARTER, rng))
                    .collect(),
            ]
        }
        Content::Pair { first, relation, second } => {
            let halves = [(first, 0), (second, 1)];
            halves.map(|(group, half)| half_of(size, relation, half, group.count, rng)).to_vec()
        }
        Content::Corner { side, height, .. } => {
            let (column, row) = (u32::from(side == Relation::RightOf), u32::from(height == Relation::Below));
            let places = [2 * row + column, 2 * row + 1 - column, 2 * (1 - row) + column];
            places.map(|place| vec![square(quarter(size, place), size, IN_A_QUARTER, rng)]).to_vec()
        }
        Content::Inside { shape: form, .. } => {
            let around = square(image, size, SHAPE, rng);
            shape = Some(around);
            vec![vec![square(inner(form, around), size, IN_A_SHAPE, rng)]]
        }
    };
    Layout { shape, groups }
}

/// The places of one or two things in a half of the image.
fn half_of(size: u32, relation: Relation, half: u32, count: u8, rng: &mut KeyedRng) -> Vec<Rect> {
    let horizontal = relation.is_horizontal();
    if count > 1 {
        let place = |other: u32| if horizontal { 2 * other + half } else { 2 * half + other };
        return [0, 1].map(|other| square(quarter(size, place(other)), size, IN_A_QUARTER, rng)).to_vec();
    }
    // A band around the middle line, half an image long.
    let (middle, stray) = (size / 2, size * STRAY / 100);
    let long = size * IN_A_HALF[1] / 100 + 2 * stray;
    let across = (middle - long / 2, long);
    let along = (half * middle, middle);
    let ((x, width), (y, height)) = if horizontal { (along, across) } else { (across, along) };
    vec![square(Rect { x, y, width, height }, size, IN_A_HALF, rng)]
}

/// A quarter of the image: upper left, upper right, lower left, lower right.
fn quarter(size: u32, place: u32) -> Rect {
    let half = size / 2;
    Rect { x: place % 2 * half, y: place / 2 * half, width: half, height: half }
}

/// The square in which what is inside a shape lies.
fn inner(shape: Shape, around: Rect) -> Rect {
    // A circle's inner square is 0.707 of its width.
    let side = match shape {
        Shape::Circle => around.width * 70 / 100,
        Shape::Square => around.width * 90 / 100,
    };
    around.middle(side, side)
}

/// A square of a drawn size at a drawn place within `bounds`.
fn square(bounds: Rect, size: u32, [least, most]: Range, rng: &mut KeyedRng) -> Rect {
    let mut between =
        |least: u32, most: u32| least + rng.below(u64::from(most.saturating_sub(least)) + 1) as u32;
    let longest = bounds.width.min(bounds.height);
    let side = between(size * least / 100, size * most / 100).min(longest);
    let x = bounds.x + between(0, bounds.width - side);
    let y = bounds.y + between(0, bounds.height - side);
    Rect { x, y, width: side, height: side }
}

/// So many of some places, in their order.
fn some_of(places: [u32; 4], count: u8, rng: &mut KeyedRng) -> Vec<u32> {
    let mut left = places.to_vec();
    while left.len() > count.into() {
        left.remove(rng.below(left.len() as u64) as usize);
    }
    left
}
