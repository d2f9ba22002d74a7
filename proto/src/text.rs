//! Text of others, made fit to be logged, stored and shown.

/// Longest text of another process that is kept, in bytes: the reason of a failure, with its causes.
pub const MAX_TEXT: usize = 4096;

/// Room for what says that a text was cut.
const CUT: usize = 40;

/// `text` in at most `most` bytes, where whatever a terminal or a log would act on is escaped; line breaks
/// and tabs stay. What has passed once passes unchanged.
pub fn visible(text: &str, most: usize) -> String {
    let mut shown = String::new();
    // Where it is cut if it turns out too long: in the shown text and in the original.
    let (mut kept, mut rest) = (0, 0);
    for (at, letter) in text.char_indices() {
        if shown.len() + CUT <= most {
            (kept, rest) = (shown.len(), at);
        }
        match letter {
            '\n' | '\t' => shown.push(letter),
            letter if is_invisible(letter) => shown.extend(letter.escape_unicode()),
            letter => shown.push(letter),
        }
        if shown.len() > most {
            shown.truncate(kept);
            return format!("{shown}… ({} bytes more)", text.len() - rest);
        }
    }
    shown
}

/// Control characters, and those that end a line or turn the direction of what follows.
pub(crate) fn is_invisible(letter: char) -> bool {
    let turns = ('\u{202a}'..='\u{202e}').contains(&letter) || ('\u{2066}'..='\u{2069}').contains(&letter);
    let separates = matches!(letter, '\u{2028}' | '\u{2029}');
    letter.is_control() || turns || separates || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{061c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
        assert_eq!(visible("plain, ÄÖÜ, 秘密\n\ttwo", 100), "plain, ÄÖÜ, 秘密\n\ttwo");
        assert_eq!(visible("\x1b[2J\r\0", 100), "\\u{1b}[2J\\u{d}\\u{0}");
        assert_eq!(visible("a\u{202e}b\u{2028}", 100), "a\\u{202e}b\\u{2028}");
    }

    #[test]
    fn long_texts_are_cut_and_say_so() {
        assert_eq!(visible("abcdef", 6), "abcdef");
        let cut = visible(&"é".repeat(100), 60);
        assert_eq!(cut, format!("{}… (180 bytes more)", "é".repeat(10)));
        assert_eq!(visible(&cut, 60), cut, "it passes again");
        let long = "\x1b".repeat(30 << 20);
        let shown = visible(&long, MAX_TEXT);
        assert!(shown.len() <= MAX_TEXT && shown.ends_with("bytes more)"), "{}", shown.len());
        assert_eq!(visible(&shown, MAX_TEXT), shown);
        assert_eq!(visible("", 0), "");
    }
}
