//! Rules that look at a text alone: what no model has to read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Endings that make a word a file's name.
const FILE_ENDINGS: [&str; 14] =
    ["jpg", "jpeg", "png", "gif", "webp", "bmp", "tif", "tiff", "svg", "heic", "raw", "pdf", "mp4", "psd"];

/// Words that cameras and programs put before a number.
const FILE_STEMS: [&str; 8] = ["img", "dsc", "dscn", "dscf", "pict", "screenshot", "image", "untitled"];

/// Phrases of shops, galleries and players, in cleaned form.
const BOILERPLATE: [&str; 30] = [
    "add to cart",
    "all rights reserved",
    "buy now",
    "click for",
    "click here",
    "click to",
    "cookie policy",
    "download now",
    "free download",
    "free shipping",
    "image coming soon",
    "image for",
    "image may contain",
    "image not available",
    "in stock",
    "loading image",
    "no image",
    "out of stock",
    "photo credit",
    "photo gallery",
    "preview of",
    "read more",
    "royalty free",
    "see more",
    "share on",
    "sign up",
    "stock image",
    "stock photo",
    "stock vector",
    "view larger",
];

/// Limits of the rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RuleSettings {
    /// Apply the rules that look at a text alone.
    pub enabled: bool,
    /// Fewest words of a text.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub min_words: usize,
    /// Most words of a text.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_words: usize,
    /// Fewest letters of a text.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub min_letters: usize,
    /// Phrases, beside the usual ones, that make a text boilerplate; compared without case and punctuation.
    pub boilerplate: Vec<String>,
    /// Largest share that a single word may have of a text of four words or more.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub max_word_share: f64,
}

impl Default for RuleSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            min_words: 1,
            max_words: 50,
            min_letters: 2,
            boilerplate: Vec::new(),
            max_word_share: 0.5,
        }
    }
}

/// The rule that a text breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BrokenRule {
    /// Too few words or letters.
    TooShort,
    /// Too many words.
    TooLong,
    /// It holds a web address.
    Url,
    /// It is, or ends in, a file's name.
    FileName,
    /// It holds a phrase of shops, galleries or players.
    Boilerplate,
    /// One word, or one pair of words, again and again.
    Repetition,
}

impl BrokenRule {
    /// All of them, in the order in which they are looked at.
    pub const ALL: [Self; 6] =
        [Self::TooShort, Self::TooLong, Self::Url, Self::FileName, Self::Boilerplate, Self::Repetition];

    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooShort => "too-short",
            Self::TooLong => "too-long",
            Self::Url => "url",
            Self::FileName => "file-name",
            Self::Boilerplate => "boilerplate",
            Self::Repetition => "repetition",
        }
    }
}

impl RuleSettings {
    /// The first rule that a text breaks, if any. The text is as it was found: cleaning takes away the
    /// punctuation that tells addresses and file names.
    pub fn broken_by(&self, text: &str) -> Option<BrokenRule> {
        if !self.enabled {
            return None;
        }
        let lower = text.to_lowercase();
        let raw: Vec<&str> = lower.split_whitespace().collect();
        let words: Vec<String> = words_of(&lower);
        let letters = text.chars().filter(|character| character.is_alphabetic()).count();
        let broken = |rule| match rule {
            BrokenRule::TooShort => words.len() < self.min_words || letters < self.min_letters,
            BrokenRule::TooLong => words.len() > self.max_words,
            BrokenRule::Url => raw.iter().any(|word| is_address(word)),
            BrokenRule::FileName => is_file_name(&raw, &words),
            BrokenRule::Boilerplate => self.is_boilerplate(&words),
            BrokenRule::Repetition => self.repeats(&words),
        };
        BrokenRule::ALL.into_iter().find(|rule| broken(*rule))
    }

    fn is_boilerplate(&self, words: &[String]) -> bool {
        let text = format!(" {} ", words.join(" "));
        let holds = |phrase: &str| text.contains(&format!(" {phrase} "));
        BOILERPLATE.into_iter().any(holds)
            || self.boilerplate.iter().any(|phrase| holds(&words_of(&phrase.to_lowercase()).join(" ")))
    }

    fn repeats(&self, words: &[String]) -> bool {
        if words.len() < 4 {
            return false;
        }
        let most = |parts: &mut Vec<&[String]>| {
            parts.sort_unstable();
            parts.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap_or_default()
        };
        let single = most(&mut words.windows(1).collect());
        let pairs = most(&mut words.windows(2).collect());
        single as f64 > self.max_word_share * words.len() as f64
            // A pair takes two words, so that half as many are as much of the text.
            || (pairs >= 3 && 2.0 * pairs as f64 > self.max_word_share * words.len() as f64)
    }
}

/// Runs of letters, digits and apostrophes, and of what no alphabet has.
fn words_of(text: &str) -> Vec<String> {
    let between = |character: char| {
        character.is_whitespace() || (character.is_ascii_punctuation() && character != '\'')
    };
    text.split(between).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn is_address(word: &str) -> bool {
    let word = word.trim_matches(|character: char| "()[]<>\"',;".contains(character));
    word.contains("://") || word.starts_with("www.") || {
        // A name with a well-known ending, as in "example.com" or "example.com/page".
        let host = word.split('/').next().unwrap_or_default();
        host.rsplit_once('.').is_some_and(|(name, ending)| {
            ["com", "net", "org", "info", "io", "co"].contains(&ending)
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c))
                && !name.is_empty()
        })
    }
}

/// A word that ends as files do, or nothing but a camera's word and numbers.
fn is_file_name(raw: &[&str], words: &[String]) -> bool {
    let ends = |word: &&str| {
        let word = word.trim_end_matches(|character: char| character.is_ascii_punctuation());
        word.rsplit_once('.').is_some_and(|(stem, ending)| !stem.is_empty() && FILE_ENDINGS.contains(&ending))
    };
    let is_number = |word: &String| {
        word.chars().any(|c| c.is_ascii_digit())
            && word.chars().all(|c| c.is_ascii_hexdigit() || "xp".contains(c))
    };
    let is_stem = |word: &String| {
        let letters = word.trim_end_matches(|c: char| c.is_ascii_digit());
        FILE_STEMS.contains(&letters)
    };
    let numbered = words.iter().any(|word| word.chars().any(|c| c.is_ascii_digit()));
    raw.iter().any(ends) || (numbered && words.iter().all(|word| is_number(word) || is_stem(word)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Words with what rules look for among them, between spaces and punctuation.
    fn some_text() -> impl Strategy<Value = String> {
        let words =
            ["cat", "red", "img", "2034", "a", "stock", "photo", "of", "x.jpg", "www.a.org", "it's", "日本"];
        let word = prop::sample::select(words.to_vec());
        let between = prop::sample::select(vec![" ", "  ", ", ", " - ", "! "]);
        prop::collection::vec((word, between), 0..12)
            .prop_map(|parts| parts.into_iter().flat_map(|(word, between)| [word, between]).collect())
    }

    proptest! {
        /// Neither case nor space around a text changes what it breaks.
        #[test]
        fn case_and_space_do_not_matter(text in some_text()) {
            let rules = RuleSettings::default();
            let broken = rules.broken_by(&text);
            prop_assert_eq!(rules.broken_by(&text.to_uppercase()), broken);
            prop_assert_eq!(rules.broken_by(&format!(" \t{text}\n ")), broken);
        }

        /// Wider limits never drop what narrower ones keep.
        #[test]
        fn wider_limits_keep_more(
            text in some_text(), words in 0..6_usize, most in 1..12_usize, letters in 0..8_usize, share in 0.1..1.0,
            wider in 0..4_usize,
        ) {
            let narrow = RuleSettings {
                min_words: words, max_words: words + most, min_letters: letters, max_word_share: share,
                ..RuleSettings::default()
            };
            let wide = RuleSettings {
                min_words: words.saturating_sub(wider), max_words: words + most + wider,
                min_letters: letters.saturating_sub(wider), max_word_share: (share + 0.1 * wider as f64).min(1.0),
                ..narrow.clone()
            };
            prop_assert!(narrow.broken_by(&text).is_some() || wide.broken_by(&text).is_none(), "{:?}", text);
        }

        /// An address or a phrase drops a text wherever it stands, if nothing else does.
        #[test]
        fn what_is_looked_for_is_found_anywhere(before in some_text(), after in some_text()) {
            let rules = RuleSettings { boilerplate: vec!["Acme Outlet".into()], ..RuleSettings::default() };
            let (address, phrase) =
                (format!("{before} https://a.b/c {after}"), format!("{before} ACME, outlet {after}"));
            prop_assert!(rules.broken_by(&address).is_some() && rules.broken_by(&phrase).is_some());
        }
    }

    #[test]
    fn each_rule_has_its_texts_and_leaves_captions_alone() {
        let rules = RuleSettings { boilerplate: vec!["Acme Outlet!".into()], ..RuleSettings::default() };
        let broken = |text: &str| rules.broken_by(text);
        for (rule, texts) in [
            (BrokenRule::TooShort, &["", "a", "7", "!!! 12"][..]),
            (BrokenRule::TooLong, &[&"word and another ".repeat(20)]),
            (
                BrokenRule::Url,
                &["see https://a.b/c", "www.example.org", "(example.com/cats)", "cheap-hats.co"],
            ),
            (
                BrokenRule::FileName,
                &["IMG_2034.JPG", "photo of final2.png.", "img 2034", "DSC00017", "20200101 123456 img"],
            ),
            (
                BrokenRule::Boilerplate,
                &["Click to enlarge", "stock vector 5962 royalty free", "hats - ACME outlet"],
            ),
            (BrokenRule::Repetition, &["cat cat cat cat", "red hat red hat red hat", "a a a a dog"]),
        ] {
            for text in texts {
                assert_eq!(broken(text), Some(rule), "{text:?}");
            }
        }
        for text in [
            "shrimp",
            "flag: u.s. virgin islands",
            "a man and a woman and a dog on the beach",
            "keycap: 10",
            "the new york times building in new york",
            "שלום עולם",
            "猫が二匹",
            "image of a cat",
            "st. john's church, 1890",
        ] {
            assert_eq!(broken(text), None, "{text:?}");
        }
        let off = RuleSettings { enabled: false, ..rules };
        assert_eq!(off.broken_by("www.example.org"), None);
    }
}
