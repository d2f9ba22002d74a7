//! Captions: cleaning, tokens, and back to text.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use tokenizers::{Encoding, Tokenizer, TruncationParams};

use crate::error::{DatasetError, Result};

/// Words a training caption keeps.
pub const MAX_CAPTION_WORDS: usize = 50;

/// Characters replaced by a space.
const REPLACED: &[char] = &['.', '!', '"', '(', ')', '*', '#', ':', ';', '~'];

/// LAVIS's caption cleaning: lower case, punctuation to spaces, single spaces, at most `max_words` words. Commas,
/// apostrophes, question marks and hyphens stay. Control characters, NUL among them, are spaces too.
///
/// ```
/// use blip2_dataset::text::clean_caption;
/// assert_eq!(clean_caption("A well-fed dog (running)!  Isn't it?", 50), "a well-fed dog running isn't it?");
/// ```
pub fn clean_caption(caption: &str, max_words: usize) -> String {
    let replaced = |character: char| character.is_control() || REPLACED.contains(&character);
    let spaced: String = caption.to_lowercase().replace(replaced, " ");
    spaced.split_whitespace().take(max_words).collect::<Vec<_>>().join(" ")
}

/// Characters of which nothing is seen, besides white space and control characters: Unicode's default ignorable ones
/// (zero-width and joining ones, marks of direction, soft hyphens, variation selectors, tags, fillers), annotation marks
/// and the empty Braille pattern.
const INVISIBLE: &[RangeInclusive<char>] = &[
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{61c}'..='\u{61c}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{200b}'..='\u{200f}',
    '\u{202a}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fffb}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
];

/// Whether a text has a character that is seen. One of spaces, control characters and zero-width ones alone is no caption.
pub fn is_visible(text: &str) -> bool {
    let is_seen = |character: char| {
        let unseen = character.is_whitespace() || character.is_control();
        !unseen && !INVISIBLE.iter().any(|range| range.contains(&character))
    };
    text.chars().any(is_seen)
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
}

impl TextEncoding {
    /// Captions alone, cut and padded to `length`.
    pub fn new(length: usize, pad_id: u32) -> Self {
        Self { length, prefix: String::new(), suffix: String::new(), pad_id, start: None, end: None }
    }
}

/// A text of fixed length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids, padded on the right.
    pub ids: Vec<i32>,
    /// 1 for a token, 0 for padding.
    pub mask: Vec<i32>,
    /// Whether the text itself, without prefix, suffix and special tokens (unknown words among them), is there at all.
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
        let truncation = TruncationParams { max_length: encoding.length, ..TruncationParams::default() };
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
        framed.truncate(*length);
        // Vocabularies are far smaller than 2^31.
        let mut ids: Vec<i32> = framed.into_iter().map(|id| id as i32).collect();
        let mut mask = vec![1; ids.len()];
        ids.resize(*length, *pad_id as i32);
        mask.resize(*length, 0);
        Ok(Tokens { ids, mask, has_text })
    }

    /// The text's token ids behind the start token, neither padded nor with prefix, suffix and end token, but cut to the
    /// configured length.
    ///
    /// # Errors
    /// [`DatasetError::Tokenizer`] if the tokenizer refuses the text.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.started(self.run(text)?.get_ids());
        ids.truncate(self.encoding.length);
        Ok(ids)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_corpus::backbone;

    fn qformer(length: usize) -> TextEncoder {
        TextEncoder::open(&backbone("qformer-tokenizer"), TextEncoding::new(length, 0)).unwrap()
    }

    fn opt(length: usize) -> TextEncoder {
        let encoding = TextEncoding { suffix: "\n".into(), ..TextEncoding::new(length, 1) };
        TextEncoder::open(&backbone("opt-tiny"), encoding).unwrap()
    }

    #[test]
    fn captions_of_invisible_characters_are_none() {
        for text in [
            "",
            " \t\n",
            "\0\u{1}",
            "\u{200b}",
            "\u{feff}",
            "\u{ad}\u{ad}",
            "\u{200d}\u{fe0f}",
            "\u{2060} \u{3000}",
            "\u{202e}\u{202c}",
            "\u{2800}",
            "\u{3164}",
            "\u{e0041}",
            "\u{34f}",
            "\u{a0}\u{2003}",
            "\u{180e}",
        ] {
            assert!(!is_visible(text), "{text:?}");
        }
        for text in ["a", ".", "\u{feff}x", "é", "e\u{301}", "猫", "😀", "\u{5d7}", "؟"] {
            assert!(is_visible(text), "{text:?}");
        }
    }

    #[test]
    fn control_characters_are_spaces() {
        assert_eq!(clean_caption("a\0red\u{7f}cat\u{85}x\ty", 50), "a red cat x y");
    }

    #[test]
    fn captions_are_cleaned_as_lavis_does() {
        assert_eq!(clean_caption("  Flag: Côte d'Ivoire\n\n", 50), "flag côte d'ivoire");
        assert_eq!(clean_caption("e-mail; what?, yes~", 50), "e-mail what?, yes");
        assert_eq!(clean_caption(&"word ".repeat(10_000), 50).split(' ').count(), 50);
        assert_eq!(clean_caption("...!", 50), "");
    }

    #[test]
    fn word_pieces_are_framed_and_padded() {
        let encoder = qformer(16);
        let tokens = encoder.encode("red apple").unwrap();
        let used = tokens.mask.iter().filter(|used| **used == 1).count();
        assert_eq!((tokens.ids.len(), tokens.mask.len()), (16, 16));
        assert_eq!((tokens.ids[0], tokens.ids[used - 1]), (2, 3));
        assert!(
            tokens.ids[used..].iter().all(|id| *id == 0) && tokens.mask[used..].iter().all(|used| *used == 0)
        );
        let ids: Vec<u32> = tokens.ids[..used].iter().map(|id| *id as u32).collect();
        assert_eq!(encoder.decode(&ids, true).unwrap(), "red apple");
        assert_eq!(encoder.encode_plain("red apple").unwrap(), ids);
    }

    #[test]
    fn truncation_keeps_the_closing_token() {
        let tokens = qformer(8).encode(&"red apple ".repeat(5000)).unwrap();
        assert_eq!(tokens.mask, vec![1; 8]);
        assert_eq!((tokens.ids[0], tokens.ids[7]), (2, 3));
    }

    #[test]
    fn opt_begins_with_its_marker_and_ends_with_a_newline() {
        let encoder = opt(12);
        let tokens = encoder.encode("red apple").unwrap();
        let used = tokens.mask.iter().filter(|used| **used == 1).count();
        let newline = *encoder.encode_plain("\n").unwrap().last().unwrap() as i32;
        assert_eq!((tokens.ids[0], tokens.ids[used - 1]), (2, newline));
        assert!(tokens.ids[used..].iter().all(|id| *id == 1));
        let ids: Vec<u32> = tokens.ids.iter().map(|id| *id as u32).collect();
        assert_eq!(encoder.decode(&ids, true).unwrap().trim(), "red apple");
    }

    #[test]
    fn start_and_end_tokens_that_the_tokenizer_leaves_out_are_put_there() {
        let plain = opt(12).encode_plain("red apple").unwrap();
        let encoding = TextEncoding { start: Some(2), end: Some(7), ..TextEncoding::new(12, 1) };
        let open = |encoding| TextEncoder::open(&backbone("opt-tiny"), encoding).unwrap();
        let tokens = open(encoding.clone()).encode("red apple").unwrap();
        let used = tokens.mask.iter().filter(|used| **used == 1).count();
        let ids: Vec<u32> = tokens.ids[..used].iter().map(|id| *id as u32).collect();
        assert_eq!(ids, [plain.clone(), vec![7]].concat(), "the tokenizer's own start token is enough");
        let other = open(TextEncoding { start: Some(5), ..encoding.clone() });
        assert_eq!(other.encode_plain("red apple").unwrap(), [vec![5], plain.clone()].concat());
        let cut = open(TextEncoding { length: plain.len(), ..encoding }).encode("red apple").unwrap();
        assert!(!cut.ids.contains(&7), "a text that is cut does not end: {:?}", cut.ids);
    }

    #[test]
    fn text_is_told_from_no_text() {
        let (words, bytes) = (qformer(16), opt(16));
        for (text, in_words, in_bytes) in [
            ("apple", true, true),
            ("", false, false),
            ("  ", false, false),
            ("🦖🦖", false, true),
            ("[SEP]", false, true),
        ] {
            assert_eq!(words.encode(text).unwrap().has_text, in_words, "{text:?}");
            assert_eq!(bytes.encode(text).unwrap().has_text, in_bytes, "{text:?}");
        }
    }

    #[test]
    fn ids_and_sizes_are_known() {
        let encoder = qformer(16);
        assert_eq!(encoder.id_of("[DEC]"), Some(4094));
        assert_eq!(encoder.id_of("no such token"), None);
        assert_eq!(encoder.vocab_size(), 4096);
    }

    #[test]
    fn unusable_tokenizers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = TextEncoder::open(folder.path(), TextEncoding::new(8, 0)).unwrap_err();
        assert!(missing.to_string().contains("tokenizer.json") && missing.is_bad_input(), "{missing}");
        std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
        assert!(TextEncoder::open(folder.path(), TextEncoding::new(8, 0)).is_err());
        assert!(TextEncoder::open(&backbone("qformer-tokenizer"), TextEncoding::new(2, 0)).is_err());
    }
}
