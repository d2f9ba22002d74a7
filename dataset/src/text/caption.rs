//! Captions: cleaning, and which are none.

use std::ops::RangeInclusive;

/// Words a training caption keeps.
pub const MAX_CAPTION_WORDS: usize = 50;

/// Characters that a caption has a space for.
pub(super) const REPLACED: &[char] = &['.', '!', '"', '(', ')', '*', '#', ':', ';', '~'];

/// LAVIS's caption cleaning: lower case, punctuation to spaces, single spaces, at most `max_words` words.
/// Commas, apostrophes, question marks and hyphens stay. Control characters, NUL among them, are spaces too.
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

/// Characters of which nothing is seen, besides white space and control characters: Unicode's default
/// ignorable ones (zero-width and joining ones, marks of direction, soft hyphens, variation selectors, tags,
/// fillers), annotation marks and the empty Braille pattern.
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

/// Whether a text has a character that is seen. One of spaces, control characters and zero-width ones alone
/// is no caption.
pub fn is_visible(text: &str) -> bool {
    let is_seen = |character: char| {
        let unseen = character.is_whitespace() || character.is_control();
        !unseen && !INVISIBLE.iter().any(|range| range.contains(&character))
    };
    text.chars().any(is_seen)
}
