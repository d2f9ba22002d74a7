//! Hints how to go on: the command line of this process, as it can be typed again.

use std::ffi::OsString;

/// The words that tell how to continue with this very command and `flag` besides; without a flag, with this
/// very command.
///
/// A command line that holds what should not be repeated (URLs with a user or a query) is named, not shown.
pub(crate) fn same_command(flag: Option<&str>) -> String {
    let typed: Option<Vec<String>> =
        std::env::args_os().map(|word| OsString::into_string(word).ok()).collect();
    hint(typed.unwrap_or_default(), flag)
}

fn hint(mut words: Vec<String>, flag: Option<&str>) -> String {
    if words.is_empty() || words.iter().any(|word| may_hold_a_secret(word)) {
        return match flag {
            Some(flag) => format!("the same command with {flag}"),
            None => "the same command".to_owned(),
        };
    }
    if let Some(flag) = flag.filter(|flag| !words.iter().any(|word| word == flag)) {
        words.push(flag.to_owned());
    }
    format!("`{}`", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
}

/// A command of this program as it can be typed.
pub(crate) fn of_this_program(words: Vec<String>) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "blip2".to_owned());
    hint([vec![program], words].concat(), None)
}

fn may_hold_a_secret(word: &str) -> bool {
    word.contains("://") && word.contains(['@', '?'])
}

fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,+@%".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint_of(words: &[&str], flag: Option<&str>) -> String {
        hint(words.iter().map(|word| (*word).to_owned()).collect(), flag)
    }

    #[test]
    fn the_command_is_shown_as_it_can_be_typed() {
        let words = ["blip2", "train", "--set", "data.train=[\"a b.parquet\"]", "--set", "run.id=it's"];
        assert_eq!(
            hint_of(&words, Some("--resume")),
            r#"`blip2 train --set 'data.train=["a b.parquet"]' --set 'run.id=it'\''s' --resume`"#
        );
        assert_eq!(hint_of(&["blip2", "train", "--resume"], Some("--resume")), "`blip2 train --resume`");
        assert_eq!(hint_of(&["blip2", "curate"], None), "`blip2 curate`");
    }

    #[test]
    fn every_command_that_is_said_to_continue_can_be_continued() {
        use clap::Parser as _;
        for words in [
            &["blip2", "train", "--config", "a.toml", "--workers", "2"][..],
            &["blip2", "quickstart", "--out", "x"],
            &["blip2", "coordinator", "--config", "a.toml", "--listen", "127.0.0.1:0"],
            &["blip2", "coordinator", "--standby"],
        ] {
            let hint = hint_of(words, Some("--resume"));
            let again = hint.trim_matches('`').split(' ');
            let parsed = crate::arguments::Arguments::try_parse_from(again);
            assert!(parsed.is_ok(), "{hint}: {:?}", parsed.err());
        }
        // What goes on by itself needs no flag.
        crate::arguments::Arguments::try_parse_from(["blip2", "curate"]).unwrap();
    }

    #[test]
    fn secrets_in_it_are_not_repeated() {
        let words = ["blip2", "train", "--set", "data.train=[\"https://me:secret@host/a.parquet\"]"];
        assert_eq!(hint_of(&words, Some("--resume")), "the same command with --resume");
        let words = ["blip2", "curate", "--set", "curation.input=[\"https://host/a?sig=secret\"]"];
        assert_eq!(hint_of(&words, None), "the same command");
    }
}
