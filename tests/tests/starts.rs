//! Starts that fail, stops that come twice, ends that are asked for again: nothing is lost and nothing blocks
//! the cure.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use blip2_tests::cluster::Cluster;
use blip2_tests::corpus::{good_rows, truncated_picture, write};
use blip2_tests::process::{Ended, binary, blip2, finish, isolate, poll, repository, signal, start};
use blip2_tests::run::SmallRun;

/// The command that a message tells to continue with.
#[track_caller]
fn hint(ended: &Ended) -> String {
    let quoted = ended.stderr.lines().rev().find_map(|line| line.split('`').nth(1));
    quoted.unwrap_or_else(|| panic!("no command in:\n{}", ended.stderr)).to_owned()
}

/// Types a command into a shell.
fn typed(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(repository());
    isolate(&mut command);
    command
}

#[track_caller]
fn nothing_written(run: &SmallRun) {
    for name in ["run.toml", "manifest.parquet", "epochs", "logs"] {
        assert!(!run.root().join(name).exists(), "{name} is left behind");
    }
}

/// An image encoder whose weights do not fit its sizes.
fn broken_encoder(folder: &Path) -> String {
    let encoder = folder.join("encoder");
    std::fs::create_dir(&encoder).unwrap();
    for file in std::fs::read_dir(repository().join("assets/backbones/eva-tiny")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), encoder.join(file.file_name())).unwrap();
    }
    let config = encoder.join("config.json");
    let mut sizes: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    let mut widen = |key: &str| {
        let Some(size) = sizes.pointer_mut(key).filter(|size| size.is_u64()) else { return };
        *size = (2 * size.as_u64().unwrap()).into();
    };
    ["/intermediate_size", "/vision_config/intermediate_size"].into_iter().for_each(&mut widen);
    std::fs::write(config, sizes.to_string()).unwrap();
    encoder.to_str().unwrap().to_owned()
}

#[test]
fn what_cannot_begin_says_so_once_and_leaves_no_run() {
    let run = SmallRun::short("");
    let said_once = |ended: Ended, part: &str| {
        assert_eq!(ended.stderr.matches(part).count(), 1, "{}", ended.stderr);
        assert!(!ended.stderr.contains("worker-"), "no worker was started: {}", ended.stderr);
        nothing_written(&run);
    };
    let with = |set: &str| run.train(&["--workers", "2", "--set", set]);
    said_once(with("train.device=cuda:99").expect(78), "train.device");
    said_once(with("model.qformer_tokenizer=tests").expect(78), "tokenizer.json");
    let encoder = format!("model.image_encoder={}", broken_encoder(run.scratch()));
    said_once(with(&encoder).expect(78), "has shape");

    let mut rows = good_rows(8);
    rows.iter_mut().for_each(|row| row.image = truncated_picture());
    let corpus = run.scratch().join("corpus.parquet");
    write(&corpus, "jpg", &rows);
    said_once(with(&format!("data.train=[\"{}\"]", corpus.display())).expect(3), "corpus.parquet");
    let coordinator = ["coordinator", "--config", run.config(), "--listen", "127.0.0.1:0", "--set", &encoder];
    said_once(finish(blip2(&coordinator)).expect(78), "has shape");

    run.train(&["--workers", "1"]).expect(0);
}

#[test]
fn a_run_that_committed_no_step_gives_way_and_one_that_is_led_does_not() {
    let run = SmallRun::short("[coordinator]\nworkers = 1\n");
    let cluster = Cluster::new(&run);
    let first = cluster.coordinator(&[], None);
    let config = run.config();
    let second = ["coordinator", "--config", config, "--listen", "127.0.0.1:0"];
    let address = first.url.trim_start_matches("http://");
    // It listens before it leads.
    poll(|| (run.epoch() > 0).then_some(())).expect("it leads");
    finish(blip2(&second)).expect(4).says(&["already holds a run", address]);
    signal(first.process.id(), "TERM");
    let stopped = first.process.wait().expect(1).says(&["before anything could be saved"]);

    // The same again, killed.
    let again = start(typed(&format!("exec {}", hint(&stopped))));
    poll(|| again.stdout().contains("listening").then_some(())).expect("it listens");
    drop(again);
    // Another configuration.
    run.train(&["--set", "train.seed=5"]).expect(0);
    let refused = run.train(&[]).expect(4).says(&["already holds a run", "run.root"]);
    assert!(hint(&refused).contains("train") && hint(&refused).ends_with("--resume"), "{}", refused.stderr);
    cluster.audit().expect(0);
}

#[test]
fn signals_that_come_together_are_one_and_what_is_said_continues_the_run() {
    for signals in [["TERM", "TERM"], ["INT", "HUP"]] {
        let run = SmallRun::new();
        let training = run.start(&["--workers", "2"]);
        run.wait_for_step(3);
        for name in signals {
            signal(training.id(), name);
            std::thread::sleep(Duration::from_millis(30));
        }
        let stopped = training.wait().expect(5).says(&["stopped after checkpoint", "--resume`"]);
        let (_, step) = run.digest();
        assert!(step >= 3, "{step}");
        finish(typed(&hint(&stopped))).expect(0).says(&["continuing from checkpoint"]);
        assert_eq!(run.digest().1, 40);

        // A run that is done is done at once: nobody is started, nothing is written.
        let epoch = run.epoch();
        let done = finish(typed(&hint(&stopped))).expect(0).says(&["is done already"]);
        assert!(!done.stdout.contains("{"), "{}", done.stdout);
        assert_eq!(run.epoch(), epoch);
    }
}

#[test]
fn a_second_signal_later_ends_at_once() {
    let run = SmallRun::new();
    let mut command = blip2(&["train", "--workers", "1", "--config", run.config()]);
    // The checkpoint takes longer than anybody waits.
    command.env("BLIP2_DRILL", "checkpoint@4:600000");
    let training = start(command);
    run.wait_for_step(3);
    signal(training.id(), "TERM");
    std::thread::sleep(Duration::from_millis(2200));
    signal(training.id(), "TERM");
    match training.wait_within(Duration::from_secs(60)) {
        // It may have stopped at another step than the one that waits.
        Ok(ended) => assert!(matches!(ended.code, Some(1 | 5)), "{}", ended.stderr),
        Err(still) => panic!("{}", still.stderr()),
    }
}

#[test]
fn a_reader_that_goes_away_ends_no_run() {
    let run = SmallRun::short("");
    for (stream, more) in [("stdout", &["--json"][..]), ("stderr", &["--resume"])] {
        let mut command = blip2(&[&["train", "--workers", "1", "--config", run.config()], more].concat());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut training = command.spawn().unwrap();
        let (out, err) = (training.stdout.take().unwrap(), training.stderr.take().unwrap());
        let mut line = String::new();
        let kept: Box<dyn std::io::Read> = if stream == "stdout" {
            BufReader::new(out).read_line(&mut line).unwrap();
            Box::new(err)
        } else {
            BufReader::new(err).read_line(&mut line).unwrap();
            Box::new(out)
        };
        assert!(!line.is_empty());
        let mut rest = String::new();
        BufReader::new(kept).read_to_string(&mut rest).unwrap();
        assert!(training.wait().unwrap().success(), "{stream}: {rest}");
        assert!(!rest.contains("panicked"), "{rest}");
    }
    assert_eq!(run.digest().1, 12);
    let root = run.root();
    // Commands that only show something end without a word.
    let show = format!("'{}' checkpoint ls '{}' --json | true", binary().display(), root.display());
    let shown = finish(typed(&show)).expect(0);
    assert_eq!(shown.stderr, "");
}

#[test]
fn what_a_crash_left_of_the_newest_epoch_is_passed_over_and_deleted_commits_are_missed() {
    let run = SmallRun::short("");
    let training = run.start(&["--workers", "1"]);
    run.wait_for_step(4);
    signal(training.id(), "TERM");
    training.wait().expect(5);
    let torn = run.root().join(format!("epochs/{:010}.json", run.epoch() + 1));
    std::fs::write(torn, "").unwrap();
    run.train(&["--workers", "1", "--resume"]).expect(0);

    let checkpoints = std::fs::read_dir(run.root().join("checkpoints")).unwrap();
    for folder in checkpoints.flatten() {
        // One that was stopped on the way has none.
        let _ = std::fs::remove_file(folder.path().join("COMMIT"));
    }
    let refused = run.train(&["--workers", "1", "--resume"]).expect(1).says(&["COMMIT", "step 0"]);
    assert!(!refused.stderr.contains("panicked"));
    run.train(&["--workers", "1"]).expect(4);
}

/// A folder with the models and, if asked for, the corpus.
fn elsewhere(run: &SmallRun, name: &str, parts: &[&str]) -> std::path::PathBuf {
    let folder = run.scratch().join(name);
    std::fs::create_dir_all(folder.join("assets")).unwrap();
    for part in parts {
        std::os::unix::fs::symlink(repository().join("assets").join(part), folder.join("assets").join(part))
            .unwrap();
    }
    folder
}

#[test]
fn workers_without_models_or_corpus_are_turned_out_and_the_run_goes_on() {
    // Long enough for a worker to join while it goes.
    let run = SmallRun::of(60, "[coordinator]\nworkers = 2\n");
    let cluster = Cluster::new(&run);
    // A path that each process finds below its own folder, as mounts differ between machines.
    let corpus = "data.train=[\"/proc/self/cwd/assets/corpus/test-00000.parquet\"]";
    let leader = cluster.coordinator(&["--set", corpus], None);
    let token = run.scratch().join("token");
    let worker = |name: &str, folder: &Path| {
        let mut command = blip2(&["worker", "--threads", "1", "--name", name, "--coordinator", &leader.url]);
        command.arg("--token-file").arg(&token).current_dir(folder);
        command
    };
    let empty = elsewhere(&run, "empty", &[]);
    let models = elsewhere(&run, "models", &["backbones"]);
    finish(worker("no-models", &empty)).expect(4).says(&["model.image_encoder", "no such folder"]);
    finish(worker("no-corpus", &models)).expect(4).says(&["test-00000.parquet"]);
    let healthy = ["a", "b"].map(|name| start(worker(name, &repository())));
    // A joiner of a run that is well.
    run.wait_for_step(1);
    finish(worker("late", &models)).expect(4).says(&["test-00000.parquet"]);
    for worker in healthy {
        worker.wait().expect(0);
    }
    let ended = leader.process.wait().expect(0);
    let lines = ended.json_lines();
    let faults = |part: &str| lines.iter().any(|line| line["faults"].to_string().contains(part));
    assert!(faults("no-models") && faults("no such folder"), "{}", ended.stdout);
    assert_eq!(run.digest().1, 120);
    cluster.audit().expect(0);
}

#[test]
fn a_quick_start_is_continued() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("quickstart");
    let mut command = blip2(&["quickstart", "--corpus", "emoji", "--out", out.to_str().unwrap()]);
    for value in
        ["stage1.steps=400", "stage2.steps=2", "stage1.batch=16", "stage2.batch=16", "eval.captions=2"]
    {
        command.args(["--set", value]);
    }
    let started = start(command);
    let metrics = out.join("run/metrics.jsonl");
    poll(|| std::fs::metadata(&metrics).ok().filter(|file| file.len() > 0)).expect("a step is committed");
    signal(started.id(), "INT");
    let stopped = started.wait().expect(5).says(&["quickstart"]);
    let line = hint(&stopped);
    assert!(line.contains(" quickstart ") && line.ends_with("--resume"), "{line}");
    let parsed = finish(typed(&format!("{} --help", line.trim_end_matches("--resume"))));
    parsed.expect(0);
    let again = finish(typed(&line.replace(" --resume", "")));
    again.expect(4).says(&["--out", "--resume`"]);
}
