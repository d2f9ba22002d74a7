//! Bytes that change on the way.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::samples::read_all;
use blip2_dataset::error::DatasetError;
use blip2_tests::corpus::{Row, good_rows};
use blip2_tests::faulty_proxy::Fault;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;

use crate::suite::{location, scene, seen};

/// Rows in row groups of twenty, uncompressed, with what ingestion records of them.
fn recorded(rows: &[Row]) -> Vec<u8> {
    let batch = |rows: &[Row]| {
        let captions: Vec<&str> = rows.iter().map(|row| row.caption.as_str()).collect();
        let images: Vec<&[u8]> = rows.iter().map(|row| row.image.as_slice()).collect();
        RecordBatch::try_from_iter([
            ("caption", Arc::new(StringArray::from(captions)) as ArrayRef),
            ("jpg", Arc::new(BinaryArray::from(images)) as ArrayRef),
        ])
        .expect("columns of one length")
    };
    let mut writer = ArrowWriter::try_new(Vec::new(), batch(rows).schema(), None).expect("a writer");
    let mut records = Vec::new();
    for group in rows.chunks(20) {
        writer.sync().expect("memory takes it");
        let start = writer.inner().len();
        writer.write(&batch(group)).expect("rows are written");
        writer.flush().expect("a row group ends");
        writer.sync().expect("memory takes it");
        let content = &writer.inner()[start..];
        records.push(serde_json::json!({
            "offset": start,
            "bytes": content.len(),
            "blake3": blake3::hash(content).to_hex().as_str(),
        }));
    }
    let text = serde_json::Value::from(records).to_string();
    writer.append_key_value_metadata(KeyValue::new("blip2.row_groups".to_owned(), text));
    writer.into_inner().expect("the footer is written")
}

#[tokio::test]
#[ignore = "started by `a_real_server_and_its_faults`"]
async fn a_changed_byte_is_read_again() {
    let (proxy, folder) = scene("corrupted");
    let content = recorded(&good_rows(100));
    let object = location(&format!("{folder}/a.parquet"));
    object.put(content.clone().into()).await.unwrap();
    let sources = [object.to_string()];
    let columns = ColumnNames::default();
    let wanted = read_all(&sources, &columns, 1 << 20).await.unwrap();
    assert_eq!((wanted.samples.len(), wanted.quarantined.len()), (100, 0));
    // The footer is read twice, by the manifest and by the reader; a row group is one request.
    proxy.inject(&[Fault::Corrupted], 3);
    let found = read_all(&sources, &columns, 1 << 20).await;
    let done = proxy.faults();
    proxy.inject(&[], 1);
    match found {
        Ok(found) => assert!(done > 0 && seen(&found) == seen(&wanted), "a changed byte was used"),
        // A footer that changed on the way.
        Err(error) => assert!(error.is_bad_input(), "{error}"),
    }

    // A byte that is wrong in the store stays wrong.
    for place in [40, content.len() / 3, content.len() / 2] {
        let mut damaged = content.clone();
        damaged[place] ^= 4;
        object.put(damaged.into()).await.unwrap();
        let error = read_all(&sources, &columns, 1 << 20).await.unwrap_err();
        let named = matches!(&error, DatasetError::DamagedRowGroup { file, .. } if *file == sources[0]);
        assert!(named && error.to_string().contains("BLAKE3"), "{error}");
    }
}

/// Where only the pictures have hashes, none that changed is used.
#[tokio::test]
#[ignore = "started by `a_real_server_and_its_faults`"]
async fn a_changed_picture_is_quarantined() {
    let (proxy, folder) = scene("pictures");
    let name = "test-00000.parquet";
    let path = blip2_tests::process::repository().join("assets/corpus").join(name);
    let object = location(&format!("{folder}/{name}"));
    object.put(std::fs::read(path).unwrap().into()).await.unwrap();
    let (sources, columns) = ([object.to_string()], ColumnNames::default());
    let wanted = seen(&read_all(&sources, &columns, 1 << 20).await.unwrap());
    proxy.inject(&[Fault::Corrupted], 4);
    let found = read_all(&sources, &columns, 1 << 20).await;
    assert!(proxy.faults() > 0);
    match found {
        Ok(found) => {
            assert_eq!(found.samples.len() + found.quarantined.len(), wanted.len());
            let pictures: Vec<_> = wanted.iter().map(|(_, _, picture)| picture).collect();
            assert!(seen(&found).iter().all(|(_, _, picture)| pictures.contains(&picture)));
        }
        Err(error) => assert!(error.is_bad_input(), "{error}"),
    }
}
