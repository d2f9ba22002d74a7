//! Checkpoints that are whole, damaged, unfinished and superfluous.

use super::*;
use crate::layout::checkpoint_name;
use crate::schedule::tests::schedule;

async fn checkpoint(catalogue: &Catalogue, step: u64, epoch: u64) -> CheckpointRecord {
    let mut record = CheckpointRecord::new(&schedule(&[(1000, 1)]), step, epoch);
    for (place, content) in [format!("first {step}"), "second".to_owned()].into_iter().enumerate() {
        let part = ShardRecord {
            name: format!("part-{place:05}.safetensors"),
            length: content.len() as u64,
            blake3: blake3::hash(content.as_bytes()).to_hex().to_string(),
        };
        catalogue
            .folder(&record.name)
            .join(&part.name)
            .put(Bytes::from(content))
            .await
            .expect("a local folder");
        record.parts.push(part);
    }
    catalogue.write_commit(&record, &QuarantineList::default()).await.expect("all parts are there")
}

fn temporary() -> (tempfile::TempDir, Catalogue) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = Location::parse(folder.path().to_str().expect("utf-8")).expect("a local path");
    (folder, Catalogue::new(&root))
}

#[tokio::test]
async fn the_newest_valid_checkpoint_is_found_and_damaged_ones_are_reported() {
    let (_folder, catalogue) = temporary();
    assert_eq!(catalogue.latest_valid().await.expect("empty"), (None, vec![]));
    let first = checkpoint(&catalogue, 5, 1).await;
    let second = checkpoint(&catalogue, 12, 1).await;
    let third = checkpoint(&catalogue, 12, 2).await;
    catalogue
        .folder("00000020-000002")
        .join("part-00000.safetensors")
        .put(Bytes::new())
        .await
        .expect("written");
    assert_eq!(catalogue.latest_valid().await.expect("three"), (Some(third.clone()), vec![]));

    catalogue.folder(&third.name).join(COMMIT).put(Bytes::from_static(b"{")).await.expect("written");
    catalogue
        .folder(&second.name)
        .join("part-00001.safetensors")
        .put(Bytes::from_static(b"x"))
        .await
        .expect("written");
    let (newest, skipped) = catalogue.latest_valid().await.expect("one is left");
    assert_eq!(newest, Some(first.clone()));
    let names: Vec<&str> = skipped.iter().map(|damaged| damaged.name.as_str()).collect();
    assert_eq!(names, [second.name.as_str(), third.name.as_str()]);
    assert_eq!(catalogue.list().await.expect("listed").unfinished, ["00000020-000002"]);

    catalogue.folder(&first.name).join("part-00000.safetensors").delete().await.expect("deleted");
    let error = catalogue.latest_valid().await.expect_err("never afresh");
    assert!(error.to_string().contains("no checkpoint of this run is valid"), "{error}");
}

#[tokio::test]
async fn verify_reads_every_byte() {
    let (_folder, catalogue) = temporary();
    let record = checkpoint(&catalogue, 5, 1).await;
    assert_eq!(catalogue.verify(&record.name).await.expect("intact"), record);
    let part = catalogue.folder(&record.name).join("part-00001.safetensors");
    part.put(Bytes::from_static(b"sEcond")).await.expect("written");
    let error = catalogue.verify(&record.name).await.expect_err("a changed byte");
    assert!(error.to_string().contains("part-00001.safetensors has BLAKE3"), "{error}");
    assert!(
        catalogue
            .verify("00000006-000001")
            .await
            .expect_err("none")
            .to_string()
            .contains("no such checkpoint")
    );
}

#[tokio::test]
async fn a_commit_needs_its_parts_and_is_written_once() {
    let (_folder, catalogue) = temporary();
    let record = checkpoint(&catalogue, 5, 1).await;
    let rows = QuarantineList::default();
    catalogue.write_commit(&record, &rows).await.expect("the same again");
    let other = CheckpointRecord { stage: 2, ..record.clone() };
    assert!(catalogue.write_commit(&other, &rows).await.is_err());
    let mut missing = CheckpointRecord { name: checkpoint_name(6, 1), step: 6, ..record };
    missing.parts[0].length += 1;
    assert!(catalogue.write_commit(&missing, &rows).await.is_err());
}

#[tokio::test]
async fn retention_keeps_the_newest_and_the_stage_ends() {
    let (_folder, catalogue) = temporary();
    for step in [2, 4, 6, 8, 10] {
        checkpoint(&catalogue, step, 1).await;
    }
    for unfinished in [checkpoint_name(3, 1), checkpoint_name(7, 1), checkpoint_name(12, 1)] {
        catalogue
            .folder(&unfinished)
            .join("part-00000.safetensors")
            .put(Bytes::new())
            .await
            .expect("written");
    }
    let in_progress = BTreeSet::from([checkpoint_name(7, 1)]);
    assert!(catalogue.retire("00000011-000001", 1, |_| false, &in_progress).await.is_err());
    let deleted =
        catalogue.retire("00000010-000001", 2, |step| step == 4, &in_progress).await.expect("valid");
    assert_eq!(deleted, ["00000006-000001", "00000002-000001", "00000003-000001"]);
    let listing = catalogue.list().await.expect("listed");
    let steps: Vec<u64> = listing.valid.iter().map(|record| record.step).collect();
    assert_eq!(steps, [4, 8, 10]);
    assert_eq!(listing.unfinished, ["00000007-000001", "00000012-000001"]);
    assert!(catalogue.retire("00000010-000001", 0, |_| false, &in_progress).await.expect("valid").is_empty());
}

async fn spoil(catalogue: &Catalogue, name: &str, object: &str) {
    let location = catalogue.folder(name).join(object);
    let mut content = location.read().await.expect("read").expect("there").to_vec();
    content[0] ^= 1;
    location.put(Bytes::from(content)).await.expect("written");
}

#[tokio::test]
async fn a_changed_byte_anywhere_passes_a_checkpoint_over_for_the_one_before() {
    let (_folder, catalogue) = temporary();
    let first = checkpoint(&catalogue, 5, 1).await;
    let second = checkpoint(&catalogue, 7, 1).await;
    let third = checkpoint(&catalogue, 9, 2).await;
    assert_eq!(catalogue.latest_verified().await.expect("three"), (Some(third.clone()), vec![]));
    spoil(&catalogue, &third.name, "part-00000.safetensors").await;
    spoil(&catalogue, &second.name, QUARANTINE).await;
    // Of the right length they all are.
    assert_eq!(catalogue.latest_valid().await.expect("three").0, Some(third.clone()));
    let (newest, damaged) = catalogue.latest_verified().await.expect("one is left");
    assert_eq!(newest, Some(first.clone()));
    let reasons: Vec<&str> = damaged.iter().map(|damaged| damaged.reason.as_str()).collect();
    assert!(reasons[0].contains("quarantine.parquet has BLAKE3"), "{reasons:?}");
    assert!(reasons[1].contains("part-00000.safetensors has BLAKE3"), "{reasons:?}");
    spoil(&catalogue, &first.name, COMMIT).await;
    let error = catalogue.latest_verified().await.expect_err("never afresh").to_string();
    assert!(error.contains("no checkpoint of this run is valid"), "{error}");
}

#[tokio::test]
async fn nothing_is_deleted_for_a_newer_one_that_is_damaged() {
    let (_folder, catalogue) = temporary();
    let old = checkpoint(&catalogue, 2, 1).await;
    let damaged = checkpoint(&catalogue, 3, 1).await;
    catalogue.folder(&damaged.name).join(COMMIT).put(Bytes::from_static(b"{")).await.expect("written");
    let newest = checkpoint(&catalogue, 4, 1).await;
    spoil(&catalogue, &newest.name, "part-00001.safetensors").await;
    let none = BTreeSet::new();
    assert!(catalogue.retire(&newest.name, 1, |_| false, &none).await.is_err());
    assert_eq!(catalogue.verify(&old.name).await.expect("still there"), old);
    spoil(&catalogue, &newest.name, "part-00001.safetensors").await;
    let deleted = catalogue.retire(&newest.name, 1, |_| false, &none).await.expect("it is whole");
    assert_eq!(deleted, [old.name]);
    let listing = catalogue.list().await.expect("listed");
    assert_eq!((listing.valid.len(), listing.damaged[0].name.as_str()), (1, damaged.name.as_str()));
}

#[tokio::test]
async fn what_another_coordinator_is_writing_is_left_alone() {
    let (_folder, catalogue) = temporary();
    let newest = checkpoint(&catalogue, 10, 3).await;
    let part = |name: String| catalogue.folder(&name).join("part-00000.safetensors");
    part(checkpoint_name(8, 4)).put(Bytes::new()).await.expect("written");
    part(checkpoint_name(8, 2)).put(Bytes::new()).await.expect("written");
    let deleted = catalogue.retire(&newest.name, 1, |_| false, &BTreeSet::new()).await.expect("valid");
    assert_eq!(deleted, [checkpoint_name(8, 2)]);
}

#[tokio::test]
async fn a_record_keeps_its_coverage_and_its_rows() {
    use blip2_dataset::coverage::Coverage;
    use blip2_dataset::quarantine::QuarantineRecord;
    let (_folder, catalogue) = temporary();
    let mut record = checkpoint(&catalogue, 5, 1).await;
    record.coverage.add(2, Coverage { samples: 7, digest: u128::MAX - 3 });
    record.name = checkpoint_name(6, 1);
    record.step = 6;
    for part in ["part-00000.safetensors", "part-00001.safetensors"] {
        let from = catalogue.folder(&checkpoint_name(5, 1)).join(part).read().await.expect("read");
        catalogue.folder(&record.name).join(part).put(from.expect("there")).await.expect("written");
    }
    let row = QuarantineRecord {
        key: "k".into(),
        file: "a.parquet".into(),
        row_group: 1,
        row: 2,
        reason: "no text".into(),
        sample: 3,
        stage: 2,
    };
    let rows: QuarantineList = [row].into_iter().collect();
    let written = catalogue.write_commit(&record, &rows).await.expect("all is there");
    let read = catalogue.read_commit(&record.name).await.expect("readable");
    assert_eq!(read, written);
    assert_eq!(read.coverage, record.coverage);
    assert_eq!(catalogue.read_quarantine(&read).await.expect("readable"), rows);
    spoil(&catalogue, &record.name, QUARANTINE).await;
    assert!(catalogue.read_quarantine(&read).await.is_err());
    let mut afresh = read.clone();
    afresh.format = 1;
    let content = Bytes::from(serde_json::to_vec(&afresh).expect("plain"));
    catalogue.folder(&record.name).join(COMMIT).put(content).await.expect("written");
    let error = catalogue.read_commit(&record.name).await.expect_err("an old format").to_string();
    assert!(error.contains("format 1; this program reads format 2"), "{error}");
}
