//! Answers as the evaluators of visual question answering compare them.

use super::contractions::with_apostrophe;

/// Marks that vanish or become a blank. An apostrophe, a colon and what is outside ASCII are none of them.
const MARKS: [char; 21] = [
    ';', '/', '[', ']', '"', '{', '}', '(', ')', '=', '+', '\\', '_', '-', '>', '<', '@', '`', ',', '?', '!',
];

/// Full stops that are deleted; those beyond stay, by a slip of the evaluators that all numbers contain.
const MOST_FULL_STOPS: usize = 32;

/// Line feeds and tabs as blanks, and no blank at either end.
pub fn clean(text: &str) -> String {
    text.replace(['\n', '\t'], " ").trim_matches(is_blank).to_owned()
}

/// Without marks: one that stands at a blank somewhere in `text` is deleted, every other becomes a blank, and
/// all are deleted where a comma stands between two digits. Full stops go unless a digit follows.
pub fn punctuation(text: &str) -> String {
    without_marks(text, has_comma_between_digits(text))
}

/// The same as EvalAI's server has it: there several commas between two digits count as one does.
pub fn evalai_punctuation(text: &str) -> String {
    let mut one_comma = text.to_owned();
    while one_comma.contains(",,") {
        one_comma = one_comma.replace(",,", ",");
    }
    without_marks(text, has_comma_between_digits(&one_comma))
}

fn without_marks(text: &str, has_long_number: bool) -> String {
    let mut without = text.to_owned();
    for mark in MARKS {
        // What is asked is asked of the text as it came.
        let is_at_blank = text.contains(&format!("{mark} ")) || text.contains(&format!(" {mark}"));
        without = without.replace(mark, if is_at_blank || has_long_number { "" } else { " " });
    }
    without_full_stops(&without)
}

/// Lower-cased words with number words as digits, without articles, with their apostrophes.
pub fn words(text: &str) -> String {
    let lower = text.to_lowercase();
    let kept = lower.split(is_blank).filter(|word| !word.is_empty()).map(digits);
    let kept = kept.filter(|word| !["a", "an", "the"].contains(word));
    kept.map(with_apostrophe).collect::<Vec<_>>().join(" ")
}

/// Both steps after [`clean`].
pub fn without_marks_and_articles(text: &str) -> String {
    words(&punctuation(text))
}

/// Both steps after [`clean`], as EvalAI's server has them.
pub fn evalai_without_marks_and_articles(text: &str) -> String {
    words(&evalai_punctuation(text))
}

/// The digits of a number word.
fn digits(word: &str) -> &str {
    match word {
        "none" | "zero" => "0",
        "one" => "1",
        "two" => "2",
        "three" => "3",
        "four" => "4",
        "five" => "5",
        "six" => "6",
        "seven" => "7",
        "eight" => "8",
        "nine" => "9",
        "ten" => "10",
        word => word,
    }
}

/// White space as Python has it: four separators of ASCII are of it too.
fn is_blank(letter: char) -> bool {
    letter.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&letter)
}

fn has_comma_between_digits(text: &str) -> bool {
    let commas = text.match_indices(',');
    commas.into_iter().any(|(at, _)| {
        text[..at].chars().next_back().is_some_and(is_digit) && text[at + 1..].starts_with(is_digit)
    })
}

fn without_full_stops(text: &str) -> String {
    let mut left = MOST_FULL_STOPS;
    let mut kept = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let goes = letter == '.' && left > 0 && !letters.peek().copied().is_some_and(is_digit);
        match goes {
            true => left -= 1,
            false => kept.push(letter),
        }
    }
    kept
}

/// A decimal digit of any script.
fn is_digit(letter: char) -> bool {
    let code = u32::from(letter);
    let after = ZEROS.partition_point(|zero| *zero <= code);
    after.checked_sub(1).is_some_and(|last| code - ZEROS[last] < 10)
}

/// The zeros of all scripts (Unicode's category Nd), each with its nine behind it.
const ZEROS: [u32; 66] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50,
    0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40,
    0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0, 0x10d30, 0x11066,
    0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0, 0x11950,
    0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6,
    0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_fixture_has() {
        assert_eq!(clean(" \u{1f}a\tb\n"), "a b");
        assert_eq!(words("A\u{1c}cat"), "cat", "blanks of Python alone");
        assert_eq!(punctuation("٣,٤ a/b"), "٣٤ ab", "digits of any script");
        assert_eq!(punctuation("1,½ a/b"), "1 ½ a b", "a fraction is no digit");
        assert_eq!(punctuation("1,,5 a/b"), "1  5 a b", "one comma alone");
        assert_eq!(evalai_punctuation("1,,5 a/b"), "15 ab");
        assert_eq!(punctuation("5.٣ x.½"), "5.٣ x½");
        assert!(is_digit('0') && is_digit('9') && !is_digit('/') && !is_digit(':'));
    }
}
