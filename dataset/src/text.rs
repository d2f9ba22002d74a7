//! Captions and questions: cleaning, tokens, and back to text.

mod caption;
mod encoder;
mod question;

pub use caption::{MAX_CAPTION_WORDS, clean_caption, is_visible};
pub use encoder::{Cut, TextEncoder, TextEncoding, Tokens};
pub use question::{Answers, Question, clean_question};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_assets::backbone;

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
    fn the_first_words_are_left_out_where_the_last_must_stay() {
        let whole = qformer(64).encode_plain("red green blue yellow apple").unwrap();
        let open = |length, cut| {
            let encoding = TextEncoding { cut, ..TextEncoding::new(length, 0) };
            let encoder = TextEncoder::open(&backbone("qformer-tokenizer"), encoding).unwrap();
            encoder.encode_plain("red green blue yellow apple").unwrap()
        };
        let (length, left_out) = (whole.len() - 2, 2);
        let last = open(length, Cut::First);
        assert_eq!(last, [&whole[..1], &whole[1 + left_out..]].concat(), "[CLS] and [SEP] stay");
        assert_eq!(open(length, Cut::Last)[..length - 1], whole[..length - 1]);
        assert_eq!(open(whole.len(), Cut::First), whole);
        // A start token of one's own stays too.
        let encoding =
            |length| TextEncoding { start: Some(5), cut: Cut::First, ..TextEncoding::new(length, 1) };
        let encoder = |length| TextEncoder::open(&backbone("opt-tiny"), encoding(length)).unwrap();
        let whole = encoder(64).encode_plain("red green blue yellow apple").unwrap();
        let cut = encoder(4).encode_plain("red green blue yellow apple").unwrap();
        assert_eq!((cut[0], &cut[1..]), (5, &whole[whole.len() - 3..]));
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
        assert_eq!(encoder.id_of("[DEC]"), Some(1790));
        assert_eq!(encoder.id_of("no such token"), None);
        assert_eq!(encoder.vocab_size(), 1792);
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
