//! Small scenes composed of the corpus' own artwork: images of which everything that can be said is known.
//!
//! One to three things stand left or right of, above, below or inside something, alone or up to four of a
//! kind, on a ground of one colour. One grammar writes captions and questions and reads them again, so
//! whether a written caption is right is decided by parsing it and not by comparing words.
//!
//! # The map
//! | module | holds |
//! |---|---|
//! | [`words`] | the things, colours, shapes, relations and numbers, with the words for them |
//! | [`scene`] | what is in a scene, in one form for each |
//! | [`grammar`] | scenes to captions and back, questions and their answers |
//! | [`split`] | which combinations and which drawings training never shows |
//! | [`draw`] | the scene of a split, a seed and a number |
//! | [`artwork`] | drawings read from the corpus and cut out of their white |
//! | [`layout`] | where the things of a scene stand |
//! | [`compose`] | a row: image, caption, question and answer |
//! | [`files`] | Parquet, contact sheet and texts of all splits |
//!
//! It knows pixels and words. It knows nothing of models, of runs, or of how captions are written by them.
//!
//! # The same bytes everywhere
//! Draws come from [`KeyedRng`](blip2_random::KeyedRng) by split, seed and number, and drawings are
//! cut, resized and pasted in whole numbers. So a row depends neither on threads nor on the rows before it.
//! What is held out is fixed in [`split`], whatever the seed: a model that was trained on one seed's scenes
//! has seen nothing that another seed's held-out splits ask for.

pub mod artwork;
pub mod compose;
pub mod draw;
pub mod error;
pub mod files;
pub mod grammar;
pub mod layout;
#[cfg(test)]
mod properties;
pub mod scene;
pub mod split;
pub mod words;
