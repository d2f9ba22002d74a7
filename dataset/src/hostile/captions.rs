use blip2_test_corpus::Corpus;
use blip2_test_corpus::hostile::is_clear;

use crate::corpus::columns::ColumnNames;
use crate::corpus::samples::read_all;
use crate::test_assets::backbone;
use crate::text::{MAX_CAPTION_WORDS, TextEncoder, TextEncoding, clean_caption};

#[tokio::test]
async fn odd_captions_become_tokens_of_a_bounded_text() {
    let cases = [
        ("NUL", "a\0red\0cat".to_owned()),
        ("right to left", "\u{202e}\u{5d7}\u{5ea}\u{5d5}\u{5dc}\u{202c} cat".to_owned()),
        ("combining marks", format!("cat {}", "e\u{301}\u{302}\u{303}".repeat(2000))),
        ("a megabyte of words", "red cat ".repeat(1 << 17)),
        ("a megabyte of one word", "x".repeat(1 << 20)),
        ("a megabyte of spaces", " ".repeat(1 << 20) + "cat"),
        ("emoji", "\u{1f9d1}\u{200d}\u{1f680}\u{fe0f}".repeat(3000)),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet").to_str().unwrap().to_owned();
    let mut corpus = Corpus::with_rows(cases.len());
    for (row, (_, caption)) in cases.iter().enumerate() {
        corpus = corpus.caption(row, caption);
    }
    corpus.write(&path);
    let set = read_all(&[path], &ColumnNames::default(), 1 << 20).await.unwrap();
    let encoders = ["qformer-tokenizer", "opt-tiny"]
        .map(|name| TextEncoder::open(&backbone(name), TextEncoding::new(16, 0)).unwrap());
    for sample in &set.samples {
        let caption = &sample.captions[0];
        assert!(caption.len() <= 16 << 10, "only the beginning of a caption is read");
        let cleaned = clean_caption(caption, MAX_CAPTION_WORDS);
        let words = cleaned.split(' ').count();
        // What a tokenizer meets: its time goes with the bytes, and with the length of a word.
        assert!(cleaned.len() <= 16 << 10 && words <= MAX_CAPTION_WORDS, "{}: {words} words", sample.key);
        for encoder in &encoders {
            assert_eq!(encoder.encode(&cleaned).unwrap().ids.len(), 16, "{}", sample.key);
        }
    }
    // Sixteen kilobytes of nothing but spaces are no text.
    assert_eq!(set.quarantined.len(), 1);
    assert!(is_clear(&set.quarantined[0].reason), "{}", set.quarantined[0].reason);
}
