//! `corpus ingest` as a process: killed at any moment and run again, verified, looked at.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use blip2_tests::corpus::{Row, good_rows, truncated_picture, write};
use blip2_tests::process::{blip2, finish, signal, start};

/// Runs that are killed at most.
const KILLS: u32 = 12;

struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    /// A source of some thousand rows, a few of them bad.
    fn new() -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap() };
        let mut rows: Vec<Row> = (0..40).flat_map(|_| good_rows(50)).collect();
        rows[17].image = truncated_picture();
        rows[900].caption = "\0".to_owned();
        for source in ["a", "b"] {
            write(Path::new(&scene.path(&format!("{source}.parquet"))), "jpg", &rows);
        }
        scene
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn command(&self, out: &str) -> std::process::Command {
        blip2(&[
            "corpus",
            "ingest",
            "--from",
            "img2dataset",
            "--source",
            &self.path("*.parquet"),
            "--out",
            &self.path(out),
            "--file-mib",
            "1",
            "--row-groups",
            "4",
            "--json",
        ])
    }

    /// Everything below a folder, without what a killed process was just writing.
    fn files(&self, out: &str) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        let root = self.folder.path().join(out);
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                if path.is_dir() {
                    folders.push(path);
                } else if !name.contains('#') {
                    found.insert(name, std::fs::read(path).unwrap());
                }
            }
        }
        found
    }
}

#[test]
fn a_killed_ingestion_goes_on_to_the_same_bytes() {
    let scene = Scene::new();
    let whole = finish(scene.command("whole")).expect(0);
    let summary = whole.json_lines().pop().unwrap();
    assert_eq!(summary["rows"], 3996);
    assert_eq!(summary["rejected"]["undecodable"], 2);
    assert_eq!(summary["rejected"]["no-caption"], 2);
    let mut killed = 0;
    for attempt in 0..KILLS {
        let running = start(scene.command("killed"));
        std::thread::sleep(Duration::from_millis(30 + 45 * u64::from(attempt)));
        signal(running.id(), "KILL");
        killed += u32::from(running.wait().code.is_none());
    }
    assert!(killed > 0, "no run was killed in time");
    finish(scene.command("killed")).expect(0);
    assert_eq!(scene.files("killed"), scene.files("whole"));
    finish(blip2(&["corpus", "verify", &scene.path("killed")])).expect(0).says(&["all in order"]);
}

#[test]
fn a_corpus_is_verified_and_looked_at() {
    let scene = Scene::new();
    finish(scene.command("out")).expect(0);
    let sheet = scene.path("sheet.html");
    let parts = scene.path("out/part-*.parquet");
    let seen =
        finish(blip2(&["corpus", "inspect", &parts, "--out", &sheet, "--pictures", "9", "--json"])).expect(0);
    assert_eq!(seen.json_lines().pop().unwrap()["rows"], 3996);
    assert!(std::fs::read_to_string(&sheet).unwrap().matches("<figure>").count() >= 5);

    let source = scene.path("a.parquet");
    let bad = finish(blip2(&["corpus", "verify", &source, "--json"])).expect(3);
    let counts = bad.json_lines().pop().unwrap()["counts"].clone();
    assert_eq!(counts["undecodable"], 1);
    assert_eq!(counts["no-caption"], 1);
    finish(blip2(&["corpus", "verify", "--quick", &source])).expect(0);

    let out = scene.path("x");
    let other = ["corpus", "ingest", "--from", "coco", "--source", source.as_str(), "--out", out.as_str()];
    finish(blip2(&other)).expect(3).says(&["--images"]);
}

#[test]
fn pictures_with_texts_and_a_table_become_a_corpus() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(place("p")).unwrap();
    let mut table = "image,caption\r\n".to_owned();
    for (number, row) in good_rows(5).iter().enumerate() {
        std::fs::write(place(&format!("p/a b#{number}%.jpg")), &row.image).unwrap();
        std::fs::write(place(&format!("p/a b#{number}%.txt")), &row.caption).unwrap();
        table += &format!("a b#{number}%.jpg,\"{},\nand more\"\r\n", row.caption);
    }
    std::fs::write(place("list.csv"), &table).unwrap();
    let ingest = |arguments: &[&str]| {
        let mut command = blip2(&["corpus", "ingest", "--json"]);
        command.args(arguments);
        finish(command)
    };
    let (list, pictures, out) = (place("list.csv"), place("p"), place("two"));
    let (one, three) = (place("one"), place("three"));
    let from_folder = ingest(&["--from", "folder", "--source", &pictures, "--out", &one]).expect(0);
    assert_eq!(from_folder.json_lines().pop().unwrap()["rows"], 5);
    let from_table =
        ingest(&["--from", "csv", "--source", &list, "--images", &pictures, "--out", &out]).expect(0);
    assert_eq!(from_table.json_lines().pop().unwrap()["rows"], 5);
    finish(blip2(&["corpus", "verify", &out])).expect(0).says(&["all in order"]);
    // Beside the list there are no pictures, so nothing is kept.
    let nothing = ingest(&["--from", "csv", "--source", &list, "--out", &three]).expect(3);
    nothing.says(&["list.csv", "5 missing-picture", "nothing was written"]);
}
