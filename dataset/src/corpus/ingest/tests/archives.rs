//! Archives as they are found: packed, cut, put one behind the other, with links and holes; and in the place
//! of Parquet.

use std::io::Write;

use super::*;
use crate::corpus::manifest::CorpusSource;

fn web() -> IngestSettings {
    IngestSettings::new(SourceKind::Webdataset)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn jpeg(shade: u8) -> Vec<u8> {
    image(shade, ImageFormat::Jpeg)
}

/// Keys with the first caption and the first pixel's red.
async fn rows(scene: &Scene) -> Vec<(String, String, u8)> {
    let read = scene.read().await.samples.into_iter();
    read.map(|row| (row.key, row.captions[0].clone(), row.image.get_pixel(0, 0).0[0])).collect()
}

/// What the rows that cannot be used are told.
fn reasons(scene: &Scene) -> Vec<String> {
    let list = std::fs::read(scene.path("out/rejected/000000.parquet")).unwrap();
    QuarantineList::from_parquet(list.into()).unwrap().iter().map(|row| row.reason.clone()).collect()
}

#[tokio::test]
async fn packed_archives_hold_the_same_rows() {
    let plain = Scene::new();
    plain.ingest(&[plain.write("a.tar", good_archive(5))], web()).await.unwrap();
    let expected = plain.written().remove("part-000000-0000.parquet").unwrap();
    let whole = good_archive(5);
    let (first, second) = whole.split_at(3000);
    for (name, packed) in [
        ("a.tar.gz", gzip(&whole)),
        ("two streams.tgz", [gzip(first), gzip(second)].concat()),
        ("a.tar.zst", zstd::encode_all(whole.as_slice(), 3).unwrap()),
        ("by another name.tar", gzip(&whole)),
    ] {
        let scene = Scene::new();
        let summary = scene.ingest(&[scene.write(name, packed)], web()).await.unwrap();
        assert_eq!((summary.rows, summary.damaged.len()), (5, 0), "{name}");
        assert_eq!(scene.written()["part-000000-0000.parquet"], expected, "{name}");
    }
}

#[tokio::test]
async fn a_cut_or_empty_archive_names_the_byte() {
    let whole = good_archive(3);
    let damage = async |name: &str, content: Vec<u8>| {
        let scene = Scene::new();
        match scene.ingest(&[scene.write(name, content)], web()).await {
            Ok(summary) => {
                let [damaged] = summary.damaged.as_slice() else { panic!("{name}: {summary:?}") };
                assert!(damaged.source.ends_with(name), "{damaged}");
                (summary.rows, damaged.reason.clone())
            }
            Err(error) => {
                assert!(error.is_bad_input() && error.to_string().contains(name), "{error}");
                (0, error.to_string())
            }
        }
    };
    // Within the third image: two rows are whole.
    let (rows, reason) = damage("cut.tar", whole[..2 * 2048 + 600].to_vec()).await;
    assert!(rows == 2 && reason.contains("byte 4696") && reason.contains("`00002.png`"), "{rows} {reason}");
    // Within a header.
    let (rows, reason) = damage("cut.tar", whole[..2 * 2048 + 100].to_vec()).await;
    assert!(rows == 1 && reason.contains("byte 4196"), "{rows} {reason}");
    let (_, reason) = damage("empty.tar", Vec::new()).await;
    assert!(reason.contains("0 bytes"), "{reason}");
    let (_, reason) = damage("zeros.tar", vec![0; 10_240]).await;
    assert!(reason.contains("no member") && reason.contains("byte 10240"), "{reason}");
    for (packed, what) in
        [(gzip(&whole), "cut.tar.gz"), (zstd::encode_all(&whole[..], 1).unwrap(), "cut.tar.zst")]
    {
        let half = packed.len() / 2;
        let (_, reason) = damage(what, packed[..half].to_vec()).await;
        assert!(reason.contains(&format!("byte {half} (byte ")), "{reason}");
    }
    let mut damaged = whole.clone();
    damaged[2048 + 20] ^= 1;
    let (rows, reason) = damage("damaged.tar", damaged).await;
    assert!(rows == 0 && reason.contains("damaged at byte 2560"), "{rows} {reason}");
    let (_, reason) = damage("a.tar.xz", b"\xfd7zXZ\0\0\x04\xe6\xd6".to_vec()).await;
    assert!(reason.contains("packed with xz"), "{reason}");
    let (_, reason) = damage("a.tar.bz2", b"BZh91AY&SY".to_vec()).await;
    assert!(reason.contains("packed with bzip2"), "{reason}");
    let captionless = archive(&[("1.jpg", jpeg(1)), ("2.jpg", jpeg(2))]);
    let (rows, reason) = damage("captionless.tar", captionless).await;
    assert!(
        rows == 0 && reason.contains("none of the 2 rows") && reason.contains("2 no-caption"),
        "{reason}"
    );
}

/// A cut at any place is damage or leaves whole rows; no row gets what belongs to another.
#[tokio::test]
async fn a_cut_anywhere_leaves_rows_as_they_were() {
    let whole = good_archive(3);
    for length in (0..whole.len() - 1024).step_by(256) {
        let scene = Scene::new();
        let Ok(summary) = scene.ingest(&[scene.write("a.tar", &whole[..length])], web()).await else {
            continue;
        };
        assert!(!summary.damaged.is_empty() || length.is_multiple_of(512), "{length}: {summary:?}");
        if summary.rows > 0 {
            for (row, (key, caption, red)) in rows(&scene).await.into_iter().enumerate() {
                assert_eq!((key, caption, red), (format!("{row:05}"), format!("row {row}"), row as u8));
            }
        }
    }
}

#[tokio::test]
async fn archives_behind_each_other_are_one_and_what_is_no_archive_is_passed_over() {
    let second = archive(&[("x.jpg", jpeg(9)), ("x.txt", b"second".to_vec())]);
    let scene = Scene::new();
    let all = [good_archive(2), vec![0; 3 << 20], second, b"no archive".repeat(70)].concat();
    let summary = scene.ingest(&[scene.write("a.tar", all)], web()).await.unwrap();
    assert_eq!((summary.rows, summary.rows_read, summary.damaged.len()), (3, 3, 0), "{summary:?}");
    assert_eq!(rows(&scene).await[2].1, "second");
    // Without the blocks that end an archive.
    let scene = Scene::new();
    let whole = good_archive(2);
    let summary = scene.ingest(&[scene.write("a.tar", &whole[..whole.len() - 1024])], web()).await.unwrap();
    assert_eq!((summary.rows, summary.damaged.len()), (2, 0), "{summary:?}");
}

#[tokio::test]
async fn links_and_sparse_members_are_followed_or_named() {
    let mut builder = tar::Builder::new(Vec::new());
    let file = |builder: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content).unwrap();
    };
    let link = |builder: &mut tar::Builder<Vec<u8>>, kind, name: &str, target: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        builder.append_link(&mut header, name, target).unwrap();
    };
    file(&mut builder, "d/a.jpg", &jpeg(60));
    file(&mut builder, "d/a.txt", b"a");
    link(&mut builder, tar::EntryType::Link, "d/b.jpg", "d/a.jpg");
    file(&mut builder, "d/b.txt", b"b");
    link(&mut builder, tar::EntryType::Symlink, "e/c.jpg", "../d/a.jpg");
    file(&mut builder, "e/c.txt", b"c");
    link(&mut builder, tar::EntryType::Symlink, "e/f.jpg", "/etc/passwd");
    file(&mut builder, "e/f.txt", b"f");
    // A sparse member: the image, and a hole behind it.
    let image = jpeg(100);
    let mut header = tar::Header::new_gnu();
    header.set_path("g.jpg").unwrap();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(image.len() as u64);
    let sparse = header.as_gnu_mut().unwrap();
    let octal =
        |field: &mut [u8], value: usize| field[..12].copy_from_slice(format!("{value:011o}\0").as_bytes());
    octal(&mut sparse.sparse[0].offset, 0);
    octal(&mut sparse.sparse[0].numbytes, image.len());
    octal(&mut sparse.sparse[1].offset, 4096);
    octal(&mut sparse.sparse[1].numbytes, 0);
    octal(&mut sparse.realsize, 4096);
    header.set_cksum();
    builder.append(&header, image.as_slice()).unwrap();
    file(&mut builder, "g.txt", b"g");
    let whole = builder.into_inner().unwrap();

    let scene = Scene::new();
    let summary = scene.ingest(&[scene.write("a.tar", &whole)], web()).await.unwrap();
    let found = rows(&scene).await;
    let told: Vec<_> =
        found.iter().map(|(key, caption, red)| (key.as_str(), caption.as_str(), red / 40)).collect();
    assert_eq!(told, [("a", "a", 1), ("b", "b", 1), ("c", "c", 1), ("g", "g", 2)], "{summary:?}");
    let reason = &reasons(&scene)[0];
    assert!(reason.contains("`e/f.jpg` is a link to `/etc/passwd`"), "{reason}");

    let packed = Scene::new();
    let summary = packed.ingest(&[packed.write("a.tar.gz", gzip(&whole))], web()).await.unwrap();
    assert_eq!((summary.rows, summary.rows_read), (2, 5), "{summary:?}");
    assert!(reasons(&packed).iter().all(|reason| reason.contains("not followed in packed archives")));
}

#[tokio::test]
async fn what_programs_put_beside_the_members_is_passed_over() {
    let scene = Scene::new();
    let double = vec![0, 5, 22, 7, 0, 2, 0, 0];
    let json = |text: &str| text.as_bytes().to_vec();
    let members = [
        ("./.DS_Store", double.clone()),
        ("./._a.jpg", double.clone()),
        ("./a.jpg", jpeg(10)),
        ("./._a.txt", double.clone()),
        ("./a.txt", json("\u{feff}one")),
        ("__MACOSX/._a.jpg", double),
        ("__meta__.json", json("{}")),
        ("b.JPG", jpeg(20)),
        ("b.JSON", json("\u{feff}{\"captions\": null, \"caption\": \"two\", \"aesthetic\": NaN}")),
        ("c.jfif", jpeg(30)),
        ("c.json", json(r#"{"caption": null}"#)),
        ("c.txt", json("three")),
        ("2023.01.jpg", jpeg(40)),
        ("2023.01.txt", json("four")),
        ("2023.02.jpg", jpeg(50)),
        ("2023.02.txt", json("five")),
        ("same.jpg", jpeg(60)),
        ("same.jpg", jpeg(70)),
        ("same.txt", json("six")),
        ("same.txt", json("seven")),
    ];
    let summary = scene.ingest(&[scene.write("a.tar", archive(&members))], web()).await.unwrap();
    let found: Vec<_> = rows(&scene).await.into_iter().map(|(key, caption, _)| (key, caption)).collect();
    let expected = [("a", "one"), ("b", "two"), ("c", "three"), ("2023.01", "four"), ("2023.02", "five")];
    assert_eq!(found, expected.map(|(key, caption)| (key.to_owned(), caption.to_owned())));
    assert_eq!((summary.rows_read, summary.rejected["malformed-row"]), (7, 2), "{summary:?}");
}

#[tokio::test]
async fn members_that_stand_apart_are_told_so() {
    let scene = Scene::new();
    let text = |text: &str| text.as_bytes().to_vec();
    let members = [("1.jpg", jpeg(1)), ("2.jpg", jpeg(2)), ("1.txt", text("one")), ("2.txt", text("two"))];
    let error = scene.ingest(&[scene.write("a.tar", archive(&members))], web()).await.unwrap_err();
    assert!(error.to_string().contains("none of the 4 rows"), "{error}");
    assert!(reasons(&scene).iter().filter(|reason| reason.contains("sorted by name")).count() == 2);
}

fn corpus(files: &[String]) -> Vec<CorpusSource> {
    vec![CorpusSource { files: files.to_vec(), ..CorpusSource::default() }]
}

fn conversion(scene: &Scene) -> ArchiveConversion {
    ArchiveConversion {
        folder: Location::parse(&scene.path("corpus")).unwrap(),
        max_pixels: 1 << 20,
        threads: 2,
        max_rejected_share: 0.5,
    }
}

#[tokio::test]
async fn archives_of_a_corpus_are_converted_once() {
    let scene = Scene::new();
    scene.write("web/a.tar", good_archive(3));
    scene.write("web/b.tar.gz", gzip(&good_archive(4)));
    scene.ingest(&[scene.path("web/a.tar")], web()).await.unwrap();
    let sources = corpus(&[scene.path("out/part-*.parquet"), scene.path("web/*")]);
    let mut told = Vec::new();
    let hear = |done: &Converted, total: u64| told.push((done.archives, total));
    let (first, converted) = conversion(&scene).apply(&sources, hear).await.unwrap();
    assert_eq!((converted.archives, converted.known, converted.rows), (2, 0, 7));
    assert_eq!(told, [(0, 2), (1, 2), (2, 2)]);
    let manifest = Manifest::open_sources(&first, &ColumnNames::default(), &|_, _| ()).await.unwrap();
    assert_eq!((manifest.rows(), manifest.files.len()), (10, 3));
    assert!(manifest.files[2].location.contains("/corpus/b-"), "{:?}", manifest.files[2]);

    let before = files_below(scene.folder.path());
    let (again, converted) = conversion(&scene).apply(&sources, |_, _| ()).await.unwrap();
    assert_eq!((again, converted.known), (first.clone(), 2));
    assert_eq!(files_below(scene.folder.path()), before);

    // A folder stands for its archives; what img2dataset writes beside each is no corpus.
    scene.write("web/a.parquet", "a table without pictures");
    let (folder, _) = conversion(&scene).apply(&corpus(&[scene.path("web")]), |_, _| ()).await.unwrap();
    assert_eq!(folder[0].files, first[0].files[1..]);

    // Another archive under the same name is another corpus; the one beside it stays.
    scene.write("web/a.tar", good_archive(5));
    let (other, converted) = conversion(&scene).apply(&sources, |_, _| ()).await.unwrap();
    assert_eq!((converted.known, converted.rows), (1, 9));
    assert_eq!(other[0].files[2], first[0].files[2]);
    let plain = corpus(&[scene.path("out/part-*.parquet")]);
    let (same, nothing) = conversion(&scene).apply(&plain, |_, _| panic!("nothing to tell")).await.unwrap();
    assert_eq!((same, nothing), (plain, Converted::default()));
}

#[tokio::test]
async fn archives_that_cannot_be_trained_on_are_refused() {
    let scene = Scene::new();
    let refused = async |files: &[String]| {
        let error = conversion(&scene).apply(&corpus(files), |_, _| ()).await.unwrap_err();
        assert!(error.is_bad_input(), "{error}");
        error.to_string()
    };
    let cut = scene.write("cut.tar", &good_archive(3)[..4696]);
    let error = refused(std::slice::from_ref(&cut)).await;
    assert!(
        error.contains("cut.tar") && error.contains("byte 4696") && error.contains("/corpus/cut-"),
        "{error}"
    );
    let members: Vec<_> = ["1.jpg", "2.jpg", "3.jpg"].iter().map(|name| (*name, jpeg(1))).collect();
    let some = [members, vec![("3.txt", b"three".to_vec())]].concat();
    let error = refused(&[scene.write("some.tar", archive(&some))]).await;
    assert!(error.contains("max_quarantined_share") && error.contains("2 no-caption"), "{error}");
    assert!(refused(&[scene.path("none.tar")]).await.contains("none.tar"));
    let error = Manifest::open(&[cut], &ColumnNames::default()).await.unwrap_err().to_string();
    assert!(error.contains("corpus ingest --from webdataset --source"), "{error}");
}
