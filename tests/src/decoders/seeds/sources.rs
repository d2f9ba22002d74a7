//! What ingestion reads and writes.

use blip2_dataset::corpus::ingest::{IngestSettings, Share, SourceKind, ingest};
use blip2_store::Location;

use super::files::{corpora, small_rows};
use super::seed::{Seed, refused, taken};
use crate::corpus::{truncated_picture, write};

/// Corpus files, and one whose footer records its row groups.
pub(super) fn verified_files() -> Vec<Seed> {
    let others = corpora().into_iter().map(|seed| match seed.name.as_str() {
        "unusable-rows" => Seed { taken: false, ..seed },
        "no-rows" => Seed { taken: true, ..seed },
        _ => seed,
    });
    others.chain([taken("recorded", ingested_file())]).collect()
}

fn ingested_file() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder for the files");
    let place = |name: &str| folder.path().join(name);
    write(&place("a.parquet"), "jpg", &small_rows());
    let text = |name: &str| place(name).to_str().expect("temporary folders have UTF-8 names").to_owned();
    let out = Location::parse(&text("out")).expect("a folder");
    let settings = IngestSettings { row_groups: 2, ..IngestSettings::new(SourceKind::Img2dataset) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let sources = [text("a.parquet")];
    runtime.block_on(ingest(&sources, &out, settings, Share::WHOLE, |_| ())).expect("rows that are in order");
    std::fs::read(place("out/part-000000-0000.parquet")).expect("the file that was written")
}

pub(super) fn archives() -> Vec<Seed> {
    let archive = |members: &[(&str, &[u8])]| {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *content).expect("a member");
        }
        builder.into_inner().expect("an archive in memory")
    };
    let picture = small_rows().remove(0).image;
    let long = format!("{}/1.png", "folder".repeat(30));
    let listed = br#"["first", "second"]"#;
    let described = br#"{"caption": "a", "url": "http://h/1", "status": "success", "sha256": null}"#;
    let good = archive(&[("1.png", &picture), ("1.txt", b"one"), ("2.png", &picture), ("2.json", listed)]);
    let cut = good[..good.len() - 1100].to_vec();
    vec![
        taken("described", archive(&[("a/1.json", described), ("a/1.png", &picture)])),
        taken("long-name", archive(&[(&long, &picture), (&long.replace("png", "txt"), b"one")])),
        taken("cut", cut),
        taken("two-rows", good),
        refused("truncated-picture", archive(&[("1.jpg", &truncated_picture()), ("1.txt", b"one")])),
        refused("only-captions", archive(&[("1.txt", b"one")])),
    ]
}

pub(super) fn caption_lists() -> Vec<Seed> {
    vec![
        taken(
            "coco",
            r#"{"info": {}, "images": [{"id": 1, "file_name": "a.jpg"}],
                "annotations": [{"image_id": 1, "id": 7, "caption": "a red disc"}]}"#,
        ),
        taken(
            "karpathy",
            r#"{"images": [{"filepath": "val", "filename": "a.jpg", "split": "train", "sentences": [{"raw": "a"}]}]}"#,
        ),
        taken("pairs", r#"[{"image": "a.jpg", "caption": "a"}, {"image": "b.jpg", "caption": ["b", "c"]}]"#),
        taken("visual-genome", r#"[{"id": 1, "regions": [{"phrase": "a"}, {"phrase": "b"}]}]"#),
        taken("sbu", r#"{"image_urls": ["http://f/1/4_b.jpg"], "captions": ["a dog"], "user_ids": ["x"]}"#),
        refused("not-a-list", "3"),
        refused("cut", r#"[{"image": "a.jpg", "capt"#),
    ]
}

pub(super) fn caption_lines() -> Vec<Seed> {
    vec![
        taken("two", "one\thttp://h/1\ntwo\thttp://h/2\n"),
        taken("broken", "one\nnothing more"),
        taken("not-text", [b"\xff\xfe\t".as_slice(), b"http://h/1\n"].concat()),
        refused("empty", ""),
    ]
}
