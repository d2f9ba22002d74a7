//! Bad input of every kind: one clear error with its exit code, nothing half-written, no hang.

use std::path::Path;
use std::process::Command;

use blip2_tests::corpus::{
    Row, enormous_picture, good_rows, odd_pictures, truncated_picture, write, write_downloads,
};
use blip2_tests::process::{binary, blip2, finish, isolate, repository};
use blip2_tests::run::SmallRun;

/// Few steps: whether it runs at all is what is asked.
const SHORT: [&str; 6] = ["--workers", "1", "--set", "stage1.steps=2", "--set", "stage2.steps=2"];

fn corpus(rows: &[Row]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("corpus.parquet");
    write(&path, "jpg", rows);
    let name = path.to_str().unwrap().to_owned();
    (folder, name)
}

fn nothing_written(root: &Path) {
    assert!(!root.join("run.toml").is_file(), "no run is left behind");
}

#[test]
fn a_corpus_that_is_not_there_or_not_parquet() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let run = SmallRun::on(&[place("none.parquet")]);
    run.train(&SHORT).expect(3).says(&["none.parquet"]);
    nothing_written(&run.root());

    let run = SmallRun::on(&[place("*.parquet")]);
    run.train(&SHORT).expect(3).says(&["*.parquet"]);

    std::fs::write(place("text.parquet"), "this is no Parquet file").unwrap();
    SmallRun::on(&[place("text.parquet")]).train(&SHORT).expect(3).says(&["text.parquet"]);

    write(Path::new(&place("empty.parquet")), "jpg", &[]);
    SmallRun::on(&[place("empty.parquet")]).train(&SHORT).expect(3).says(&["empty.parquet"]);

    write(Path::new(&place("other.parquet")), "picture_data", &good_rows(4));
    SmallRun::on(&[place("other.parquet")]).train(&SHORT).expect(3).says(&["other.parquet", "picture_data"]);
    let run = SmallRun::on(&[place("other.parquet")]);
    let trained = run.train(&[&SHORT[..], &["--set", "data.columns.image=picture_data"]].concat()).expect(0);
    trained.says(&["4 rows, fewer than a batch of stage 1", "stage1.batch"]);
}

/// img2dataset's own output: failed downloads are rows without a picture, and the recorded hash is that of
/// the download.
#[test]
fn failed_downloads_and_foreign_hashes_are_trained_on_and_audited() {
    let rows = good_rows(40);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00000.parquet");
    write_downloads(&path, &rows, |row| row % 4 == 1);
    let run = SmallRun::on(&[path.to_str().unwrap().to_owned()]);
    let steps = ["--workers", "2", "--set", "stage1.steps=5", "--set", "stage2.steps=2"];
    let trained = run.train(&[&steps[..], &["--json"]].concat()).expect(0);
    trained.says(&["10 rows of the corpus were not downloaded", "30 were"]);
    assert!(!run.root().join("quarantine.parquet").is_file(), "a failed download is no bad row");
    let root = run.root().to_str().unwrap().to_owned();
    let audited = finish(blip2(&["audit", &root, "--json"])).expect(0);
    let report = audited.json_lines().pop().unwrap();
    assert_eq!(
        (&report["exact"], &report["not_downloaded"], &report["stages"][0]["rows"]),
        (&true.into(), &10.into(), &30.into())
    );
    let shown = finish(blip2(&["audit", &root])).expect(0).stdout;
    assert!(shown.contains("10 rows were not downloaded"), "{shown}");
    let verified = finish(blip2(&["corpus", "verify", path.to_str().unwrap()])).expect(0);
    verified.says(&["10 were not downloaded"]);
}

/// Folders and patterns stand for the files they name; what is missing among them is said.
#[test]
fn corpora_are_named_by_folder_pattern_and_braces() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("a b/100%")).unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for shard in ["a b/100%/t-00.parquet", "a b/100%/t-01.parquet"] {
        write(Path::new(&place(shard)), "jpg", &good_rows(8));
    }
    let short = ["--workers", "1", "--set", "stage1.steps=1", "--set", "stage2.steps=0"];
    for named in ["a b", "a b/100%", "**/*.parquet", "a b/*/t-0[01].parquet", "a b/100%/t-{00..01}.parquet"] {
        let run = SmallRun::on(&[place(named)]);
        run.train(&short).expect(0);
        let root = run.root().to_str().unwrap().to_owned();
        let audited = finish(blip2(&["audit", &root, "--json"])).expect(0).json_lines().pop().unwrap();
        assert_eq!(audited["stages"][0]["rows"], 16, "{named}");
    }
    SmallRun::on(&[place("a b/100%/t-{00..02}.parquet")]).train(&short).expect(3).says(&["t-02.parquet"]);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(place("gone"), place("a b/100%/t-03.parquet")).unwrap();
        SmallRun::on(&[place("a b/100%/*.parquet")]).train(&short).expect(3).says(&["t-03.parquet", "gone"]);
    }
}

#[test]
fn odd_pictures_and_captions_are_trained_on() {
    let mut rows = good_rows(16);
    rows.extend(odd_pictures().into_iter().map(|(name, image)| Row { image, caption: name.to_owned() }));
    rows[0].caption = "word ".repeat(10_000);
    rows[1].caption = "🦊🐸🎉".to_owned();
    let (_folder, path) = corpus(&rows);
    let run = SmallRun::on(&[path]);
    // 24 rows, 32 samples a stage: every row is used.
    let long = ["--workers", "1", "--set", "stage1.steps=4", "--set", "stage2.steps=4", "--json"];
    run.train(&[&long[..], &["--set", "data.max_quarantined_share=0.1"]].concat()).expect(0);
}

#[test]
fn unusable_rows_are_replaced_until_there_are_too_many() {
    let mut rows = good_rows(64);
    rows[5].image = truncated_picture();
    rows[17].image = enormous_picture();
    rows[30].caption = String::new();
    let (_folder, path) = corpus(&rows);
    let steps = ["--workers", "1", "--set", "stage1.steps=8", "--set", "stage2.steps=8"];
    let run = SmallRun::on(std::slice::from_ref(&path));
    run.train(&[&steps[..], &["--set", "data.max_quarantined_share=0.2"]].concat()).expect(0);
    assert!(run.root().join("quarantine.parquet").is_file());

    let mut bad = good_rows(64);
    for row in bad.iter_mut().step_by(2) {
        row.image = truncated_picture();
    }
    let (_folder, path) = corpus(&bad);
    let run = SmallRun::on(&[path]);
    run.train(&["--workers", "2"]).expect(3).says(&["corpus.parquet"]);
}

#[test]
fn a_wrong_configuration_names_its_key() {
    let run = SmallRun::new();
    let with = |set: &str| run.train(&["--set", set]).expect(78);
    with("stage1.stepz=1").says(&["stage1.stepz", "stage1.steps"]);
    with("stage1.steps=many").says(&["stage1.steps", "integer"]);
    with("train.slots=3").says(&["train.slots"]);
    with("stage1.batch=6").says(&["stage1.batch"]);
    with("run.root=").says(&["run.root"]);
    run.train(&["--workers", "8"]).expect(78).says(&["coordinator.workers", "4 slots"]);
    finish(blip2(&["train", "--config", "no-such-file.toml"])).expect(78).says(&["no-such-file.toml"]);
    finish(blip2(&["train", "--nonsense"])).expect(2);
    nothing_written(&run.root());
}

#[test]
fn a_language_model_of_another_kind_is_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let asset = |key: &str, path: &str| format!("{key}=\"{}/assets/{path}\"", repository().display());
    let values = [
        format!("run.root={}", folder.path().join("run").display()),
        asset("model.image_encoder", "backbones/eva-tiny"),
        asset("model.language_model", "backbones/bert-tiny"),
        format!("data.train=[\"{}/assets/corpus/test-00000.parquet\"]", repository().display()),
    ];
    for preset in ["pretrain-stage2-vit-g-flan-t5-xl", "pretrain-stage2-vit-g-opt-2.7b"] {
        let mut command = blip2(&["train", "--config", &format!("configs/{preset}.toml")]);
        for value in &values {
            command.args(["--set", value]);
        }
        finish(command).expect(78).says(&["model.language_model", "`bert`", "opt, t5 and llama"]);
    }
}

#[test]
fn a_full_disk_at_a_checkpoint_is_an_error_and_leaves_no_checkpoint() {
    let run = SmallRun::new();
    // The limit on a file's size stands in for the full disk; the signal that goes with it is ignored.
    let mut command = Command::new("sh");
    command.current_dir(repository()).args(["-c", "trap '' XFSZ; ulimit -f 1000; exec \"$0\" \"$@\""]);
    command.arg(binary()).args(["train", "--workers", "2", "--config", run.config()]);
    isolate(&mut command);
    finish(command).expect(1).says(&["part-"]);
    let checkpoints = run.root().join("checkpoints");
    let committed = std::fs::read_dir(&checkpoints).into_iter().flatten().flatten();
    assert_eq!(committed.filter(|entry| entry.path().join("COMMIT").is_file()).count(), 0);
    run.train(&["--workers", "2", "--resume"]).expect(0);
}
