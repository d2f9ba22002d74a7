//! Flags by variables: what a scheduler starts needs no command line.

use std::process::Command;

use blip2_tests::process::{Running, blip2, finish, poll, start};
use blip2_tests::run::SmallRun;

/// A command with these variables.
fn told(words: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = blip2(words);
    command.envs(variables.iter().copied());
    command
}

/// The port in the line that says where a process listens.
fn port(process: &Running) -> String {
    let address = process.listening();
    address.rsplit_once(':').expect("a port").1.to_owned()
}

#[test]
fn a_run_needs_no_flags() {
    let run = SmallRun::of(2, "[coordinator]\nworkers = 1\n");
    let token = run.scratch().join("token");
    std::fs::write(&token, "a long secret").unwrap();
    let token = token.to_str().unwrap();
    // What all processes of a job have, and what is each one's.
    let all = [("BLIP2_TOKEN_FILE", token), ("BLIP2_LISTEN", "[::]:0"), ("BLIP2_LOG_FORMAT", "json")];
    let variables = |own: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
        let given = [("BLIP2_CONFIG", run.config()), ("BLIP2_TLS_CA", ""), ("BLIP2_DEVICE", "")];
        let given = given.iter().chain(own);
        given.map(|(name, value)| (*name, (*value).to_owned())).collect()
    };
    let start = |words: &[&str], own: &[(&'static str, &str)]| {
        let mut command = told(words, &all);
        command.envs(variables(own));
        start(command)
    };
    let coordinator =
        start(&["coordinator"], &[("BLIP2_ADVERTISE", "http://127.0.0.1:0"), ("BLIP2_RESUME", "yes")]);
    let here = format!("http://127.0.0.1:{}", port(&coordinator));
    finish(told(&["status", &here, "--json"], &all)).expect(0);
    let coordinators = format!("http://127.0.0.1:1,{here}");
    // All addresses are listened on, and the way to the coordinator is the loopback's: Slurm knows the name.
    let own = [("BLIP2_COORDINATOR", coordinators.as_str()), ("BLIP2_NAME", "by-variables")];
    let own = [&own[..], &[("SLURMD_NODENAME", "127.0.0.1"), ("BLIP2_THREADS", "1")]].concat();
    let worker = start(&["worker"], &own);
    let worker_port = port(&worker);
    let joined = poll(|| coordinator.stderr().contains("by-variables").then_some(()));
    assert!(joined.is_some(), "{}", coordinator.stderr());

    let address = format!("127.0.0.1:{worker_port}");
    let said = coordinator.stderr();
    assert!(said.contains(&address), "no {address} in:\n{said}");
    worker.wait().expect(0);
    let ended = coordinator.wait().expect(0);
    let is_json = |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok();
    assert!(ended.stderr.lines().all(is_json), "{}", ended.stderr);
    assert_eq!(run.digest().1, 4);
}

#[test]
fn what_is_typed_comes_first_and_what_is_wrong_is_named() {
    let nobody = [("BLIP2_COORDINATOR", "http://127.0.0.1:1"), ("BLIP2_JOIN_TIMEOUT", "0.2")];
    finish(told(&["worker"], &nobody)).expect(1).says(&["127.0.0.1:1"]);
    let typed = ["worker", "--coordinator", "http://127.0.0.1:2"];
    finish(told(&typed, &nobody)).expect(1).says(&["127.0.0.1:2"]);
    finish(told(&["worker"], &[("BLIP2_COORDINATOR", "")])).expect(2).says(&["--coordinator <URL>"]);
    let wrong = [nobody[0], ("BLIP2_LISTEN", "here")];
    finish(told(&["worker"], &wrong)).expect(2).says(&["--listen", "here"]);
    let loose = [nobody[0], ("BLIP2_LISTEN", "[::]:0")];
    finish(told(&["worker"], &loose)).expect(2).says(&["--token-file"]);
    let token = [("BLIP2_TOKEN_FILE", "no-such-file"), nobody[0]];
    finish(told(&["worker"], &token)).expect(1).says(&["no-such-file"]);
    // Of help, names alone.
    let help =
        finish(told(&["worker", "--help"], &[("BLIP2_TOKEN_FILE", "the-place-of-a-secret")])).expect(0);
    let words: Vec<&str> = help.stdout.split_whitespace().collect();
    assert!(words.join(" ").contains("[env: BLIP2_TOKEN_FILE]"), "{}", help.stdout);
    assert!(!help.stdout.contains("the-place-of-a-secret"));
    // A command beside whose coordinator another one's variables are set.
    let shard = [("BLIP2_SHARD", "2/2")];
    finish(told(&["curate"], &shard)).expect(2).says(&["I/N"]);
    let leasing =
        [("BLIP2_COORDINATOR", "http://127.0.0.1:1"), ("BLIP2_PATIENCE", "0.2"), ("BLIP2_WORKERS", "3")];
    finish(told(&["curate", "worker"], &leasing)).expect(1).says(&["127.0.0.1:1"]);
}

#[test]
fn workers_that_train_starts_inherit_no_flag() {
    let run = SmallRun::of(1, "");
    let variables = [
        ("BLIP2_ADVERTISE", "192.0.2.1:1"),
        ("BLIP2_LISTEN", "192.0.2.1:1"),
        ("BLIP2_COORDINATOR", "http://192.0.2.1:1"),
        ("BLIP2_DEVICE", "cuda:7"),
        ("BLIP2_TLS_CA", "no-such-file"),
        ("BLIP2_NAME", "another"),
    ];
    finish(told(&["train", "--config", run.config(), "--workers", "2"], &variables)).expect(0);
    assert_eq!(run.digest().1, 2);
}
