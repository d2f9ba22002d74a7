//! Brace expansion, as shells and WebDataset write lists of shards: `{a,b}` and `{00000..01243}`.

use crate::error::{Result, StoreError};

/// Names that one source may stand for.
const MOST: usize = 1 << 20;

/// Whether some braces of `text` stand for several names; those of other texts are characters like any other.
pub(crate) fn has_braces(text: &str) -> bool {
    first_group(text).is_some()
}

/// Whether braces that stand for several names begin within the first `length` bytes of `text`.
pub(crate) fn begin_within(text: &str, length: usize) -> bool {
    first_group(text).is_some_and(|group| group.start < length)
}

/// The names that `text` stands for, in order; itself alone where it has no braces that stand for several.
///
/// ```text
/// a{b,c{1..2}}.tar    →  ab.tar, ac1.tar, ac2.tar
/// {08..10}.tar        →  08.tar, 09.tar, 10.tar
/// ```
///
/// # Errors
/// [`StoreError::Location`] if these are more than a million.
pub(crate) fn expand(text: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    expand_into(text, "", &mut names).ok_or_else(|| StoreError::Location {
        location: text.to_owned(),
        reason: format!("its braces stand for more than {MOST} names"),
    })?;
    Ok(names)
}

fn expand_into(text: &str, before: &str, names: &mut Vec<String>) -> Option<()> {
    let Some(group) = first_group(text) else {
        names.push(format!("{before}{text}"));
        return (names.len() <= MOST).then_some(());
    };
    let before = format!("{before}{}", &text[..group.start]);
    for item in group.items? {
        // What stands in an item may have braces of its own.
        for item in expand_item(&item)? {
            expand_into(&text[group.end..], &format!("{before}{item}"), names)?;
        }
    }
    Some(())
}

fn expand_item(item: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    expand_into(item, "", &mut names)?;
    Some(names)
}

/// Braces that stand for several names.
struct Group {
    start: usize,
    /// Behind the closing brace.
    end: usize,
    /// `None`: too many.
    items: Option<Vec<String>>,
}

fn first_group(text: &str) -> Option<Group> {
    let starts = text.match_indices('{').map(|(start, _)| start);
    starts.filter_map(|start| group_at(text, start)).next()
}

fn group_at(text: &str, start: usize) -> Option<Group> {
    let (mut depth, mut item_at, mut items) = (0u32, start + 1, Vec::new());
    for (at, character) in text[start..].char_indices().map(|(at, character)| (start + at, character)) {
        match character {
            '{' => depth += 1,
            '}' if depth == 1 => {
                let end = at + 1;
                let last = text[item_at..at].to_owned();
                if !items.is_empty() {
                    items.push(last);
                    return Some(Group { start, end, items: Some(items) });
                }
                return range(&last).map(|items| Group { start, end, items });
            }
            '}' => depth -= 1,
            ',' if depth == 1 => {
                items.push(text[item_at..at].to_owned());
                item_at = at + 1;
            }
            _ => {}
        }
    }
    None
}

/// `1..9`, `007..100`, `0..100..10`, `a..f`; `None` for other texts, `Some(None)` for too many.
fn range(text: &str) -> Option<Option<Vec<String>>> {
    let parts: Vec<&str> = text.split("..").collect();
    let (first, last, step) = match parts[..] {
        [first, last] => (first, last, 1),
        [first, last, step] => (first, last, step.parse::<i64>().ok()?.unsigned_abs().max(1)),
        _ => return None,
    };
    let letter = |text: &str| match text.as_bytes() {
        [letter] if letter.is_ascii_alphabetic() => Some(i64::from(*letter)),
        _ => None,
    };
    let number = |text: &str| text.parse::<i64>().ok();
    let (from, to, letters) = match (number(first).zip(number(last)), letter(first).zip(letter(last))) {
        (Some((from, to)), _) => (from, to, false),
        (None, Some((from, to))) => (from, to, true),
        (None, None) => return None,
    };
    let count = from.abs_diff(to) / step;
    if count >= MOST as u64 {
        return Some(None);
    }
    let padded =
        |text: &str| text.trim_start_matches('-').starts_with('0') && text.trim_start_matches('-').len() > 1;
    let width = if padded(first) || padded(last) { first.len().max(last.len()) } else { 0 };
    let name = |index: u64| {
        // Between the two ends.
        let offset = (index * step) as i64;
        let value = if from <= to { from + offset } else { from - offset };
        match letters {
            // Between two letters of ASCII.
            true => char::from(value as u8).to_string(),
            false => format!("{value:0width$}"),
        }
    };
    Some(Some((0..=count).map(name).collect()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use blip2_test_corpus::properties::cases;

    #[test]
    fn lists_and_ranges_are_written_out() {
        let all = |text: &str| expand(text).unwrap();
        assert_eq!(all("a.tar"), ["a.tar"]);
        assert_eq!(
            all("{a,b}/{1..3}.tar"),
            ["a/1.tar", "a/2.tar", "a/3.tar", "b/1.tar", "b/2.tar", "b/3.tar"]
        );
        assert_eq!(all("s{00008..00010}"), ["s00008", "s00009", "s00010"]);
        assert_eq!(all("{08..10}{x,y}"), ["08x", "08y", "09x", "09y", "10x", "10y"]);
        assert_eq!(all("a{b,c{1..2}}d"), ["abd", "ac1d", "ac2d"]);
        assert_eq!(all("{3..1}"), ["3", "2", "1"]);
        assert_eq!(all("{0..20..10}"), ["0", "10", "20"]);
        assert_eq!(all("{a..c}"), ["a", "b", "c"]);
        assert_eq!(all("x{,.gz}"), ["x", "x.gz"]);
        assert_eq!(all("{000000..001243}.tar").len(), 1244);
        assert_eq!(all("ü{é,b}"), ["üé", "üb"]);
    }

    #[test]
    fn other_braces_are_characters() {
        for text in ["a{b}", "{}", "{", "}", "a{b", "{1..}", "{1..b}", "{{b}}"] {
            assert_eq!(expand(text).unwrap(), [text], "{text}");
            assert!(!has_braces(text), "{text}");
        }
        assert!(expand("{0..99999999}").is_err() && expand("{0..1023}{0..1023}{0..1023}").is_err());
        assert!(expand("{-9223372036854775808..9223372036854775807}").is_err());
    }

    /// A text with braces, as a tree.
    #[derive(Debug, Clone)]
    enum Piece {
        Text(String),
        List(Vec<Vec<Piece>>),
        Range { first: u32, last: u32, width: usize },
    }

    fn pieces() -> impl Strategy<Value = Vec<Piece>> {
        let range = (0u32..120, 0u32..12, any::<bool>(), 1usize..5).prop_map(|(low, span, down, width)| {
            let (first, last) = if down { (low + span, low) } else { (low, low + span) };
            Piece::Range { first, last, width }
        });
        let leaf = prop_oneof!["[a-z./_é-]{0,4}".prop_map(Piece::Text), range];
        let piece = leaf.prop_recursive(2, 12, 3, |inner| {
            let item = prop::collection::vec(inner, 0..3);
            prop::collection::vec(item, 2..4).prop_map(Piece::List)
        });
        prop::collection::vec(piece, 1..4)
    }

    fn written(pieces: &[Piece]) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::List(items) => {
                let items: Vec<_> = items.iter().map(|item| written(item)).collect();
                format!("{{{}}}", items.join(","))
            }
            Piece::Range { first, last, width } => format!("{{{first:0width$}..{last:0width$}}}"),
        };
        pieces.iter().map(piece).collect()
    }

    /// The names in order: those of the first piece, each with all of the rest.
    fn names(pieces: &[Piece]) -> Vec<String> {
        let Some((first, rest)) = pieces.split_first() else { return vec![String::new()] };
        let heads = match first {
            Piece::Text(text) => vec![text.clone()],
            Piece::List(items) => items.iter().flat_map(|item| names(item)).collect(),
            Piece::Range { first, last, width } => {
                // As in a shell: where one end is padded, all are as long as the longer end.
                let ends = [first, last].map(|end| format!("{end:0width$}"));
                let padded = ends.iter().any(|end| end.starts_with('0') && end.len() > 1);
                let width = if padded { ends.iter().map(String::len).max().unwrap_or_default() } else { 0 };
                let name = |number: u32| format!("{number:0width$}");
                match first <= last {
                    true => (*first..=*last).map(name).collect(),
                    false => (*last..=*first).rev().map(name).collect(),
                }
            }
        };
        let rest = names(rest);
        heads.iter().flat_map(|head| rest.iter().map(move |rest| format!("{head}{rest}"))).collect()
    }

    fn count(pieces: &[Piece]) -> usize {
        let of_piece = |piece: &Piece| match piece {
            Piece::Text(_) => 1,
            Piece::List(items) => items.iter().map(|item| count(item)).sum(),
            Piece::Range { first, last, .. } => first.abs_diff(*last) as usize + 1,
        };
        pieces.iter().map(of_piece).product()
    }

    proptest! {
        #![proptest_config(cases(300))]

        #[test]
        fn braces_are_written_out_in_order(pieces in pieces()) {
            prop_assume!(count(&pieces) <= 20_000);
            prop_assert_eq!(expand(&written(&pieces)).unwrap(), names(&pieces));
        }

        /// Whatever is typed stands for one name at least or for too many; without several names it is
        /// itself.
        #[test]
        fn any_text_stands_for_names(text in "[a-c0-3{},.]{0,14}") {
            if let Ok(names) = expand(&text) {
                prop_assert!(!names.is_empty());
                prop_assert_eq!(has_braces(&text), names != [text.clone()]);
            }
        }
    }
}
