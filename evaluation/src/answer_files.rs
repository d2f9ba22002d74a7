//! Files of questions, answers of people and answers of models, in the forms that data sets and LAVIS have.
//!
//! What is read is anybody's: a file that is no such thing, ids that are there twice and texts of no end are
//! errors that name the file and the place.

pub(crate) mod coco;
pub(crate) mod entries;
pub mod lemmas;
pub(crate) mod parse;
pub mod questions;
pub mod results;
