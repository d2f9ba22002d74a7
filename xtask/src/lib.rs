//! What the repository's own text says of itself: read for the page `docs/arrows.md` and for the gates in
//! `tests/`.

pub mod arrows;
pub mod links;
pub mod text;
