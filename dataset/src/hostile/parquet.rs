use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, DictionaryArray, Int32Array, LargeBinaryArray, LargeStringArray, ListBuilder,
    RecordBatch, StringArray, StringBuilder, StringViewArray, StructArray,
};
use arrow::datatypes::{DataType, Field, Int32Type};
use blip2_test_corpus::hostile::is_clear;
use blip2_test_corpus::one_image;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::{
    ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::file::statistics::Statistics;

use crate::corpus::columns::ColumnNames;
use crate::corpus::samples::{EvaluationSet, read_all};
use crate::corpus::verify::{VerifySpec, verify_corpus};
use crate::error::{DatasetError, Result};

const ROWS: usize = 3;

fn written(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn images() -> ArrayRef {
    Arc::new(BinaryArray::from_vec(vec![one_image().as_slice(); ROWS]))
}

fn captions() -> ArrayRef {
    Arc::new(StringArray::from(vec!["a", "b", "c"]))
}

async fn read(content: &[u8]) -> Result<EvaluationSet> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    std::fs::write(&path, content).unwrap();
    read_all(&[path.to_str().unwrap().to_owned()], &ColumnNames::default(), 1 << 20).await
}

/// Findings of a corpus of this one file.
async fn findings(content: &[u8]) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    std::fs::write(&path, content).unwrap();
    let spec = VerifySpec {
        sources: vec![path.to_str().unwrap().to_owned()],
        columns: ColumnNames::default(),
        max_pixels: 1 << 20,
        quick: false,
        threads: 1,
    };
    verify_corpus(&spec, |_| ()).await.unwrap().findings
}

#[tokio::test]
async fn other_column_types_are_read_or_refused_by_name() {
    let image = one_image();
    let bytes: ArrayRef = Arc::new(BinaryArray::from_vec(vec![image.as_slice(); ROWS]));
    let field = Arc::new(Field::new("bytes", DataType::Binary, true));
    let path = Arc::new(Field::new("path", DataType::Utf8, true));
    let structure: ArrayRef = Arc::new(StructArray::from(vec![(field, bytes), (path, captions())]));
    let dictionary: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
    let lists = || {
        let mut lists = ListBuilder::new(StringBuilder::new());
        (0..ROWS).for_each(|_| lists.append_value([Some("a"), Some("b")]));
        Arc::new(lists.finish()) as ArrayRef
    };
    let nested: ArrayRef = {
        let mut outer = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
        for _ in 0..ROWS {
            outer.values().append_value([Some("a")]);
            outer.append(true);
        }
        Arc::new(outer.finish())
    };
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1; ROWS]));
    let unmarked: ArrayRef = Arc::new(BinaryArray::from_vec(vec![b"a"; ROWS]));
    let large: ArrayRef = Arc::new(LargeBinaryArray::from_vec(vec![image.as_slice(); ROWS]));
    for (name, caption, image) in [
        ("large text", Arc::new(LargeStringArray::from(vec!["a", "b", "c"])) as ArrayRef, images()),
        ("views", Arc::new(StringViewArray::from(vec!["a", "b", "c"])) as ArrayRef, images()),
        ("a dictionary", Arc::new(dictionary) as ArrayRef, images()),
        ("large binary", captions(), large),
        ("a structure of bytes and path", captions(), structure),
        ("a list of text", lists(), images()),
    ] {
        let set = read(&written(vec![("caption", caption), ("image", image)])).await.unwrap();
        assert_eq!((set.samples.len(), set.quarantined.len()), (ROWS, 0), "{name}");
        assert_eq!(set.samples[0].captions[0], "a", "{name}");
    }
    for (name, caption, image, column) in [
        ("numbers for text", numbers.clone(), images(), "caption"),
        ("bytes without a text mark", unmarked, images(), "caption"),
        ("lists of lists", nested, images(), "caption"),
        ("numbers for pictures", captions(), numbers, "image"),
        ("lists for pictures", captions(), lists(), "image"),
    ] {
        let error = read(&written(vec![("caption", caption), ("image", image)])).await.unwrap_err();
        let reason = error.to_string();
        assert!(matches!(error, DatasetError::ColumnType { .. }), "{name}: {reason}");
        assert!(reason.contains(&format!("`{column}`")) && is_clear(&reason), "{name}: {reason}");
    }
}

/// The file with another footer.
fn with_footer(content: &[u8], change: impl FnOnce(ParquetMetaData) -> ParquetMetaData) -> Vec<u8> {
    let footer = ParquetMetaDataReader::new().parse_and_finish(&Bytes::copy_from_slice(content)).unwrap();
    let length =
        u32::from_le_bytes(content[content.len() - 8..content.len() - 4].try_into().unwrap()) as usize;
    let mut changed = content[..content.len() - 8 - length].to_vec();
    let mut written = Vec::new();
    ParquetMetaDataWriter::new(&mut written, &change(footer)).finish().unwrap();
    changed.extend(written);
    changed
}

fn with_groups(content: &[u8], change: impl Fn(RowGroupMetaData) -> RowGroupMetaData) -> Vec<u8> {
    with_footer(content, |footer| {
        let groups = footer.row_groups().iter().cloned().map(change).collect();
        footer.into_builder().set_row_groups(groups).build()
    })
}

fn with_columns(content: &[u8], change: impl Fn(ColumnChunkMetaData) -> ColumnChunkMetaData) -> Vec<u8> {
    with_groups(content, |group| {
        let columns = group.columns().iter().cloned().map(&change).collect();
        group.into_builder().set_column_metadata(columns).build().unwrap()
    })
}

#[tokio::test]
async fn footers_that_lie_are_found_out() {
    let content = written(vec![("caption", captions()), ("jpg", images())]);
    let rows =
        |rows: i64| with_groups(&content, |group| group.into_builder().set_num_rows(rows).build().unwrap());
    let mut encrypted = content.clone();
    let end = encrypted.len();
    encrypted[end - 4..].copy_from_slice(b"PARE");
    let mut long = content.clone();
    long[end - 8..end - 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let offset = |offset: i64| {
        with_columns(&content, |column| {
            column
                .into_builder()
                .set_dictionary_page_offset(None)
                .set_data_page_offset(offset)
                .build()
                .unwrap()
        })
    };
    let size = |bytes: i64| {
        with_columns(&content, |column| {
            column.into_builder().set_total_compressed_size(bytes).build().unwrap()
        })
    };
    let huge = with_columns(&content, |column| {
        column.into_builder().set_total_uncompressed_size(3 << 30).build().unwrap()
    });
    for (name, content, word) in [
        ("no bytes", Vec::new(), ""),
        ("text", b"this is no Parquet file, but long enough to be one".to_vec(), "Parquet"),
        ("cut", content[..content.len() - 20].to_vec(), "Parquet"),
        ("encrypted", encrypted, "ncrypt"),
        ("a footer of 4 GiB", long, ""),
        ("more rows than there are", rows(ROWS as i64 + 5), ""),
        ("fewer rows than there are", rows(1), ""),
        ("four billion rows", rows(i64::from(u32::MAX)), "rows"),
        ("rows below zero", rows(-5), "rows"),
        ("columns beyond the end", offset(1 << 40), "outside of the file"),
        ("columns before the beginning", offset(-9), "outside of the file"),
        ("a length below zero", size(-7), "outside of the file"),
        ("a length of a petabyte", size(1 << 50), "outside of the file"),
        ("a row group that is too large", huge, "corpus ingest"),
    ] {
        let Err(error) = read(&content).await else {
            assert_eq!(name, "fewer rows than there are", "it was read");
            continue;
        };
        let reason = error.to_string();
        assert!(error.is_bad_input(), "{name}: the store is not to blame: {reason}");
        assert!(
            reason.contains("a.parquet") && reason.contains(word) && is_clear(&reason),
            "{name}: {reason}"
        );
        assert_eq!(findings(&content).await, 1, "{name}: verification goes on and names it once");
    }
}

#[tokio::test]
async fn wrong_statistics_change_nothing() {
    let content = written(vec![("caption", captions()), ("jpg", images())]);
    let wrong = with_columns(&content, |column| {
        let statistics =
            Statistics::byte_array(Some("zz".into()), Some("aa".into()), Some(77), Some(99), false);
        column.into_builder().set_statistics(statistics).build().unwrap()
    });
    let (right, wrong) = (read(&content).await.unwrap(), read(&wrong).await.unwrap());
    assert_eq!(right.samples.len(), ROWS);
    let all = |set: EvaluationSet| set.samples.into_iter().map(|sample| sample.captions).collect::<Vec<_>>();
    assert_eq!(all(right), all(wrong));
}
