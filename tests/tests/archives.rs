//! WebDataset archives where a corpus is named: trained on, ingested, looked at; and those that are cut.

use std::io::Write;
use std::path::{Path, PathBuf};

use blip2_tests::corpus::good_rows;
use blip2_tests::process::{blip2, finish};
use blip2_tests::run::SmallRun;

/// Whether it trains is what is asked.
const SHORT: [&str; 6] = ["--workers", "1", "--set", "stage1.steps=2", "--set", "stage2.steps=1"];

/// An archive of so many rows.
fn archive(rows: usize) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (number, row) in good_rows(rows).into_iter().enumerate() {
        for (extension, content) in [("jpg", row.image), ("txt", row.caption.into_bytes())] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, format!("{number:04}.{extension}"), content.as_slice()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn text(path: PathBuf) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_run_trains_on_archives_and_converts_them_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.tar"), archive(16)).unwrap();
    std::fs::write(folder.path().join("b.tar.gz"), gzip(&archive(17))).unwrap();
    let run = SmallRun::on(&[text(folder.path().join("*.tar*"))]);
    let converted = text(run.root().join("corpus"));
    run.train(&SHORT).expect(0).says(&[
        "each of 2 is converted once",
        &converted,
        "33 rows of 33 in 2 archives",
    ]);
}

#[test]
fn an_archive_that_is_cut_ends_the_start_with_the_byte_and_its_mend_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("a.tar");
    let whole = archive(16);
    let half = whole.len() / 2 + 7;
    std::fs::write(&place, &whole[..half]).unwrap();
    let run = SmallRun::on(&[text(place.clone())]);
    run.train(&SHORT).expect(3).says(&["a.tar", &format!("byte {half}")]);
    assert!(!run.root().join("run.toml").is_file(), "no run is left behind");
    std::fs::write(&place, whole).unwrap();
    run.train(&SHORT).expect(0);
}

#[test]
fn other_commands_name_what_converts_an_archive() {
    let folder = tempfile::tempdir().unwrap();
    let place = text(folder.path().join("a.tar"));
    std::fs::write(&place, archive(4)).unwrap();
    let sheet = text(folder.path().join("sheet.html"));
    finish(blip2(&["corpus", "inspect", &place, "--out", &sheet]))
        .expect(3)
        .says(&["a.tar", "blip2 corpus ingest --from webdataset --source"]);

    let ingest = |source: &str, out: &str| {
        let out = text(folder.path().join(out));
        finish(blip2(&["corpus", "ingest", "--from", "webdataset", "--source", source, "--out", &out]))
    };
    ingest(&place, "whole").expect(0).says(&["4 rows of 4"]);
    assert!(!Path::new(&sheet).exists());
    let cut = text(folder.path().join("cut.tar"));
    std::fs::write(&cut, &archive(4)[..3000]).unwrap();
    ingest(&text(folder.path().join("*.tar")), "some").expect(3).says(&["cut.tar", "byte 3000", "unit 2/2"]);
}
