//! What programs read on standard error: JSON lines and nothing else, which say where a process stands.

use std::path::Path;
use std::time::Duration;

use blip2_tests::cluster::Cluster;
use blip2_tests::process::{Ended, Running, blip2, finish};
use blip2_tests::run::{SHORT_STEPS, SmallRun};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(120);
const JSON: [&str; 2] = ["--log", "json"];

/// The lines of standard error, each of which is JSON.
#[track_caller]
fn lines(ended: &Ended) -> Vec<Value> {
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    ended.stderr.lines().map(read).collect()
}

fn ended(process: Running) -> Ended {
    process.wait_within(DEADLINE).unwrap_or_else(|still| panic!("it does not end: {}", still.stderr()))
}

/// The first line that says so.
#[track_caller]
fn saying<'a>(lines: &'a [Value], words: &str) -> &'a Value {
    let says =
        |line: &&Value| line["fields"]["message"].as_str().is_some_and(|message| message.contains(words));
    lines.iter().find(says).unwrap_or_else(|| panic!("nothing says `{words}`: {lines:#?}"))
}

#[test]
fn the_processes_of_a_run_say_json_lines_with_run_epoch_step_and_member() {
    let run = SmallRun::short("[coordinator]\nworkers = 2\n");
    let cluster = Cluster::new(&run);
    let leader = cluster.coordinator(&JSON, Some("commit@3:10"));
    let workers = ["first", "second"].map(|name| cluster.worker(name, &[&leader.url], &JSON, None));
    let told = workers.map(|worker| lines(&ended(worker).expect(0)));
    let leader = lines(&ended(leader.process).expect(0));
    // What an operator needs is there without a filter.
    for words in ["leads the run", "a worker is ready", "a new epoch", "a checkpoint is complete"] {
        saying(&leader, words);
    }
    // The run's own id, which all its processes know.
    let name = saying(&leader, "leads the run")["run"].as_str().expect("an id").to_owned();
    assert!(!name.is_empty());
    let drill = saying(&leader, "drill commit@3");
    assert_eq!((&drill["level"], &drill["run"]), (&"WARN".into(), &name.clone().into()), "{drill}");
    assert!(drill["epoch"].as_u64() > Some(0) && drill["step"].as_u64() <= Some(4), "{drill}");
    for worker in told {
        saying(&worker, "a session is open");
        // Nothing is computed before, where no kernels are to be made.
        assert!(saying(&worker, "ready after the models are in memory")["fields"]["seconds"].is_number());
        let is_warm_up = |line: &Value| line["fields"]["message"] == "warmed up";
        assert!(!worker.iter().any(is_warm_up), "{worker:#?}");
        let taken = saying(&worker, "taken into a run");
        assert_eq!((&taken["run"], &taken["member"]), (&name.clone().into(), &taken["fields"]["member"]));
        let end = saying(&worker, "the worker ends");
        assert_eq!((&end["run"], &end["step"]), (&name.clone().into(), &(2 * SHORT_STEPS).into()), "{end}");
        assert!(end["member"].is_u64() && end["epoch"].is_u64(), "{end}");
        assert_eq!(end["trace_id"].as_str().map(str::len), Some(32), "{end}");
    }
}

#[test]
fn progress_and_errors_are_json_lines_too() {
    let run = SmallRun::short("");
    let trained = lines(&run.train(&[&["--workers", "1"], &JSON[..]].concat()).expect(0));
    let progress = saying(&trained, &format!("step {0}/{0}", 2 * SHORT_STEPS));
    assert_eq!((&progress["level"], &progress["step"]), (&"INFO".into(), &(2 * SHORT_STEPS).into()));
    saying(&trained, "coordinator at http://127.0.0.1:");

    let again = lines(&run.train(&JSON).expect(4));
    assert_eq!(saying(&again, "already holds a run")["level"], "ERROR");
    for (arguments, code, words) in [
        (&["no-such-command"][..], 2, "no-such-command"),
        (&["train", "--no-such-flag"], 2, "--no-such-flag"),
        (&["train", "--config", "nowhere.toml"], 78, "nowhere.toml"),
        (&["status", "127.0.0.1:1"], 1, "127.0.0.1:1"),
    ] {
        for json in [&JSON[..], &["--log=json"]] {
            let refused = lines(&finish(blip2(&[json, arguments].concat())).expect(code));
            assert_eq!(saying(&refused, words)["level"], "ERROR", "{refused:?}");
        }
    }
}

/// The lines of a worker's log that a command keeps, each of which is JSON.
#[track_caller]
fn kept(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(read).collect()
}

#[test]
fn workers_that_a_command_starts_say_json_lines_as_it_does() {
    let run = SmallRun::short("");
    lines(&run.train(&[&["--workers", "2"], &JSON[..]].concat()).expect(0));
    let logs = run.root().join("logs");
    let mut members = Vec::new();
    for number in 0..2 {
        let said = kept(&logs.join(format!("worker-{number}.log")));
        let taken = saying(&said, "taken into a run");
        members.push(taken["member"].as_u64().expect("a number"));
        assert_eq!(saying(&said, "the worker ends")["step"], 2 * SHORT_STEPS);
    }
    assert_ne!(members[0], members[1]);
}

#[test]
fn the_end_of_a_workers_log_is_told_in_a_json_line_in_words() {
    let run = SmallRun::short("[launch]\nrestarts = 0\n");
    let mut command = blip2(&[&["train", "--config", run.config(), "--workers", "1"], &JSON[..]].concat());
    command.env("BLIP2_DRILL", "card-fault@2:0");
    let failed = lines(&finish(command));
    let told = saying(&failed, "worker-0.log")["fields"]["message"].as_str().expect("words").to_owned();
    assert!(!told.contains("\"fields\""), "{told}");
}

#[test]
fn a_worker_says_what_becomes_of_a_collector_that_its_environment_names() {
    let mut worker = blip2(&["worker", "--coordinator", "http://127.0.0.1:1", "--join-timeout", "0.5"]);
    worker.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317");
    let ended = finish(worker).expect(1);
    // That it is told every step, or nothing by a build that cannot.
    assert!(ended.stderr.contains("http://localhost:4317"), "{}", ended.stderr);
}
