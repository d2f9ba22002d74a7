//! Text to tokens of a fixed length, and back.

use std::path::{Path, PathBuf};

use tokenizers::{Encoding, Tokenizer, TruncationDirection, TruncationParams};

use crate::error::{DatasetError, Result};

/// Which end of a text that is too long is cut off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cut {
    /// Its last words.
    #[default]
    Last,
    /// Its first words, but not the special tokens in front of them.
    First,
}

/// How text becomes tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextEncoding {
    /// Tokens of the result, special ones included.
    pub length: usize,
    /// Text put before every caption.
    pub prefix: String,
    /// Text put behind every caption before it is cut into tokens; `"\n"` ends a caption for OPT.
    pub suffix: String,
    /// Token that fills the result on the right.
    pub pad_id: u32,
    /// Token that every text starts with, where the tokenizer does not put it there itself.
    pub start: Option<u32>,
    /// Token that ends every text that is not cut, where the tokenizer does not put it there itself.
    pub end: Option<u32>,
    /// What is left out of a text that is too long.
    pub cut: Cut,
}

impl TextEncoding {
    /// Captions alone, cut and padded to `length`.
    pub fn new(length: usize, pad_id: u32) -> Self {
        let (prefix, suffix) = (String::new(), String::new());
        Self { length, prefix, suffix, pad_id, start: None, end: None, cut: Cut::Last }
    }
}

/// A text of fixed length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids, padded on the right.
    pub ids: Vec<i32>,
    /// 1 for a token, 0 for padding.
    pub mask: Vec<i32>,
    /// Whether the text itself, without prefix, suffix and special tokens (unknown words among them), is
    /// there at all.
    pub has_text: bool,
}

/// A tokenizer and how it is used.
pub struct TextEncoder {
    tokenizer: Tokenizer,
    encoding: TextEncoding,
    path: PathBuf,
    /// Ids of the special tokens, ascending.
    special: Vec<u32>,
}

impl TextEncoder {
    /// Loads `tokenizer.json`, or a folder that holds it.
    ///
    /// # Errors
    /// [`DatasetError::Tokenizer`] if it cannot be read or `length` leaves no room for a word.
    pub fn open(folder_or_file: &Path, encoding: TextEncoding) -> Result<Self> {
        let path = match folder_or_file.is_dir() {
            true => folder_or_file.join("tokenizer.json"),
            false => folder_or_file.to_owned(),
        };
        let failed = |reason: String| DatasetError::Tokenizer { path: path.display().to_string(), reason };
        let content = std::fs::read(&path).map_err(|error| failed(error.to_string()))?;
        Self::from_json(&content, &path, encoding)
    }

    /// Loads the content of a `tokenizer.json`; `origin` is what errors name.
    ///
    /// # Errors
    /// As [`TextEncoder::open`].
    pub fn from_json(content: &[u8], origin: &Path, encoding: TextEncoding) -> Result<Self> {
        let path = origin.to_owned();
        let failed = |reason: String| DatasetError::Tokenizer { path: path.display().to_string(), reason };
        let mut tokenizer = Tokenizer::from_bytes(content).map_err(|error| failed(error.to_string()))?;
        // The file may carry settings of its own.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| failed(error.to_string()))?;
        let probe = tokenizer.encode("", true).map_err(|error| failed(error.to_string()))?;
        if encoding.length <= probe.len() {
            return Err(failed(format!(
                "{} tokens leave no room for text; raise the text length",
                encoding.length
            )));
        }
        // Cut before special tokens are added, so that a closing one survives.
        let direction = match encoding.cut {
            Cut::Last => TruncationDirection::Right,
            Cut::First => TruncationDirection::Left,
        };
        let truncation =
            TruncationParams { max_length: encoding.length, direction, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(|error| failed(error.to_string()))?;
        let added = tokenizer.get_added_tokens_decoder();
        let mut special: Vec<_> =
            added.into_iter().filter(|(_, token)| token.special).map(|(id, _)| id).collect();
        special.sort_unstable();
        Ok(Self { tokenizer, encoding, path, special })
    }

    /// The text as tokens of the configured length.
    ///
    /// # Errors
    /// [`DatasetError::Tokenizer`] if the tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Tokens> {
        let TextEncoding { length, prefix, suffix, pad_id, end, .. } = &self.encoding;
        let full = format!("{prefix}{text}{suffix}");
        let encoded = self.run(&full)?;
        let body = prefix.len()..prefix.len() + text.len();
        let is_text = |(id, (start, end)): (&u32, &(usize, usize))| {
            self.special.binary_search(id).is_err() && *start < body.end && *end > body.start
        };
        let has_text =
            !text.trim().is_empty() && encoded.get_ids().iter().zip(encoded.get_offsets()).any(is_text);
        let mut framed = self.started(encoded.get_ids());
        framed.extend(end.filter(|end| framed.last() != Some(end)));
        self.shorten(&mut framed);
        // Vocabularies are far smaller than 2^31.
        let mut ids: Vec<i32> = framed.into_iter().map(|id| id as i32).collect();
        let mut mask = vec![1; ids.len()];
        ids.resize(*length, *pad_id as i32);
        mask.resize(*length, 0);
        Ok(Tokens { ids, mask, has_text })
    }

    /// The text's token ids behind the start token, neither padded nor with prefix, suffix and end token, but
    /// cut to the configured length.
    ///
    /// # Errors
    /// [`DatasetError::Tokenizer`] if the tokenizer refuses the text.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.started(self.run(text)?.get_ids());
        self.shorten(&mut ids);
        Ok(ids)
    }

    /// Leaves out the tokens that start and end tokens were put in the place of.
    fn shorten(&self, ids: &mut Vec<u32>) {
        let excess = ids.len().saturating_sub(self.encoding.length);
        match self.encoding.cut {
            Cut::First if excess > 0 => drop(ids.drain(1..1 + excess)),
            _ => ids.truncate(self.encoding.length),
        }
    }

    /// The ids behind the start token.
    fn started(&self, ids: &[u32]) -> Vec<u32> {
        let missing = self.encoding.start.filter(|start| ids.first() != Some(start));
        missing.into_iter().chain(ids.iter().copied()).collect()
    }

    /// The id of a token, e.g. `[DEC]`.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// Token ids to text.
    ///
    /// # Errors
    /// [`DatasetError::Tokenizer`] if the tokenizer refuses the ids.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.tokenizer.decode(ids, skip_special).map_err(|error| self.failed(error))
    }

    /// Rows of an embedding table that holds every token.
    pub fn vocab_size(&self) -> usize {
        // Ids may leave some out.
        self.tokenizer.get_vocab(true).into_values().max().map_or(0, |last| last as usize + 1)
    }

    /// How text becomes tokens.
    pub fn encoding(&self) -> &TextEncoding {
        &self.encoding
    }

    fn run(&self, text: &str) -> Result<Encoding> {
        self.tokenizer.encode(text, true).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: impl std::fmt::Display) -> DatasetError {
        DatasetError::Tokenizer { path: self.path.display().to_string(), reason: error.to_string() }
    }
}

impl std::fmt::Debug for TextEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextEncoder")
            .field("path", &self.path)
            .field("encoding", &self.encoding)
            .finish_non_exhaustive()
    }
}
