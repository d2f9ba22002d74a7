//! Lists and folders of one's own, names of images as they are, and sources that come to nothing.

use blip2_store::error::StoreError;

use super::*;

/// Keys and captions of what was kept.
async fn kept(scene: &Scene) -> Vec<(String, String)> {
    let set = scene.read().await;
    set.samples.iter().map(|sample| (sample.key.clone(), sample.captions.join("|"))).collect()
}

fn pair(key: &str, captions: &str) -> (String, String) {
    (key.to_owned(), captions.to_owned())
}

#[tokio::test]
async fn tables_and_lines_beside_their_images() {
    for (kind, name, list) in [
        (
            SourceKind::Csv,
            "list.csv",
            "image,caption\r\np/a b.jpg,\"one, or\ntwo\"\r\np/a b.jpg,three\r\np/é#1.png,four\r\n",
        ),
        (
            SourceKind::Tsv,
            "list.tsv",
            "caption\tpath\rone, or two\tp/a b.jpg\rthree\t./p/a b.jpg\rfour\tp\\é#1.png\r",
        ),
        (
            SourceKind::Jsonl,
            "list.jsonl",
            "{\"file_name\":\"p/a b.jpg\",\"text\":\"one, or two\"}\n{\"file_name\":\"p/a b.jpg\",\"text\":\"three\"}\n\
             {\"file_name\":\"p/e\u{301}#1.png\",\"text\":\"four\"}",
        ),
    ] {
        let scene = Scene::new();
        scene.write("data/p/a b.jpg", image(1, ImageFormat::Jpeg));
        scene.write("data/p/é#1.png", image(2, ImageFormat::Png));
        let source = scene.write(&format!("data/{name}"), list);
        let summary = scene.ingest(std::slice::from_ref(&source), IngestSettings::new(kind)).await.unwrap();
        assert!(summary.rejected.is_empty(), "{kind}: {:?}", summary.rejected);
        let captions: Vec<_> = kept(&scene)
            .await
            .into_iter()
            .flat_map(|(_, text)| text.replace('\n', " ").split('|').map(str::to_owned).collect::<Vec<_>>())
            .collect();
        assert_eq!(captions, ["one, or two", "three", "four"], "{kind}");
        // The images in a folder that is named.
        let settings = IngestSettings { images: Some(scene.path("data")), ..IngestSettings::new(kind) };
        let moved = scene.write(&format!("elsewhere/{name}"), list);
        let out = Location::parse(&scene.path("out2")).unwrap();
        assert_eq!(ingest(&[moved], &out, settings, Share::WHOLE, |_| ()).await.unwrap().rows, summary.rows);
        // A folder of lists.
        let out = Location::parse(&scene.path("out3")).unwrap();
        let folder = [scene.path("data")];
        assert_eq!(
            ingest(&folder, &out, IngestSettings::new(kind), Share::WHOLE, |_| ()).await.unwrap().rows,
            summary.rows
        );
    }
}

#[tokio::test]
async fn a_folder_of_images_with_texts_is_ingested_in_units_and_again() {
    let scene = Scene::new();
    for row in 0..7u8 {
        scene.write(&format!("pictures/{row}/x {row}%.jpg"), image(row, ImageFormat::Jpeg));
        scene.write(&format!("pictures/{row}/x {row}%.txt"), format!("number {row}\n"));
    }
    scene.write("pictures/lonely.png", image(9, ImageFormat::Png));
    let settings = IngestSettings { unit_rows: 3, ..IngestSettings::new(SourceKind::Folder) };
    let source = [scene.path("pictures")];
    let summary = scene.ingest(&source, settings.clone()).await.unwrap();
    assert_eq!((summary.units, summary.rows, summary.rejected["no-caption"]), (3, 7, 1));
    assert_eq!(kept(&scene).await[6], pair("6/x 6%", "number 6"));
    let before = scene.written();
    assert_eq!(scene.ingest(&source, settings.clone()).await.unwrap(), summary);
    assert_eq!(scene.written(), before);
    scene.write("pictures/new.png", image(9, ImageFormat::Png));
    let error = scene.ingest(&source, settings).await.unwrap_err();
    assert!(matches!(error, DatasetError::Store(StoreError::Changed { .. })), "{error}");
    let images =
        IngestSettings { images: source.first().cloned(), ..IngestSettings::new(SourceKind::Folder) };
    assert!(scene.ingest(&source, images).await.unwrap_err().to_string().contains("--images"));
}

/// The names that a list has are those of the files, in every kind.
#[tokio::test]
async fn images_are_found_by_their_very_names() {
    let names = [
        "plain.jpg",
        "a b.jpg",
        "a%20b.jpg",
        "100%.jpg",
        "a#b.jpg",
        "img [1].jpg",
        "ünï.jpg",
        "e\u{301}.jpg",
        "q?x.jpg",
        "st*r.jpg",
        "a{b}.jpg",
        "a~1.jpg",
        "你好.jpg",
        "😀.jpg",
    ];
    let scene = Scene::new();
    for (shade, name) in (0u8..).zip(names) {
        scene.write(&format!("p/{name}"), image(shade, ImageFormat::Jpeg));
    }
    let json = |name: &&str| serde_json::json!({ "image": name, "caption": name });
    let list = serde_json::to_string(&names.iter().map(json).collect::<Vec<_>>()).unwrap();
    let lines: String = names.iter().map(|name| json(name).to_string() + "\n").collect();
    let table: String = names.iter().map(|name| format!("{name},\"{name}\"\n")).collect();
    let urls: String = names.iter().map(|name| format!("{name}\thttp://h/{name}\n")).collect();
    let official = serde_json::json!({
        "images": names.iter().enumerate().map(|(id, name)| serde_json::json!({ "id": id, "file_name": name })).collect::<Vec<_>>(),
        "annotations": names.iter().enumerate().map(|(id, name)| serde_json::json!({ "image_id": id, "caption": name })).collect::<Vec<_>>(),
    });
    let sources = [
        (SourceKind::Coco, scene.write("list.json", &list)),
        (SourceKind::Coco, scene.write("official.json", official.to_string())),
        (SourceKind::VisualGenome, scene.write("vg.json", &list)),
        (SourceKind::Sbu, scene.write("sbu.json", &list)),
        (SourceKind::Jsonl, scene.write("list.jsonl", &lines)),
        (SourceKind::Csv, scene.write("list.csv", format!("image,caption\n{table}"))),
        (SourceKind::Cc3m, scene.write("list.tsv", &urls)),
    ];
    for (number, (kind, source)) in sources.into_iter().enumerate() {
        // Of a URL what follows `?` and `#` is no part of the name.
        let in_url = |name: &&&str| kind != SourceKind::Cc3m || !name.contains(['?', '#']);
        let wanted = names.iter().filter(in_url).count() as u64;
        let settings = IngestSettings {
            images: Some(scene.path("p")),
            image_name: (kind == SourceKind::Cc3m).then(|| "{url_file}".to_owned()),
            ..IngestSettings::new(kind)
        };
        let out = Location::parse(&scene.path(&format!("out{number}"))).unwrap();
        let summary = ingest(&[source], &out, settings, Share::WHOLE, |_| ()).await.unwrap();
        assert_eq!(summary.rows, wanted, "{kind}: {:?}", summary.rejected);
    }
}

#[tokio::test]
async fn a_source_of_which_nothing_is_kept_is_no_success() {
    let scene = Scene::new();
    let settings = IngestSettings::new(SourceKind::Webdataset);
    let bad = scene.write("bad.tar", archive(&[("1.jpg", b"no picture".to_vec()), ("1.txt", b"x".to_vec())]));
    let error = scene.ingest(std::slice::from_ref(&bad), settings.clone()).await.unwrap_err();
    assert!(error.is_bad_input());
    let text = error.to_string();
    for part in ["bad.tar", "1 undecodable", "row 0 (1)", "nothing was written"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    // Asked again, it is no better; what is known is the counts.
    let again = scene.ingest(std::slice::from_ref(&bad), settings.clone()).await.unwrap_err().to_string();
    assert!(again.contains("1 undecodable"), "{again}");

    // Others have rows, which are written; the one is named all the same.
    let other = Scene::new();
    let good = other.write("good.tar", good_archive(3));
    let error = other.ingest(&[good.clone(), bad], settings.clone()).await.unwrap_err();
    assert!(matches!(&error, DatasetError::NothingKept { kept, .. } if kept.contains("3 rows")), "{error}");
    assert_eq!(other.read().await.samples.len(), 3);

    // An archive and a list of nothing.
    let third = Scene::new();
    let empty = third.write("empty.tar", archive(&[]));
    assert!(third.ingest(&[empty], settings).await.unwrap_err().to_string().contains("has no member"));
    let fourth = Scene::new();
    let list = fourth.write("list.json", "[]");
    let settings = IngestSettings { images: Some(fourth.path(".")), ..IngestSettings::new(SourceKind::Coco) };
    assert!(fourth.ingest(&[list], settings).await.unwrap_err().to_string().contains("has no rows"));
}

#[tokio::test]
async fn lines_that_end_with_returns_pair_as_they_should() {
    for end in ["\n", "\r\n", "\r"] {
        let scene = Scene::new();
        for row in 0..5u8 {
            scene.write(&format!("p/{row}.jpg"), image(row, ImageFormat::Jpeg));
        }
        let lines: Vec<_> = (0..5).map(|row| format!("picture {row}\thttp://h/{row}.jpg")).collect();
        let source = scene.write("list.tsv", format!("\u{feff}{}", lines.join(end)));
        let settings = IngestSettings {
            images: Some(scene.path("p")),
            image_name: Some("{url_file}".to_owned()),
            unit_rows: 2,
            ..IngestSettings::new(SourceKind::Cc3m)
        };
        assert_eq!(scene.ingest(&[source], settings).await.unwrap().rows, 5, "{end:?}");
        let set = scene.read().await;
        for (row, sample) in set.samples.iter().enumerate() {
            assert_eq!(sample.captions, [format!("picture {row}")], "{end:?}");
            assert!(sample.image.get_pixel(0, 0).0[0].abs_diff(row as u8) < 3, "{end:?}");
        }
    }
}
