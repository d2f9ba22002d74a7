use std::time::Duration;

use blip2_images::transform::TrainTransform;
use bytes::Bytes;

use super::*;
use crate::corpus::row_group_file::recorded_row_groups;
use crate::loader::{Loader, LoaderSettings, LoaderSpec};
use crate::plan::{Plan, PlanKey};
use crate::test_assets::backbone;
use crate::text::{TextEncoder, TextEncoding};

/// Three archives into small files: several units, several files of several row groups.
fn job(scene: &Scene) -> (Vec<String>, IngestSettings) {
    let mut sources: Vec<_> =
        (0..2).map(|source| scene.write(&format!("{source}.tar"), good_archive(60))).collect();
    sources.push(scene.write("2.tar", &good_archive(20)[..20_000]));
    let settings = IngestSettings {
        file_bytes: 8 << 10,
        row_groups: 2,
        threads: 3,
        ..IngestSettings::new(SourceKind::Webdataset)
    };
    (sources, settings)
}

/// The order in which a job writes.
fn order(name: &str) -> (u64, u8, String) {
    let unit = name.split(['-', '/', '.']).find_map(|part| part.parse::<u64>().ok());
    match name {
        "ingest.json" => (0, 0, String::new()),
        "summary.json" => (u64::MAX, 0, String::new()),
        _ => {
            let kind = ["part", "rejected", "done"].iter().position(|kind| name.starts_with(kind)).unwrap();
            (1 + unit.unwrap(), kind as u8, name.to_owned())
        }
    }
}

#[tokio::test]
async fn a_job_that_was_killed_after_any_write_ends_with_the_same_bytes() {
    let scene = Scene::new();
    let (sources, settings) = job(&scene);
    scene.ingest(&sources, settings.clone()).await.unwrap();
    let whole = scene.written();
    assert!(whole.len() > 10, "{:?}", whole.keys());
    assert!(whole.contains_key("part-000001-0001.parquet") && whole.contains_key("rejected/000002.parquet"));
    let mut names: Vec<_> = whole.keys().cloned().collect();
    names.sort_by_key(|name| order(name));
    for killed_after in 0..=names.len() {
        std::fs::remove_dir_all(scene.path("out")).unwrap();
        for name in &names[..killed_after] {
            scene.write(&format!("out/{name}"), &whole[name]);
        }
        // Threads differ from run to run.
        let settings = IngestSettings { threads: 1 + killed_after % 3, ..settings.clone() };
        scene.ingest(&sources, settings).await.unwrap();
        assert_eq!(scene.written(), whole, "killed after {killed_after} writes");
    }
}

#[tokio::test]
async fn machines_that_share_a_job_write_what_one_would() {
    let (alone, together) = (Scene::new(), Scene::new());
    let (sources, settings) = job(&alone);
    alone.ingest(&sources, settings.clone()).await.unwrap();
    let out = Location::parse(&together.path("out")).unwrap();
    for index in [1, 0] {
        ingest(&sources, &out, settings.clone(), Share { index, count: 2 }, |_| ()).await.unwrap();
    }
    assert_eq!(alone.written(), together.written());
}

#[tokio::test]
async fn another_job_or_changed_sources_are_refused() {
    let scene = Scene::new();
    let (sources, settings) = job(&scene);
    scene.ingest(&sources, settings.clone()).await.unwrap();
    let again = async |sources: &[String], settings: &IngestSettings| {
        scene.ingest(sources, settings.clone()).await.unwrap_err().to_string()
    };
    let other = IngestSettings { min_side: 7, ..settings.clone() };
    assert!(again(&sources, &other).await.contains("other settings"));
    assert!(again(&sources[..2], &settings).await.contains("it has 3 sources, now there are 2"));
    scene.write("1.tar", good_archive(61));
    let error = again(&sources, &settings).await;
    assert!(error.contains("1.tar` changed"), "{error}");
    scene.write("1.tar", good_archive(60));
    scene.write("out/part-000000-0000.parquet", "other");
    std::fs::remove_file(scene.path("out/done/000000.json")).unwrap();
    let error = again(&sources, &settings).await;
    assert!(error.contains("part-000000-0000.parquet") && error.contains("other bytes"), "{error}");
}

#[tokio::test]
async fn files_have_the_layout_that_is_promised() {
    let scene = Scene::new();
    let (sources, settings) = job(&scene);
    scene.ingest(&sources, settings).await.unwrap();
    let manifest =
        Manifest::open(&[scene.path("out/part-*.parquet")], &ColumnNames::default()).await.unwrap();
    assert!(manifest.files.iter().all(|file| file.row_groups.len() <= 2));
    assert_eq!(manifest.files[0].row_groups.len(), 2);
    let content = Bytes::from(std::fs::read(scene.path("out/part-000000-0000.parquet")).unwrap());
    let footer = parquet::file::metadata::ParquetMetaDataReader::new().parse_and_finish(&content).unwrap();
    let recorded = recorded_row_groups(footer.file_metadata()).unwrap().unwrap();
    for (group, recorded) in footer.row_groups().iter().zip(&recorded) {
        let ranges: Vec<_> = group.columns().iter().map(|column| column.byte_range()).collect();
        assert_eq!(ranges[0].0, recorded.offset);
        assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 == pair[1].0), "one run: {ranges:?}");
        let image = group.columns().last().unwrap();
        assert_eq!(image.column_path().string(), "jpg");
        assert_eq!(image.compression(), parquet::basic::Compression::UNCOMPRESSED);
        let (start, end) = (recorded.offset as usize, (recorded.offset + recorded.bytes) as usize);
        assert_eq!(blake3::hash(&content[start..end]).to_hex().as_str(), recorded.blake3);
        assert_eq!((recorded.rows, recorded.max_side), (group.num_rows() as u64, 24));
    }
}

#[test]
fn the_loader_trains_on_what_was_ingested() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let scene = Scene::new();
    let (sources, settings) = job(&scene);
    runtime.block_on(scene.ingest(&sources[..2], settings)).unwrap();
    let columns = ColumnNames::default();
    let files = [scene.path("out/part-*.parquet")];
    let manifest = Arc::new(runtime.block_on(Manifest::open(&files, &columns)).unwrap());
    let plan = Arc::new(Plan::new(&manifest, PlanKey { seed: 7, stage: 1 }, 4, 2).unwrap());
    let text = TextEncoder::open(&backbone("qformer-tokenizer"), TextEncoding::new(16, 0)).unwrap();
    let spec = LoaderSpec {
        manifest,
        plan,
        columns,
        slots: 0..4,
        batch_per_slot: 3,
        slots_total: 4,
        first_step: 0,
        last_step: 10,
        seed: 7,
        stage: 1,
        image: TrainTransform::new(16, [0.5, 1.0], true),
        text: Arc::new(text),
        max_pixels: 1 << 20,
        settings: LoaderSettings::default(),
    };
    let loader = Loader::start(runtime.handle().clone(), spec).unwrap();
    for _ in 0..10 {
        for slot in loader.next(Duration::from_secs(30)).unwrap().slots {
            assert!(slot.quarantined.is_empty(), "{:?}", slot.quarantined);
            assert!(slot.captions.iter().all(|caption| caption.starts_with("row ")));
        }
    }
}
