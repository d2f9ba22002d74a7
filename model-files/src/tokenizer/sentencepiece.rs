//! SentencePiece tokenizers in the format of the `tokenizers` library: of pairs (Llama's and Vicuna's), and
//! of unigrams (T5's).

mod file;
mod pairs;
mod unigram;

pub(super) use file::{Settings, tokenizer};
pub(super) use pairs::{Piece, from_pieces};
