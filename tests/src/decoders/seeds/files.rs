//! Files, objects and rows in order, and some that are not.

use std::collections::BTreeMap;

use blip2_dataset::corpus::manifest::{Manifest, ManifestFile};
use blip2_dataset::quarantine::{QuarantineList, QuarantineRecord};
use blip2_run::epoch::{EpochMember, EpochRecord};
use image::{DynamicImage, ImageFormat, RgbImage};
use safetensors::{Dtype, tensor::TensorView};

use super::seed::{Seed, refused, taken};
use crate::corpus::{Row, encoded, enormous_picture, good_rows, odd_pictures, truncated_picture, write};
use crate::process::repository;

pub(super) fn checkpoint_parts() -> Vec<Seed> {
    let values: Vec<u8> = (0..12u32).flat_map(|value| (value as f32).to_le_bytes()).collect();
    let view = |shape: &[usize]| {
        let bytes = 4 * shape.iter().product::<usize>();
        TensorView::new(Dtype::F32, shape.to_vec(), &values[..bytes]).expect("the shape fits")
    };
    let part = |name: &str| {
        let kinds = ["parameters", "first_moments", "second_moments"];
        let tensors = kinds.iter().flat_map(|kind| {
            [(format!("{kind}.{name}"), view(&[3, 4])), (format!("{kind}.bias"), view(&[2]))]
        });
        safetensors::serialize(tensors.collect::<Vec<_>>(), None).expect("tensors of one part")
    };
    let bytes = TensorView::new(Dtype::U8, vec![3], &values[..3]).expect("the shape fits");
    let other = safetensors::serialize([("bytes", bytes)], None).expect("a tensor");
    vec![
        taken("stage1", part("query_tokens")),
        taken("stage2", part("opt_proj.weight")),
        refused("bytes", other),
    ]
}

pub(super) fn commits() -> Vec<Seed> {
    let part = |index: u32| {
        let name = format!("part-{index:05}-of-00002.safetensors");
        serde_json::json!({"name": name, "length": 4096, "blake3": "0".repeat(64)})
    };
    let values: BTreeMap<&str, f64> = [("learning_rate", 1e-4), ("loss", 7.25)].into();
    let commit = |format: u32, name: &str| {
        serde_json::json!({
            "format": format, "name": name, "run_id": "run", "step": 12, "stage": 1, "epoch": 2,
            "config_hash": "c".repeat(64), "manifest_hash": "d".repeat(64), "parts": [part(0), part(1)],
            "quarantine": {"name": "quarantine.parquet", "length": 900, "blake3": "e".repeat(64)},
            "coverage": [{"stage": 1, "samples": 96, "digest": "0f".repeat(16)}], "values": values,
        })
    };
    let text = |value: serde_json::Value| value.to_string();
    vec![
        taken("commit", text(commit(2, "00000012-000002"))),
        refused("other-name", text(commit(2, "00000013-000002"))),
        refused("later-format", text(commit(1000, "00000012-000002"))),
    ]
}

pub(super) fn epochs() -> Vec<Seed> {
    let member = |id: u32| EpochMember {
        id,
        name: format!("w{id}"),
        first_slot: 2 * id,
        slot_count: 2,
        device: "cpu".into(),
    };
    let record = EpochRecord {
        epoch: 2,
        coordinator: "17-1".into(),
        step: 12,
        members: vec![member(0), member(1)],
        address: "http://a:1".into(),
        back_from: None,
        end: None,
    };
    let end = EpochRecord { members: Vec::new(), end: Some("done".into()), ..record.clone() };
    let text = |record: &EpochRecord| serde_json::to_vec(record).expect("a record serialises");
    vec![taken("members", text(&record)), taken("end", text(&end))]
}

pub(super) fn manifests() -> Vec<Seed> {
    let file = |name: &str, etag: Option<&str>, row_groups: &[u32]| ManifestFile {
        location: format!("s3://bucket/{name}.parquet"),
        bytes: 1 << 20,
        etag: etag.map(str::to_owned),
        row_groups: row_groups.to_vec(),
        failed: Vec::new(),
    };
    let parquet = |files: Vec<ManifestFile>| Manifest::of(files).to_parquet().expect("a manifest");
    let files = (0..40).map(|index| file(&index.to_string(), None, &[256, 256, 17])).collect();
    vec![
        taken("two-files", parquet(vec![file("a", Some("\"e\""), &[256, 9]), file("b", None, &[1])])),
        taken("many-files", parquet(files)),
        taken("largest", parquet(vec![file("a", None, &[u32::MAX, u32::MAX])])),
        taken("empty", parquet(Vec::new())),
    ]
}

pub(super) fn quarantines() -> Vec<Seed> {
    let record = |sample: u64| QuarantineRecord {
        key: format!("{sample:09}"),
        file: "s3://bucket/a.parquet".into(),
        row_group: 1,
        row: sample as u32,
        reason: "the picture cannot be used: it is truncated".into(),
        sample,
        stage: 1,
    };
    let parquet = |samples: std::ops::Range<u64>| {
        let list: QuarantineList = samples.map(record).collect();
        list.to_parquet().expect("a list of rows")
    };
    vec![taken("three-rows", parquet(0..3)), taken("empty", parquet(0..0))]
}

pub(super) fn corpora() -> Vec<Seed> {
    let folder = tempfile::tempdir().expect("a folder for the files");
    let path = folder.path().join("corpus.parquet");
    let file = |column: &str, rows: &[Row]| {
        write(&path, column, rows);
        std::fs::read(&path).expect("the file that was written")
    };
    let mut bad = small_rows();
    bad[0].image = truncated_picture();
    bad[1].caption.clear();
    vec![
        taken("three-rows", file("jpg", &small_rows())),
        taken("unusable-rows", file("webp", &bad)),
        refused("no-rows", file("jpg", &[])),
        refused("other-columns", file("picture_data", &small_rows()[..1])),
    ]
}

pub(super) fn small_rows() -> Vec<Row> {
    let picture = |shade: u8| DynamicImage::ImageRgb8(RgbImage::from_pixel(8, 8, image::Rgb([shade, 9, 9])));
    let mut rows = good_rows(3);
    for (shade, row) in rows.iter_mut().enumerate() {
        row.image = encoded(&picture(shade as u8), ImageFormat::Png);
    }
    rows
}

pub(super) fn images() -> Vec<Seed> {
    let mut seeds: Vec<Seed> =
        odd_pictures().into_iter().map(|(name, bytes)| taken(&name.replace(' ', "-"), bytes)).collect();
    let small =
        DynamicImage::ImageRgb8(RgbImage::from_fn(12, 9, |x, y| image::Rgb([x as u8 * 20, y as u8, 7])));
    for (name, format) in
        [("jpeg", ImageFormat::Jpeg), ("bmp", ImageFormat::Bmp), ("tiff", ImageFormat::Tiff)]
    {
        seeds.push(taken(name, encoded(&small, format)));
    }
    seeds.push(refused("enormous", enormous_picture()));
    seeds.push(refused("truncated", truncated_picture()));
    seeds
}

pub(super) fn captions() -> Vec<Seed> {
    vec![
        taken("plain", "A red disc, number 3."),
        taken("signs", "🦊🐸 [MASK] \u{130}stanbul e\u{301}\u{200d}\u{202e}<br/>&amp; 日本語"),
        taken("empty", ""),
        taken("long", "word ".repeat(200)),
        refused("not-text", [0xff, 0xfe, 0x00]),
    ]
}

pub(super) fn configurations() -> Vec<Seed> {
    let quickstart = std::fs::read_to_string(repository().join("configs/quickstart.toml"));
    let quickstart = quickstart.expect("the quick start's configuration");
    vec![
        taken("quickstart", quickstart),
        taken(
            "dotted",
            "stage1.steps = 3\nstage2.steps = 0\ndata.train = ['a.parquet']\ntrain.slots = 8\n\
             model.image_encoder = 'm'\nmodel.qformer_tokenizer = 'm'\n",
        ),
        refused("unknown-key", "[stage1]\nstepz = 1\n"),
        refused("wrong-type", "[stage1]\nsteps = 'many'\n"),
    ]
}
