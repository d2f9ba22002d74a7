//! Parquet as the field publishes it: what img2dataset, Hugging Face, LAION and DataComp write trains as it
//! is.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, ListBuilder, NullArray, RecordBatch, StringArray, StringBuilder, StructArray,
};
use arrow::datatypes::{DataType, Field};
use blip2_store::Location;
use image::{ImageFormat, Rgb, RgbImage};
use parquet::arrow::ArrowWriter;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::corpus::columns::{ColumnNames, HashOf};
use crate::corpus::ingest::{IngestSettings, Share, SourceKind, ingest};
use crate::corpus::manifest::Manifest;
use crate::corpus::samples::{EvaluationSet, read_all};
use crate::corpus::verify::{FindingKind, VerifySpec, VerifySummary, verify_corpus};
use crate::error::DatasetError;
use crate::plan::{Plan, PlanKey};

const LIMIT: u64 = 1 << 20;

fn image(shade: u8) -> Vec<u8> {
    let mut encoded = std::io::Cursor::new(Vec::new());
    RgbImage::from_pixel(8, 8, Rgb([shade, 90, 200])).write_to(&mut encoded, ImageFormat::Png).unwrap();
    encoded.into_inner()
}

fn text(values: impl IntoIterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

fn texts(rows: u8, prefix: &str) -> ArrayRef {
    text((0..rows).map(|row| Some(format!("{prefix} {row}"))))
}

fn images(rows: u8) -> ArrayRef {
    Arc::new(BinaryArray::from_iter_values((0..rows).map(image)))
}

/// A folder, and files in it.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, columns: Vec<(&str, ArrayRef)>, properties: WriterProperties) -> String {
        let fields = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
        let schema = Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()));
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        let batch = RecordBatch::try_new(schema, columns).unwrap();
        let path = self.path(name);
        let mut writer =
            ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), Some(properties))
                .unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        path
    }

    async fn ingest(&self, source: &str, columns: ColumnNames) -> crate::corpus::ingest::IngestSummary {
        let settings = IngestSettings { columns, ..IngestSettings::new(SourceKind::Img2dataset) };
        let out = Location::parse(&self.path("out")).unwrap();
        ingest(&[source.to_owned()], &out, settings, Share::WHOLE, |_| ()).await.unwrap()
    }
}

fn row_groups(rows: usize) -> WriterProperties {
    WriterProperties::builder().set_max_row_group_row_count(Some(rows)).build()
}

async fn read(path: &str) -> EvaluationSet {
    read_all(&[path.to_owned()], &ColumnNames::default(), LIMIT).await.unwrap()
}

async fn verified(path: &str) -> (VerifySummary, BTreeSet<FindingKind>) {
    let spec = VerifySpec {
        sources: vec![path.to_owned()],
        columns: ColumnNames::default(),
        max_pixels: LIMIT,
        quick: false,
        threads: 1,
    };
    let mut kinds = BTreeSet::new();
    let summary = verify_corpus(&spec, |finding| {
        kinds.insert(finding.kind);
    })
    .await
    .unwrap();
    (summary, kinds)
}

#[tokio::test]
async fn every_codec_is_read() {
    let scene = Scene::new();
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
    ];
    for codec in codecs {
        let properties = WriterProperties::builder().set_compression(codec).build();
        let path =
            scene.write("a.parquet", vec![("caption", texts(5, "a cat")), ("jpg", images(5))], properties);
        let set = read(&path).await;
        assert_eq!((set.samples.len(), set.samples[4].captions[0].as_str()), (5, "a cat 4"), "{codec}");
        assert_eq!(set.samples[3].image.get_pixel(0, 0).0, [3, 90, 200], "{codec}");
    }
}

/// A shard of img2dataset: every third download failed, and has neither an image nor sizes.
fn downloads(scene: &Scene, rows: u8, properties: WriterProperties) -> String {
    let failed = |row: u8| row % 3 == 1;
    let status = |row| if failed(row) { "failed_to_download" } else { "success" };
    let images: BinaryArray = (0..rows).map(|row| (!failed(row)).then(|| image(row))).collect();
    let columns = vec![
        ("caption", texts(rows, "number")),
        ("key", text((0..rows).map(|row| Some(format!("{row:03}"))))),
        ("status", text((0..rows).map(|row| Some(status(row).to_owned())))),
        ("sha256", text((0..rows).map(|row| (!failed(row)).then(|| format!("{:064x}", u64::from(row) + 7))))),
        ("jpg", Arc::new(images) as ArrayRef),
    ];
    scene.write("downloads.parquet", columns, properties)
}

#[tokio::test]
async fn failed_downloads_are_passed_over_and_counted() {
    for statistics in [EnabledStatistics::Page, EnabledStatistics::None] {
        let scene = Scene::new();
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(10))
            .set_statistics_enabled(statistics)
            .build();
        let path = downloads(&scene, 30, properties);
        let manifest = Manifest::open(std::slice::from_ref(&path), &ColumnNames::default()).await.unwrap();
        assert_eq!((manifest.rows(), manifest.failed_rows()), (20, 10));
        assert_eq!(
            (&manifest.files[0].row_groups[..], &manifest.files[0].failed[..]),
            (&[7, 6, 7][..], &[3, 4, 3][..])
        );
        assert_eq!(Manifest::from_parquet(manifest.to_parquet().unwrap()).unwrap(), manifest);
        let plan = Plan::new(&manifest, PlanKey { seed: 1, stage: 1 }, 4, 2).unwrap();
        assert_eq!(plan.rows(), 20);

        let set = read(&path).await;
        assert_eq!((set.samples.len(), set.quarantined.len(), set.not_downloaded), (20, 0, 10));
        let wanted: Vec<_> = (0..30).filter(|row| row % 3 != 1).map(|row| format!("{row:03}")).collect();
        assert_eq!(set.samples.iter().map(|sample| sample.key.clone()).collect::<Vec<_>>(), wanted);
        assert!(
            set.samples
                .iter()
                .all(|sample| { format!("{:03}", sample.image.get_pixel(0, 0).0[0]) == sample.key })
        );

        let (summary, findings) = verified(&path).await;
        assert_eq!((summary.rows, summary.not_downloaded, summary.findings), (30, 10, 0), "{findings:?}");
        let summary = scene.ingest(&path, ColumnNames::default()).await;
        assert_eq!((summary.rows, summary.rejected["not-downloaded"]), (20, 10));
    }
}

#[tokio::test]
async fn the_plan_of_a_corpus_without_failures_knows_nothing_of_them() {
    let scene = Scene::new();
    let status = text((0..6).map(|_| Some("success".to_owned())));
    let columns = || vec![("caption", texts(6, "x")), ("jpg", images(6))];
    let plain = scene.write("a.parquet", columns(), row_groups(4));
    let (file, stored) = {
        let manifest = Manifest::open(&[plain], &ColumnNames::default()).await.unwrap();
        (manifest.files[0].clone(), manifest.to_parquet().unwrap())
    };
    assert!(file.failed.is_empty() && !serde_json::to_string(&file).unwrap().contains("failed"));
    assert!(!stored.windows(6).any(|bytes| bytes == b"failed"));
    let with_status = scene.write("b.parquet", [columns(), vec![("status", status)]].concat(), row_groups(4));
    let manifest = Manifest::open(&[with_status], &ColumnNames::default()).await.unwrap();
    assert!(manifest.files[0].failed.is_empty());
}

#[tokio::test]
async fn a_corpus_of_failures_alone_has_no_rows() {
    let scene = Scene::new();
    let status = text((0..3).map(|_| Some("failed_to_download".to_owned())));
    let columns = vec![("caption", texts(3, "x")), ("status", status), ("jpg", images(3))];
    let path = scene.write("a.parquet", columns, row_groups(10));
    let error = Manifest::open(&[path], &ColumnNames::default()).await.unwrap_err();
    assert!(
        matches!(error, DatasetError::NoRows { failed: 3, .. }) && error.to_string().contains("status"),
        "{error}"
    );
}

#[tokio::test]
async fn a_hash_of_the_download_is_not_compared() {
    let scene = Scene::new();
    let path = downloads(&scene, 12, row_groups(100));
    assert!(read(&path).await.quarantined.is_empty(), "none of the hashes is that of the stored bytes");
    let stored = ColumnNames { sha256_of: HashOf::Stored, ..ColumnNames::default() };
    let set = read_all(std::slice::from_ref(&path), &stored, LIMIT).await.unwrap();
    assert_eq!((set.samples.len(), set.quarantined.len()), (0, 8));
    assert!(set.quarantined[0].reason.contains("sha256"));
}

#[tokio::test]
async fn a_hash_of_the_stored_bytes_is_compared() {
    use sha2::Digest;
    let scene = Scene::new();
    let hash = |row: u8| {
        let digest = sha2::Sha256::digest(image(row));
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    // One in ten is damaged, the very first among them.
    let hashes = text((0..40).map(|row| Some(if row % 10 == 0 { "0".repeat(64) } else { hash(row) })));
    let columns = vec![("caption", texts(40, "x")), ("sha256", hashes), ("jpg", images(40))];
    let path = scene.write("a.parquet", columns, row_groups(100));
    let rows = |set: &EvaluationSet| set.quarantined.iter().map(|record| record.row).collect::<Vec<_>>();
    assert_eq!(rows(&read(&path).await), [0, 10, 20, 30]);
    let download = ColumnNames { sha256_of: HashOf::Download, ..ColumnNames::default() };
    assert!(read_all(&[path], &download, LIMIT).await.unwrap().quarantined.is_empty());
}

#[tokio::test]
async fn files_of_hugging_face() {
    let scene = Scene::new();
    let structure = |bytes: ArrayRef, paths: ArrayRef| -> ArrayRef {
        Arc::new(StructArray::from(vec![
            (Arc::new(Field::new("bytes", DataType::Binary, true)), bytes),
            (Arc::new(Field::new("path", DataType::Utf8, true)), paths),
        ]))
    };
    let image = structure(images(3), texts(3, "path"));
    let path =
        scene.write("a.parquet", vec![("image", Arc::clone(&image)), ("text", texts(3, "a"))], row_groups(9));
    assert_eq!(read(&path).await.samples[2].captions, ["a 2"]);

    let mut lists = ListBuilder::new(StringBuilder::new());
    (0..3).for_each(|row| lists.append_value([Some(format!("one {row}")), Some(format!("two {row}"))]));
    let path = scene.write(
        "b.parquet",
        vec![("image", Arc::clone(&image)), ("caption", Arc::new(lists.finish()))],
        row_groups(9),
    );
    assert_eq!(read(&path).await.samples[1].captions, ["one 1", "two 1"]);

    // COCO's sentences.
    let sentences = StructArray::from(vec![
        (Arc::new(Field::new("raw", DataType::Utf8, true)), texts(3, "raw")),
        (Arc::new(Field::new("sentid", DataType::Utf8, true)), texts(3, "id")),
    ]);
    let path =
        scene.write("c.parquet", vec![("image", image), ("sentences", Arc::new(sentences))], row_groups(9));
    assert_eq!(read(&path).await.samples[0].captions, ["raw 0"]);
}

#[tokio::test]
async fn columns_of_nothing_are_absent() {
    let scene = Scene::new();
    let nulls = || Arc::new(NullArray::new(3)) as ArrayRef;
    for name in ["sha256", "status", "captions", "key", "url"] {
        let columns = vec![("caption", texts(3, "x")), (name, nulls()), ("jpg", images(3))];
        let path = scene.write("a.parquet", columns, row_groups(9));
        assert_eq!(read(&path).await.samples.len(), 3, "{name}");
        assert_eq!(verified(&path).await.0.findings, 0, "{name}");
    }
    let path = scene.write("b.parquet", vec![("caption", texts(3, "x")), ("jpg", nulls())], row_groups(9));
    let error = Manifest::open(&[path], &ColumnNames::default()).await.unwrap_err();
    assert!(matches!(error, DatasetError::MissingColumn { .. }), "{error}");
}

#[tokio::test]
async fn a_column_named_twice_is_refused() {
    let scene = Scene::new();
    let columns = vec![("caption", texts(3, "x")), ("caption", texts(3, "y")), ("jpg", images(3))];
    let path = scene.write("a.parquet", columns, row_groups(9));
    let error = Manifest::open(std::slice::from_ref(&path), &ColumnNames::default()).await.unwrap_err();
    assert!(error.to_string().contains("two columns named `caption`"), "{error}");
    assert_eq!(verified(&path).await.1, BTreeSet::from([FindingKind::RepeatedColumn]));
}
