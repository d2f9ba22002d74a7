use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::*;
use blip2_test_corpus::Corpus;

fn captions(set: &EvaluationSet) -> Vec<Vec<&str>> {
    set.samples.iter().map(|sample| sample.captions.iter().map(String::as_str).collect()).collect()
}

fn rejected(summary: &IngestSummary) -> Vec<(&str, u64)> {
    summary.rejected.iter().map(|(reason, count)| (reason.as_str(), *count)).collect()
}

/// Settings for a kind that names its images, which lie in `pictures`.
fn named(scene: &Scene, kind: SourceKind) -> IngestSettings {
    IngestSettings { images: Some(scene.path("pictures")), ..IngestSettings::new(kind) }
}

#[tokio::test]
async fn img2dataset_files() {
    let scene = Scene::new();
    let source = scene.path("a.parquet");
    Corpus::with_rows(9).row_group(4).truncated(1).captionless(2).failed(3).wrong_hash(5).write(&source);
    let summary = scene.ingest(&[source], IngestSettings::new(SourceKind::Img2dataset)).await.unwrap();
    assert_eq!((summary.rows_read, summary.rows, summary.units), (9, 5, 1));
    let reasons = [("no-caption", 1), ("not-downloaded", 1), ("undecodable", 1), ("wrong-hash", 1)];
    assert_eq!(rejected(&summary), reasons);
    let set = scene.read().await;
    assert_eq!(captions(&set)[0], ["red red"]);
    assert_eq!(set.samples[4].key, "key-8");
    let list = std::fs::read(scene.path("out/rejected/000000.parquet")).unwrap();
    let list = QuarantineList::from_parquet(list.into()).unwrap();
    let rows: Vec<_> = list.iter().map(|record| (record.row, record.key.as_str())).collect();
    assert_eq!(rows, [(1, "key-1"), (2, "key-2"), (3, "key-3"), (5, "key-5")]);
    assert!(list.iter().next().unwrap().reason.starts_with("undecodable: the picture cannot be used"));
}

#[tokio::test]
async fn webdataset_archives() {
    let scene = Scene::new();
    let image = |shade| image(shade, ImageFormat::Jpeg);
    let json = |text: &str| text.as_bytes().to_vec();
    let whole = archive(&[
        ("a/001.jpg", image(1)),
        ("a/001.txt", json("one")),
        ("a/002.json", json(r#"["first","second","third"]"#)),
        ("a/002.jpg", image(2)),
        ("a/003.txt", json("no picture")),
        ("a/004.jpg", image(4)),
        ("a/004.json", json(r#"{"caption":"four","url":"http://h/4.jpg","status":"success"}"#)),
        ("a/005.jpg", image(5)),
        ("a/005.json", json("{broken")),
        ("a/006.jpg", vec![0; 300]),
        ("a/006.txt", json("six")),
        ("a/007.jpg", vec![1; 5000]),
        ("a/007.txt", json("seven")),
    ]);
    let mut settings = IngestSettings::new(SourceKind::Webdataset);
    settings.max_image_bytes = 4000;
    let cut = scene.write("b.tar", &good_archive(3)[..4700]);
    let summary = scene.ingest(&[scene.write("a.tar", whole), cut], settings).await.unwrap();
    let set = scene.read().await;
    assert_eq!(captions(&set)[..3], [vec!["one"], vec!["first", "second"], vec!["four"]]);
    assert_eq!(set.samples[1].key, "002");
    let reasons = [
        ("damaged-source", 1),
        ("malformed-row", 1),
        ("no-picture", 1),
        ("too-many-bytes", 1),
        ("undecodable", 1),
    ];
    assert_eq!(rejected(&summary), reasons);
    assert_eq!(summary.units, 2);
}

/// A name of many megabytes would be held in memory; a long one is a name.
#[tokio::test]
async fn an_archive_whose_names_have_no_end_is_damaged() {
    let with_name = |bytes: usize| {
        let name = vec![b'n'; bytes];
        let mut header = tar::Header::new_gnu();
        header.set_path("././@LongLink").unwrap();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(name.len() as u64);
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, name.as_slice()).unwrap();
        let mut all = builder.into_inner().unwrap();
        // Without the two empty blocks that end an archive.
        all.truncate(all.len() - 1024);
        [good_archive(2)[..good_archive(2).len() - 1024].to_vec(), all, good_archive(1)].concat()
    };
    for bytes in [3000, 3 << 20] {
        let scene = Scene::new();
        let sources = [scene.write("a.tar", with_name(bytes))];
        let summary = scene.ingest(&sources, IngestSettings::new(SourceKind::Webdataset)).await.unwrap();
        let damaged = summary.rejected.get("damaged-source").copied().unwrap_or_default();
        assert_eq!(damaged, u64::from(bytes > 1 << 20), "{:?}", summary.rejected);
        // The row before the fault may have had members to come.
        assert!(summary.rows >= 1, "{summary:?}");
    }
}

#[tokio::test]
async fn coco_with_a_folder() {
    let scene = Scene::new();
    scene.write("pictures/a.jpg", image(1, ImageFormat::Jpeg));
    let list = r#"{"images":[{"id":1,"file_name":"a.jpg"},{"id":2,"file_name":"gone.jpg"}],
        "annotations":[{"image_id":1,"caption":"x"},{"image_id":1,"caption":"y"},{"image_id":2,"caption":"z"}]}"#;
    let sources = [scene.write("captions.json", list)];
    let summary = scene.ingest(&sources, named(&scene, SourceKind::Coco)).await.unwrap();
    assert_eq!(captions(&scene.read().await), [["x", "y"]]);
    assert_eq!(rejected(&summary), [("missing-picture", 1)]);
}

#[tokio::test]
async fn visual_genome_with_its_two_folders() {
    let scene = Scene::new();
    scene.write("pictures/VG_100K/1.jpg", image(1, ImageFormat::Jpeg));
    scene.write("pictures/VG_100K_2/2.jpg", image(2, ImageFormat::Jpeg));
    let list = r#"[{"id":1,"regions":[{"phrase":"a"},{"phrase":"b"}]},{"id":2,"regions":[{"phrase":"c"}]}]"#;
    let sources = [scene.write("region_descriptions.json", list)];
    scene.ingest(&sources, named(&scene, SourceKind::VisualGenome)).await.unwrap();
    assert_eq!(captions(&scene.read().await), [vec!["a", "b"], vec!["c"]]);
}

#[tokio::test]
async fn conceptual_captions_in_either_order() {
    for (kind, lines) in [
        (SourceKind::Cc3m, "one\thttp://h/1\nbroken\ntwo\thttp://h/2\nthree\thttp://h/3\n"),
        (SourceKind::Cc12m, "http://h/1\tone\nbroken\nhttp://h/2\ttwo\nhttp://h/3\tthree\n"),
    ] {
        let scene = Scene::new();
        for row in [0, 2] {
            scene.write(&format!("pictures/00000/00000000{row}.jpg"), image(row, ImageFormat::Jpeg));
        }
        let sources = [scene.write("list.tsv", lines)];
        let mut settings = named(&scene, kind);
        settings.unit_rows = 3;
        let summary = scene.ingest(&sources, settings).await.unwrap();
        assert_eq!((summary.units, summary.rows_read), (2, 4));
        assert_eq!(captions(&scene.read().await), [["one"], ["two"]]);
        assert_eq!(rejected(&summary), [("malformed-row", 1), ("missing-picture", 1)]);
    }
}

#[tokio::test]
async fn sbu_by_the_names_in_its_urls() {
    let scene = Scene::new();
    scene.write("pictures/4385058960_b.jpg", image(1, ImageFormat::Jpeg));
    let list = r#"{"image_urls":["http://f/1/4385058960_b.jpg"],"captions":["a dog"],"user_ids":["x"]}"#;
    let sources = [scene.write("sbu.json", list)];
    scene.ingest(&sources, named(&scene, SourceKind::Sbu)).await.unwrap();
    assert_eq!(captions(&scene.read().await), [["a dog"]]);
}

#[tokio::test]
async fn laion_metadata_with_a_folder() {
    let scene = Scene::new();
    let column = |name: &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..10).map(|row| format!("{name} {row}"))))
    };
    let batch = RecordBatch::try_from_iter([("URL", column("http://h/")), ("TEXT", column("text"))]).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(4)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    let sources = [scene.write("part.parquet", writer.into_inner().unwrap())];
    for row in 0..10 {
        scene.write(&format!("pictures/{row}.png"), image(row, ImageFormat::Png));
    }
    let mut settings = named(&scene, SourceKind::Laion);
    (settings.unit_rows, settings.image_name) = (3, Some("{row}.png".to_owned()));
    let summary = scene.ingest(&sources, settings).await.unwrap();
    assert_eq!((summary.units, summary.rows), (4, 10));
    let set = scene.read().await;
    let expected: Vec<_> = (0..10).map(|row| vec![format!("text {row}")]).collect();
    assert_eq!(set.samples.iter().map(|sample| sample.captions.clone()).collect::<Vec<_>>(), expected);
    assert_eq!(set.samples[9].image.get_pixel(0, 0).0[0], 9);
}

#[tokio::test]
async fn images_are_made_smaller_and_encoded() {
    let scene = Scene::new();
    let members = [
        ("1.png", image(9, ImageFormat::Png)),
        ("1.txt", b"x".to_vec()),
        ("2.png", small()),
        ("2.txt", b"y".to_vec()),
    ];
    let sources = [scene.write("a.tar", archive(&members))];
    let mut settings = IngestSettings::new(SourceKind::Webdataset);
    (settings.short_side, settings.min_side) = (Some(8), 2);
    scene.ingest(&sources, settings.clone()).await.unwrap();
    let set = scene.read().await;
    let sizes: Vec<_> = set.samples.iter().map(|sample| sample.image.dimensions()).collect();
    assert_eq!(sizes, [(12, 8), (5, 3)]);
    let other = Scene::new();
    (settings.short_side, settings.jpeg_quality, settings.min_side) = (None, Some(30), 4);
    let summary = other.ingest(&sources, settings).await.unwrap();
    assert_eq!(rejected(&summary), [("too-small", 1)]);
    let stored = other.written().remove("part-000000-0000.parquet").unwrap();
    assert!(stored.windows(4).any(|bytes| bytes == [0xff, 0xd8, 0xff, 0xe0]), "it is a JPEG now");
}

fn small() -> Vec<u8> {
    let mut encoded = Cursor::new(Vec::new());
    RgbImage::new(5, 3).write_to(&mut encoded, ImageFormat::Png).unwrap();
    encoded.into_inner()
}

#[tokio::test]
async fn what_does_not_fit_together_is_refused() {
    let scene = Scene::new();
    let refused = async |sources: &[&str], settings: IngestSettings| {
        let sources: Vec<_> = sources.iter().map(|source| (*source).to_owned()).collect();
        scene.ingest(&sources, settings).await.unwrap_err().to_string()
    };
    let list = scene.write("a.json", "not JSON");
    assert!(refused(&[&list], IngestSettings::new(SourceKind::Coco)).await.contains("--images"));
    assert!(refused(&[&list], named(&scene, SourceKind::Img2dataset)).await.contains("--images"));
    let error = refused(&[&list], named(&scene, SourceKind::Coco)).await;
    assert!(error.contains("a.json") && error.contains("kind coco"), "{error}");
    assert!(refused(&[], IngestSettings::new(SourceKind::Webdataset)).await.contains("no source"));
    let gone = scene.path("gone.tar");
    assert!(refused(&[&gone], IngestSettings::new(SourceKind::Webdataset)).await.contains("gone.tar"));
    let settings = IngestSettings { jpeg_quality: Some(0), ..IngestSettings::new(SourceKind::Webdataset) };
    assert!(refused(&[&gone], settings).await.contains("quality"));
}
