use super::*;
use crate::corpus::ingest::{IngestSettings, Share, SourceKind, ingest};
use blip2_test_corpus::Corpus;

fn spec(source: &str, quick: bool) -> VerifySpec {
    VerifySpec {
        sources: vec![source.to_owned()],
        columns: ColumnNames::default(),
        max_pixels: 1 << 20,
        quick,
        threads: 2,
    }
}

async fn verify(source: &str, quick: bool) -> (VerifySummary, Vec<Finding>) {
    let mut findings = Vec::new();
    let summary =
        verify_corpus(&spec(source, quick), |finding| findings.push(finding.clone())).await.unwrap();
    (summary, findings)
}

fn kinds(findings: &[Finding]) -> Vec<FindingKind> {
    findings.iter().map(|finding| finding.kind).collect()
}

/// An ingested folder of two row groups in one file.
async fn ingested() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("a.parquet").to_str().unwrap().to_owned();
    Corpus::with_rows(12).with_alternatives().write(&source);
    let out = folder.path().join("out").to_str().unwrap().to_owned();
    let settings = IngestSettings {
        file_bytes: 10 << 10,
        row_groups: 2,
        ..IngestSettings::new(SourceKind::Img2dataset)
    };
    ingest(&[source], &Location::parse(&out).unwrap(), settings, Share::WHOLE, |_| ()).await.unwrap();
    (folder, out)
}

#[tokio::test]
async fn what_ingestion_wrote_is_in_order() {
    let (_folder, out) = ingested().await;
    let (summary, findings) = verify(&out, false).await;
    assert!(findings.is_empty(), "{findings:?}");
    assert_eq!((summary.rows, summary.findings), (12, 0));
    let (summary, findings) = verify(&format!("{out}/part-*.parquet"), true).await;
    assert!(findings.is_empty() && summary.rows == 0 && summary.row_groups > 0);
}

#[tokio::test]
async fn a_flipped_bit_is_found_by_hash_and_not_by_the_quick_look() {
    let (_folder, out) = ingested().await;
    let part = format!("{out}/part-000000-0000.parquet");
    let mut content = std::fs::read(&part).unwrap();
    let place = content.windows(2).rposition(|pair| pair == [0xff, 0xd9]).unwrap() - 3;
    content[place] ^= 4;
    std::fs::write(&part, &content).unwrap();
    assert!(verify(&out, true).await.1.is_empty());
    let findings = verify(&out, false).await.1;
    assert_eq!(kinds(&findings), [FindingKind::ChangedFile, FindingKind::DamagedRowGroup]);
    assert!(findings[1].detail.contains("BLAKE3") && findings[1].row_group.is_some());
}

#[tokio::test]
async fn missing_foreign_and_unfinished_files_are_named() {
    let (_folder, out) = ingested().await;
    std::fs::rename(format!("{out}/part-000000-0000.parquet"), format!("{out}/other.parquet")).unwrap();
    let findings = verify(&out, true).await.1;
    assert_eq!(kinds(&findings), [FindingKind::ForeignFile, FindingKind::MissingFile]);
    std::fs::remove_file(format!("{out}/done/000000.json")).unwrap();
    assert_eq!(kinds(&verify(&out, true).await.1)[0], FindingKind::Incomplete);
    std::fs::write(format!("{out}/ingest.json"), "{").unwrap();
    assert_eq!(kinds(&verify(&out, true).await.1)[0], FindingKind::ChangedFile);
}

#[tokio::test]
async fn every_bad_row_is_found_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet").to_str().unwrap().to_owned();
    Corpus::with_rows(10)
        .row_group(4)
        .truncated(1)
        .captionless(2)
        .failed(3)
        .wrong_hash(5)
        .caption(6, "a\0b")
        .caption(7, &"x".repeat(1 << 20))
        .write(&path);
    let (summary, findings) = verify(folder.path().to_str().unwrap(), false).await;
    assert_eq!((summary.files, summary.row_groups, summary.rows, summary.not_downloaded), (1, 3, 10, 1));
    let expected = [
        (0, 1, FindingKind::Undecodable),
        (0, 2, FindingKind::NoCaption),
        (1, 1, FindingKind::WrongHash),
        (1, 2, FindingKind::ControlCharacters),
        (1, 3, FindingKind::CaptionTooLong),
    ];
    let found: Vec<_> =
        findings.iter().map(|found| (found.row_group.unwrap(), found.row.unwrap(), found.kind)).collect();
    assert_eq!(found, expected);
    assert_eq!(findings[0].key.as_deref(), Some("key-1"));
}

#[tokio::test]
async fn files_that_are_no_corpus_are_findings_and_nothing_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("a.parquet"), "this is no Parquet file").unwrap();
    Corpus::with_rows(2).captions_named("words").write(&path("b.parquet"));
    let findings = verify(&path("*.parquet"), true).await.1;
    assert_eq!(kinds(&findings), [FindingKind::NotParquet, FindingKind::MissingColumn]);
    assert!(verify_corpus(&spec(&path("none.parquet"), true), |_| ()).await.unwrap_err().is_bad_input());
}

#[test]
fn findings_are_called_the_same_in_text_and_json() {
    for kind in [FindingKind::DamagedRowGroup, FindingKind::NotParquet, FindingKind::ControlCharacters] {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
    }
}
