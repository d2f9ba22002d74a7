//! Metrics of captions, as the caption toolkit of COCO computes them (`pycocoevalcap` 1.2): the words of
//! captions, and numbers of words. Nothing here runs a program or knows a model.
//!
//! - [`coco`]: the files of annotations and results
//! - [`corpus`]: images with their captions, as written and as words
//! - [`ptb`]: what a word is
//! - [`scores`]: all numbers, of a set, an image, or a draw of images
//! - [`bleu`], [`rouge`], [`cider`]: one metric each, over [`ngrams`]; [`meteor`]: its score from what its
//!   own program counts
//!
//! ```
//! use blip2_evaluation::metrics::captions::corpus::{Corpus, ImageCaptions};
//! use blip2_evaluation::metrics::captions::scores::CaptionScores;
//! use blip2_evaluation::row_id::RowId;
//!
//! let corpus = Corpus::new(vec![ImageCaptions {
//!     image: RowId::Number(42),
//!     references: vec!["A dog's ball.".to_owned(), "A ball, and a dog!".to_owned()],
//!     hypothesis: "a dog's ball".to_owned(),
//! }])?;
//! assert_eq!(corpus.tokenized().images()[0].references[0], "a dog 's ball");
//! assert!(CaptionScores::of(&corpus.tokenized()).corpus().bleu[3] > 0.99);
//! # Ok::<(), blip2_evaluation::error::captions::CaptionsError>(())
//! ```

pub mod bleu;
pub mod cider;
pub mod coco;
pub mod corpus;
pub mod meteor;
pub mod ngrams;
pub mod ptb;
pub mod rouge;
pub mod scores;
