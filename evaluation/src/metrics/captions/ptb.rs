//! Words of a caption as the caption toolkit has them: those of the Penn Treebank, in lower case.
//!
//! The toolkit runs Stanford's `PTBTokenizer` 3.4.1 with `-preserveLines -lowerCase` and drops marks. What is
//! here was written from what that program prints, without its source. It prints the same for the caption
//! sets of the tests and, but for the few texts named in `docs/metrics.md`, for all made-up ones that both
//! were given. A caption's words are a function of the caption alone: the program looks past a line's end,
//! so that a last abbreviation depends on the next caption; here each caption is followed by a sentence.
//!
//! A text is read from left to right. At each place the longest match of all `rules` is taken, of equally
//! long ones that of the first rule; what no rule matches (white space, symbols outside the basic plane) is
//! skipped.

mod abbreviations;
mod characters;
mod rules;

use std::sync::LazyLock;

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::{Anchored, Input, MatchKind};

use rules::{RULES, Take, Writing};

/// Marks that are no words: the toolkit's own list, in which brackets are written as the program does not
/// write them in lower case. So brackets stay.
pub const REMOVED: [&str; 17] = [
    "''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";",
];

/// What follows a caption: a line's end and the beginning of a sentence.
const AFTER: &str = "\nA ";

/// Bytes that a token is looked for in: some rules read on to the end of a text before they know that they do
/// not match, which would make a long text's time grow with its square. A longer word is read in pieces.
const WINDOW: usize = 1024;

/// All rules as one automaton, whose states are made when they are first met.
static AUTOMATON: LazyLock<DFA> = LazyLock::new(|| {
    DFA::builder()
        .configure(DFA::config().match_kind(MatchKind::All).cache_capacity(64 << 20))
        .build_many(&RULES.iter().map(|rule| rules::expanded(rule.pattern)).collect::<Vec<_>>())
        .expect("the rules are constants, and tests build them")
});

/// Splits captions into words. One of them for many captions: it keeps what it has learned of the automaton.
#[derive(Debug)]
pub struct Tokenizer {
    states: Cache,
    text: String,
}

impl Default for Tokenizer {
    fn default() -> Self {
        Self { states: AUTOMATON.create_cache(), text: String::new() }
    }
}

impl Tokenizer {
    /// The words of a caption, joined by blanks, without [`REMOVED`].
    pub fn words(&mut self, caption: &str) -> String {
        let mut words = String::with_capacity(caption.len());
        for token in self.tokens(caption).iter().filter(|token| !REMOVED.contains(&token.as_str())) {
            if !words.is_empty() {
                words.push(' ');
            }
            words.push_str(token);
        }
        words
    }

    /// All tokens of a caption, marks too, in lower case. None is empty, none holds a blank.
    pub fn tokens(&mut self, caption: &str) -> Vec<String> {
        self.text.clear();
        self.text.extend(caption.chars().map(as_in_a_line));
        let end = self.text.len();
        self.text.push_str(AFTER);
        let (mut tokens, mut at) = (Vec::new(), 0);
        while at < end {
            let window = self.text.floor_char_boundary(at + WINDOW);
            let input = Input::new(&self.text).range(at..window).anchored(Anchored::Yes);
            let found = AUTOMATON
                .try_search_fwd(&mut self.states, &input)
                .expect("no byte quits the automaton, and its cache may be cleared without end");
            let Some(found) = found else {
                at += self.text[at..].chars().next().map_or(1, char::len_utf8);
                continue;
            };
            let rule = &RULES[found.pattern().as_usize()];
            let (token, read) = taken(rule.take, &self.text[at..found.offset()]);
            if !token.is_empty() {
                tokens.push(written(token, rule.writing));
            }
            at += read;
        }
        tokens
    }
}

/// The caption with blanks for line ends, after which the toolkit's program would print a new line, or
/// another mark.
pub(crate) fn one_line(caption: &str) -> String {
    caption.chars().map(as_in_a_line).collect()
}

fn as_in_a_line(c: char) -> char {
    if matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}') { ' ' } else { c }
}

/// The token at the beginning of what matched, and how many bytes of it are done. At least one is.
fn taken(take: Take, whole: &str) -> (&str, usize) {
    let at = |nth: usize| whole.char_indices().nth(nth).map_or(whole.len(), |(at, _)| at);
    let end = match take {
        Take::All | Take::Nothing => whole.len(),
        Take::First(characters) => at(characters),
        Take::AllBut(characters) => at(whole.chars().count().saturating_sub(characters)),
        Take::Before(marks) => whole.rfind(marks).unwrap_or(whole.len()),
        Take::ToStop => whole.find('.').map_or(whole.len(), |at| at + 1),
        Take::ToBlankAndStopAgain => whole.find(char::is_whitespace).unwrap_or(whole.len()),
    };
    match take {
        Take::Nothing => ("", whole.len()),
        Take::ToBlankAndStopAgain => (&whole[..end], end - 1),
        _ => (&whole[..end], end),
    }
}

/// A token as it is printed.
fn written(token: &str, writing: Writing) -> String {
    let plain = || {
        let plain = token.replace('\u{ad}', "");
        if plain.is_empty() { "-".to_owned() } else { plain.to_lowercase() }
    };
    match writing {
        Writing::As(text) => text.to_owned(),
        Writing::Plain => plain(),
        Writing::Clitic => plain()
            .replace("&apos;", "'")
            .replace(['\u{92}', '\u{2019}'], "'")
            .replace(['\u{91}', '\u{2018}', '\u{201b}'], "`"),
        Writing::Ampersand => plain().replace("&amp;", "&"),
        Writing::WithoutBlanks => plain().replace([' ', '\t'], "\u{a0}"),
        Writing::WithoutBrackets => {
            plain().replace(' ', "\u{a0}").replace('(', "-lrb-").replace(')', "-rrb-")
        }
        Writing::Quotes => token.chars().map(quote).collect(),
    }
}

/// A quotation mark in the characters of the treebank.
fn quote(mark: char) -> &'static str {
    match mark {
        '`' | '\u{91}' | '\u{2018}' | '\u{201b}' | '\u{2039}' => "`",
        '\u{92}' | '\u{2019}' | '\u{203a}' => "'",
        '\u{93}' | '\u{201c}' | '\u{ab}' => "``",
        _ => "''",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(caption: &str) -> String {
        Tokenizer::default().tokens(caption).join(" ")
    }

    #[test]
    fn the_last_word_of_a_caption_ends_a_sentence() {
        assert_eq!(tokens("salt, pepper etc."), "salt , pepper etc. .");
        assert_eq!(tokens("vitamin c."), "vitamin c .");
        assert_eq!(tokens("in the u.s."), "in the u.s. .");
        assert_eq!(tokens("in the u.s. army"), "in the u.s. army");
    }

    #[test]
    fn line_ends_within_a_caption_are_blanks() {
        let caption = "a\nb\rc\u{b}d\u{85}e\u{2028}f";
        assert_eq!(tokens(caption), "a b c d e f");
    }

    #[test]
    fn abbreviations_are_more_than_a_word_with_a_stop() {
        assert_eq!(tokens("Dr. Smith"), "dr. smith");
        assert_eq!(tokens("a cat. Smith"), "a cat . smith");
        assert_eq!(tokens("Acme Inc. made it"), "acme inc. made it");
        assert_eq!(tokens("Acme Inc. Made"), "acme inc. . made");
        assert_eq!(tokens("no. 5, no. A"), "no. 5 , no . a");
        assert_eq!(tokens("Miss. has, she will miss. it"), "miss. has , she will miss . it");
    }

    #[test]
    fn faces_numbers_addresses_and_hyphens_stay_whole() {
        assert_eq!(tokens(":-) (^_^) :x"), ":--rrb- -lrb-^_^-rrb- : x");
        assert_eq!(tokens("(555) 555-1234"), "-lrb-555-rrb-\u{a0}555-1234");
        assert_eq!(tokens("1 1/2 cups"), "1\u{a0}1/2 cups");
        assert_eq!(tokens("at www.a.com/bc."), "at www.a.com/bc .");
        assert_eq!(tokens("a U.S.-based jack-o'-lantern"), "a u.s.-based jack-o ' - lantern");
    }

    #[test]
    fn quotes_open_before_words_and_close_elsewhere() {
        assert_eq!(tokens("\"a\" 'ab' ''c''"), "`` a '' ` ab ' '' c ''");
        assert_eq!(tokens("«a» “b” ‘c’"), "`` a '' `` b '' ` c '");
    }

    #[test]
    fn a_word_without_an_end_is_read_in_pieces_and_no_letter_is_lost() {
        let long = "aé".repeat(20_000);
        let tokens = Tokenizer::default().tokens(&format!("a dog {long} and a cat"));
        let whole = tokens.len();
        assert_eq!(
            (&tokens[..2], &tokens[whole - 3..]),
            (&["a", "dog"].map(String::from)[..], &["and", "a", "cat"].map(String::from)[..])
        );
        let pieces = &tokens[2..whole - 3];
        assert!(pieces.iter().all(|piece| piece.len() <= WINDOW), "{}", pieces.len());
        assert_eq!(pieces.concat(), long);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn any_text_has_tokens_without_blanks(caption in any::<String>()) {
            for token in Tokenizer::default().tokens(&caption) {
                prop_assert!(!token.is_empty() && !token.contains([' ', '\n', '\t', '\r']), "{token:?}");
            }
        }

        #[test]
        fn marks_and_letters_in_any_order_have_tokens(
            caption in "[a-cA-C05.,:;!?'\"`\\-_/&@#$%()*+=<> \u{ad}\u{2019}\u{1f600}\u{301}]{0,40}"
        ) {
            let tokens = Tokenizer::default().tokens(&caption);
            prop_assert!(tokens.iter().all(|token| !token.is_empty() && !token.contains(' ')), "{tokens:?}");
        }

        // True of the reference too where a caption is words, numbers and the usual marks.
        #[test]
        fn words_of_words_are_the_same_words(caption in "([a-z]{1,8}|[0-9]{1,4}|it's|isn't|[,;?!])( [a-z]{2,8}){0,6}") {
            let mut tokenizer = Tokenizer::default();
            let once = tokenizer.words(&caption);
            prop_assert_eq!(tokenizer.words(&once), once.clone());
        }

        #[test]
        fn a_tokenizer_remembers_no_caption(first in any::<String>(), second in any::<String>()) {
            let mut used = Tokenizer::default();
            used.tokens(&first);
            prop_assert_eq!(used.tokens(&second), Tokenizer::default().tokens(&second));
        }
    }
}
