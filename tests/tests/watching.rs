//! Watching a run: its address, its status by coordinator and by store, held-out numbers, the report, what is
//! left of workers that failed.

use std::collections::BTreeMap;

use blip2_tests::process::{Running, blip2, children, finish, poll, repository, signal, start};
use blip2_tests::run::{SHORT_STEPS, SmallRun};
use serde_json::Value;

const STEPS: u64 = 2 * SHORT_STEPS;

fn root(run: &SmallRun) -> String {
    run.root().to_str().expect("temporary folders have UTF-8 names").to_owned()
}

/// A run with evaluation every four steps on 40 held-out rows, which are three units.
fn evaluated() -> SmallRun {
    let data = format!("{}/assets/corpus/test-*.parquet", repository().display());
    SmallRun::short(&format!("[eval]\nevery_steps = 4\nrows = 40\ndata = [\"{data}\"]\n"))
}

fn metrics(run: &SmallRun) -> Vec<Value> {
    let text = std::fs::read_to_string(run.root().join("metrics.jsonl")).expect("the run has metrics");
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

/// What was measured on held-out rows, by step.
fn held_out(run: &SmallRun) -> BTreeMap<u64, Vec<(String, u64)>> {
    let values = |line: &Value| -> Vec<(String, u64)> {
        let all = line["values"].as_object().expect("values").iter();
        let held_out = all.filter(|(name, _)| name.starts_with("eval_"));
        held_out.map(|(name, value)| (name.clone(), value.as_f64().expect("finite").to_bits())).collect()
    };
    let lines = metrics(run);
    let by_step = lines.iter().map(|line| (line["step"].as_u64().expect("a step"), values(line)));
    by_step.filter(|(_, values): &(u64, Vec<_>)| !values.is_empty()).collect()
}

#[test]
fn evaluation_changes_no_bit_and_is_the_same_at_any_number_of_workers() {
    let plain = SmallRun::short("");
    plain.train(&["--workers", "1"]).expect(0);
    let runs = ["1", "2"].map(|workers| {
        let run = evaluated();
        run.train(&["--workers", workers]).expect(0);
        assert_eq!(run.digest(), plain.digest(), "{workers} workers");
        run
    });
    let measured = held_out(&runs[0]);
    // Every four steps, and at the end of each stage.
    assert_eq!(measured.keys().copied().collect::<Vec<_>>(), [3, 5, 7, 11]);
    assert_eq!(measured, held_out(&runs[1]));
    let names = |step: u64| -> Vec<&str> { measured[&step].iter().map(|(name, _)| name.as_str()).collect() };
    for name in
        ["eval_loss", "eval_loss_itm", "eval_image_to_text_r@1", "eval_text_to_image_r@10", "eval_rows"]
    {
        assert!(names(5).contains(&name), "{name} in {:?}", names(5));
    }
    assert_eq!(names(11), ["eval_loss", "eval_rows"]);

    let status = finish(blip2(&["status", &root(&runs[1]), "--json"])).expect(0).json_lines().remove(0);
    assert_eq!(status["held_out_step"], STEPS, "{status}");
    assert!(status["held_out"]["eval_loss"].is_number() && status["values"]["loss"].is_number(), "{status}");

    for (step, line) in metrics(&runs[1]).iter().enumerate() {
        assert!(line["values"]["learning_rate"].as_f64().is_some_and(|rate| rate > 0.0), "{line}");
        assert_eq!(line["samples_seen"], 8 * (step as u64 + 1), "{line}");
    }

    let page = runs[1].scratch().join("page.html");
    let out = page.to_str().unwrap();
    let ended = finish(blip2(&["report", &root(&runs[1]), "--out", out, "--json"])).expect(0);
    assert_eq!(ended.json_lines()[0]["exact"], true);
    let html = std::fs::read_to_string(&page).unwrap();
    for part in ["curves", "audit", "faults", "membership", "checkpoints", "configuration"] {
        assert!(html.contains(&format!("<section id=\"{part}\">")), "no {part}");
    }
    for part in ["losses on held-out rows", "learning rate", "Throughput", "stage1.batch", "the run is done"]
    {
        assert!(html.contains(part), "no `{part}`");
    }
    finish(blip2(&["report", &root(&plain)])).expect(0);
    assert!(plain.root().join("report.html").is_file());

    // As of a run in an object store, whose metrics are on the coordinator's host.
    assert!(!html.contains("One point a checkpoint") && html.contains("Faint: every step"));
    std::fs::remove_file(runs[1].root().join("metrics.jsonl")).unwrap();
    finish(blip2(&["report", &root(&runs[1]), "--out", out])).expect(0);
    let html = std::fs::read_to_string(&page).unwrap();
    for part in
        ["Stage 1: losses", "Stage 2: losses", "learning rate", "One point a checkpoint", "metrics.jsonl"]
    {
        assert!(html.contains(part), "no `{part}`");
    }
    assert!(!html.contains("Throughput") && !html.contains("Samples seen"), "nothing is made up");
}

#[test]
fn held_out_rows_that_cannot_be_read_end_nothing() {
    let unnamed = SmallRun::short("[eval]\nevery_steps = 4\n");
    unnamed.train(&["--workers", "1"]).expect(78).says(&["eval.data"]);
    let nowhere = SmallRun::short("[eval]\nevery_steps = 4\ndata = [\"no/such.parquet\"]\n");
    nowhere.train(&["--workers", "1"]).expect(3).says(&["eval.data", "no/such.parquet"]);
    assert!(!nowhere.root().join("run.toml").exists(), "nothing is pinned");

    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.parquet");
    std::fs::copy(repository().join("assets/corpus/test-00000.parquet"), &rows).unwrap();
    let run = SmallRun::short(&format!("[eval]\nevery_steps = 4\ndata = [{rows:?}]\n"));
    let running = waiting(&run, "forward@1:2500", &[]);
    run.wait_for_step(1);
    std::fs::remove_file(&rows).unwrap();
    running.wait().expect(0).says(&["could not evaluate the held-out rows"]);
    assert_eq!(run.digest().1, STEPS);
    for (step, values) in held_out(&run) {
        assert_eq!(values, [("eval_failures".to_owned(), 1f64.to_bits())], "step {step}");
    }
    assert_eq!(held_out(&run).len(), 4);
}

/// Asks for the status of the run until it satisfies `wanted`.
fn status_when(run: &SmallRun, wanted: impl Fn(&Value) -> bool) -> Value {
    let status = poll(|| {
        let ended = finish(blip2(&["status", &root(run), "--json"]));
        ended.json_lines().pop().filter(|status| ended.code == Some(0) && wanted(status))
    });
    status.expect("the status comes")
}

/// Starts `train` with one worker that waits as its drill says.
fn waiting(run: &SmallRun, drill: &str, arguments: &[&str]) -> Running {
    let mut command = blip2(&[&["train", "--config", run.config(), "--workers", "1"], arguments].concat());
    command.env("BLIP2_DRILL", drill);
    start(command)
}

/// The same, for ten seconds in the fifth step.
fn slow(run: &SmallRun, arguments: &[&str]) -> Running {
    waiting(run, "forward@4:10000", arguments)
}

#[test]
fn a_run_is_found_by_its_folder_while_it_lasts_and_after() {
    let run = SmallRun::short("");
    let running = slow(&run, &["--json"]);
    run.wait_for_step(4);
    let line: Value = serde_json::from_str(running.stdout().lines().next().unwrap()).unwrap();
    let address = line["coordinator"].as_str().expect("train says where it is reached").to_owned();
    let status = status_when(&run, |status| status["step"] == 4);
    assert_eq!(status["state"], "running", "{status}");
    assert_eq!(status["samples_seen"], 32, "{status}");
    let token = run.root().join("logs/token");
    let watch = |arguments: &[&str]| start(blip2(&[&["status", "--watch"], arguments].concat()));
    let by_folder = watch(&[&root(&run)]);
    let by_address = watch(&[&address, "--token-file", token.to_str().unwrap()]);
    finish(blip2(&["status", &address])).expect(4).says(&["--token-file"]);
    running.wait().expect(0);
    for watching in [by_folder, by_address] {
        let ended = watching.wait().expect(0);
        let last = ended.stdout.lines().last().unwrap_or_default().to_owned();
        assert!(last.starts_with(&format!("the run is done: {STEPS} steps")), "{}", ended.stdout);
        assert!(ended.stdout.contains("step 4/12") && !ended.stdout.contains("step 4.0"), "{}", ended.stdout);
    }
    let status = status_when(&run, |status| status["state"] == "done");
    assert_eq!((status["step"].as_u64(), status["total_steps"].as_u64()), (Some(STEPS), Some(STEPS)));
    assert!(!run.root().join("logs/token").exists(), "the token goes with its process");
    finish(blip2(&["status", "no/such/run"])).expect(1).says(&["is not a run"]);
}

#[test]
fn a_run_that_nobody_leads_any_more_is_told_by_its_store() {
    let run = SmallRun::short("");
    let running = slow(&run, &[]);
    run.wait_for_step(4);
    assert!(running.stderr().contains("coordinator at http://127.0.0.1:"), "{}", running.stderr());
    signal(running.id(), "KILL");
    drop(running);
    let status = status_when(&run, |status| status["state"] == "unreachable");
    assert_eq!(status["step"], 4, "{status}");
    assert!(status["last_checkpoint"].as_str().is_some_and(|name| name.starts_with("00000003")), "{status}");
    let ended = finish(blip2(&["status", &root(&run)])).expect(0);
    assert!(ended.stdout.contains("nobody answers at http://127.0.0.1:"), "{}", ended.stdout);
}

#[test]
fn logs_of_workers_that_failed_survive_and_are_named() {
    let run = SmallRun::short("[launch]\nrestarts = 0\n[coordinator]\nrejoin_timeout_s = 5.0\n");
    let running = slow(&run, &[]);
    run.wait_for_step(4);
    let logs = run.root().join("logs");
    let log = logs.join("worker-0.log");
    let at_its_drill = || std::fs::read_to_string(&log).ok()?.contains("drill forward@4").then_some(());
    assert!(poll(at_its_drill).is_some(), "the worker comes to its drill");
    children(running.id()).into_iter().for_each(|worker| signal(worker, "KILL"));
    let ended = running.wait().expect(1).says(&["worker-0", &format!("logs are in {}", logs.display())]);
    // What the worker said last: the place of its drill.
    assert!(ended.stderr.contains("drill forward@4"), "{}", ended.stderr);
    run.train(&["--workers", "1", "--resume"]).expect(0);
    let kept = std::fs::read_to_string(logs.join("worker-0.log.1")).expect("the log of the first start");
    assert!(kept.contains("drill forward@4"), "{kept}");
    let faults = std::fs::read_to_string(run.root().join("faults.jsonl")).expect("faults are recorded");
    assert!(faults.contains("is lost"), "{faults}");
}
