use std::collections::BTreeMap;

use blip2_store::Location;
use blip2_test_corpus::Corpus;
use blip2_test_corpus::hostile::is_clear;
use blip2_test_corpus::hostile::{bombs, unreadable};

use crate::corpus::columns::ColumnNames;
use crate::corpus::ingest::{IngestSettings, Share, SourceKind, ingest};
use crate::corpus::samples::read_all;
use crate::quarantine::QuarantineList;

const LIMIT: u64 = 1 << 20;

/// Reasons by key; more than one of a row is a failure.
fn reasons<'a>(records: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (key, reason) in records {
        let before = found.insert(key.to_owned(), reason.to_owned());
        assert_eq!(before, None, "{key} is listed twice");
    }
    found
}

/// Every bad row stands in the list once, with a reason; the good ones beside it are used.
#[tokio::test]
async fn each_bad_row_is_listed_once_with_its_reason() {
    let images: Vec<_> = bombs().into_iter().chain(unreadable()).collect();
    let captions = ["", "\0\0\0", " \t\n ", "\u{7f}\u{1}"];
    let bad = images.len() + captions.len();
    let mut corpus = Corpus::with_rows(bad + 7).row_group(5);
    for (row, (_, encoded)) in images.iter().enumerate() {
        corpus = corpus.image(row, encoded);
    }
    for (row, caption) in (images.len()..).zip(captions) {
        corpus = corpus.caption(row, caption);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let source = [path("a.parquet")];
    corpus.write(&source[0]);

    let set = read_all(&source, &ColumnNames::default(), LIMIT).await.unwrap();
    let read = set.quarantined.iter().map(|record| (record.key.as_str(), record.reason.as_str()));
    let settings = IngestSettings { max_pixels: LIMIT, ..IngestSettings::new(SourceKind::Img2dataset) };
    let out = Location::parse(&path("out")).unwrap();
    let summary = ingest(&source, &out, settings, Share::WHOLE, |_| ()).await.unwrap();
    let listed = std::fs::read(path("out/rejected/000000.parquet")).unwrap();
    let listed = QuarantineList::from_parquet(listed.into()).unwrap();
    let rejected = listed.iter().map(|record| (record.key.as_str(), record.reason.as_str()));
    assert_eq!((set.samples.len(), summary.rows), (7, 7));
    for found in [reasons(read), reasons(rejected)] {
        assert_eq!(found.len(), bad, "{found:?}");
        for (row, (name, _)) in images.iter().enumerate() {
            let reason = &found[&format!("key-{row}")];
            assert!(is_clear(reason), "{name}: {reason}");
        }
        for row in images.len()..bad {
            assert!(is_clear(&found[&format!("key-{row}")]), "caption of row {row}");
        }
    }
}
