//! The tokenizers of published folders, whatever files they are in, as the content of a `tokenizer.json`.

mod byte_pairs;
mod content;
mod gguf;
pub mod ids;
mod pairs;
mod qformer;
mod sentencepiece;
mod settings;
mod word_pieces;

pub use content::{TokenizerKind, has_tokenizer_json, tokenizer_content, tokenizer_json};
pub use qformer::{BESIDE, DECODER_START, QFormerTokenizer};
pub use settings::{named_token, settings};

#[cfg(test)]
mod tests;
