//! Processes that a scheduler asks to go: who goes on, and with which exit code each ends. A code of 0 tells
//! a scheduler that a place is done for good, so only the end of the run is 0.

use std::time::Duration;

use blip2_run::epoch::EpochRecord;
use blip2_tests::cluster::{Cluster, wait_for_drill};
use blip2_tests::process::{Ended, Running, blip2, finish, poll, signal, start};
use blip2_tests::run::{SHORT_STEPS, SmallRun};

/// No process takes longer to end.
const DEADLINE: Duration = Duration::from_secs(120);
/// Steps of a short run.
const TOTAL: u64 = 2 * SHORT_STEPS;
/// A worker waits here for a while: time for a stand-by to be known to its leader.
const IN_A_STEP: &str = "reduction@4";

fn ended(process: Running) -> Ended {
    process.wait_within(DEADLINE).unwrap_or_else(|still| panic!("it does not end: {}", still.stderr()))
}

fn short_run() -> SmallRun {
    SmallRun::short("[coordinator]\nworkers = 2\nmin_workers = 1\nflap_limit = 0\n")
}

/// All epochs of a run, in order.
fn epochs(run: &SmallRun) -> Vec<EpochRecord> {
    let read = |number: u64| {
        let object = run.root().join("epochs").join(format!("{number:010}.json"));
        let content = std::fs::read(&object).unwrap_or_else(|error| panic!("{}: {error}", object.display()));
        EpochRecord::parse("epoch", &content).unwrap()
    };
    (1..=run.epoch()).map(read).collect()
}

/// What the loss of a leader cost.
#[derive(Debug)]
struct Cost {
    /// Epochs after it.
    epochs: usize,
    /// Committed steps, when it was asked to go, that were to be done again.
    steps_redone: u64,
    digest: (String, u64),
}

/// The leader gets a signal while another coordinator stands by; the run goes on to its end.
fn leader_gets(name: &str, code: Option<i32>) -> Cost {
    let run = short_run();
    let cluster = Cluster::new(&run);
    let leader = cluster.coordinator(&[], None);
    let standby = cluster.coordinator(&["--standby"], None);
    let urls = [leader.url.as_str(), standby.url.as_str()];
    let mut first = cluster.worker("first", &urls, &[], Some(&format!("{IN_A_STEP}:5000")));
    let second = cluster.worker("second", &urls, &[], None);
    wait_for_drill(&mut first, IN_A_STEP);
    std::thread::sleep(Duration::from_millis(2500));
    let (committed, before) = (run.committed() as u64, epochs(&run).len());
    signal(leader.process.id(), name);
    let gone = ended(leader.process);
    assert_eq!(gone.code, code, "{gone:?}");
    if code.is_some() {
        gone.says(&["handed over"]);
    }
    for process in [standby.process, first, second] {
        let ended = ended(process).expect(0);
        assert!(!ended.stderr.contains("interrupted"), "{ended:?}");
    }
    cluster.audit().expect(0);
    let after = epochs(&run).split_off(before);
    let step = after.iter().find(|epoch| !epoch.members.is_empty()).expect("members go on").step;
    assert!(after[0].coordinator != epochs(&run)[0].coordinator, "another one leads");
    Cost { epochs: after.len(), steps_redone: committed.saturating_sub(step), digest: run.digest() }
}

#[test]
fn a_leader_that_is_drained_hands_over_and_costs_no_more_than_one_that_crashes() {
    let undisturbed = SmallRun::short("");
    undisturbed.train(&["--workers", "1"]).expect(0);
    let killed = leader_gets("KILL", None);
    let drained = leader_gets("TERM", Some(5));
    assert_eq!((&drained.digest, &killed.digest), (&undisturbed.digest(), &undisturbed.digest()));
    assert_eq!(drained.steps_redone, 0, "{drained:?}");
    assert!(drained.epochs <= killed.epochs, "{drained:?}, {killed:?}");
}

/// Waits until a process takes SIGTERM itself.
fn hears_signals(process: &Running) {
    const SIGTERM: u64 = 15;
    let caught = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).ok()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
        (mask >> (SIGTERM - 1) & 1 == 1).then_some(())
    };
    poll(caught).expect("it takes over its signals");
}

/// Who gets the signal before the run is done.
#[derive(Debug, Clone, Copy)]
enum Role {
    Leader,
    Standby,
    Worker,
}

/// In a step of the run, with nobody who stands by but the one that gets it.
fn asked_in_the_middle(role: Role) {
    let run = short_run();
    let cluster = Cluster::new(&run);
    let leader = cluster.coordinator(&[], None);
    let standby = matches!(role, Role::Standby).then(|| cluster.coordinator(&["--standby"], None));
    let mut first = cluster.worker("first", &[&leader.url], &[], Some(&format!("{IN_A_STEP}:1500")));
    let second = cluster.worker("second", &[&leader.url], &[], None);
    wait_for_drill(&mut first, IN_A_STEP);
    match role {
        Role::Leader => {
            signal(leader.process.id(), "TERM");
            for process in [leader.process, first, second] {
                ended(process).expect(5);
            }
            return;
        }
        Role::Standby => {
            let standby = standby.expect("it was started").process;
            signal(standby.id(), "TERM");
            ended(standby).expect(5).says(&["stood by"]);
        }
        Role::Worker => {
            signal(second.id(), "TERM");
            ended(second).expect(5).says(&["let go as it was asked"]);
            for process in [leader.process, first] {
                ended(process).expect(0);
            }
            assert_eq!(run.digest().1, TOTAL);
            return;
        }
    }
    for process in [leader.process, first, second] {
        ended(process).expect(0);
    }
}

#[test]
fn what_ends_before_the_run_is_done_ends_with_5() {
    [Role::Leader, Role::Standby, Role::Worker].into_iter().for_each(asked_in_the_middle);

    // A worker that has no coordinator to release it.
    let alone = start(blip2(&["worker", "--coordinator", "http://127.0.0.1:1", "--join-timeout", "60"]));
    alone.listening();
    signal(alone.id(), "TERM");
    ended(alone).expect(5).says(&["asked to leave"]);
    // A stand-by that waits for a run to be there.
    let run = short_run();
    let standby = Cluster::new(&run).coordinator(&["--standby"], None).process;
    signal(standby.id(), "TERM");
    ended(standby).expect(5);
}

#[test]
fn where_all_steps_are_done_a_signal_changes_no_exit_code() {
    let run = short_run();
    let cluster = Cluster::new(&run);
    let place = format!("checkpoint@{TOTAL}");
    let mut leader = cluster.coordinator(&[], Some(&format!("{place}:1500")));
    let standby = cluster.coordinator(&["--standby"], None).process;
    let workers = ["first", "second"].map(|name| cluster.worker(name, &[&leader.url], &[], None));
    wait_for_drill(&mut leader.process, &place);
    for process in workers.iter().chain([&leader.process]) {
        signal(process.id(), "TERM");
    }
    for process in workers.into_iter().chain([leader.process]) {
        ended(process).expect(0);
    }
    ended(standby).expect(0);
    assert_eq!(run.digest().1, TOTAL);
}

#[test]
fn a_curation_that_is_asked_to_go_ends_with_5_and_its_workers_do_too() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    std::fs::write(path("token"), "a curation's secret").unwrap();
    let (token, output) = (path("token"), format!("curation.output={}", path("curated")));
    let known = ["curate", "--config", "configs/curate-quickstart.toml", "--set", &output];
    let coordinate = || {
        let more = ["--workers", "0", "--listen", "127.0.0.1:0", "--token-file", &token];
        start(blip2(&[&known[..], &more].concat()))
    };
    let worker = |curation: &Running| {
        let url = format!("http://{}", curation.listening());
        start(blip2(&["curate", "worker", "--coordinator", &url, "--token-file", &token, "--patience", "5"]))
    };
    // The worker is asked to go, then the coordinator, before anything is done.
    let curation = coordinate();
    let leaver = worker(&curation);
    hears_signals(&leaver);
    signal(leaver.id(), "TERM");
    ended(leaver).expect(5);
    let stays = worker(&curation);
    hears_signals(&stays);
    signal(curation.id(), "TERM");
    ended(curation).expect(5).says(&["continue with"]);
    // It is told, or finds nobody any more; to a scheduler it is not done either way.
    let stays = ended(stays);
    assert!(matches!(stays.code, Some(1 | 5)), "{stays:?}");
    // To the end.
    finish(blip2(&[&known[..], &["--workers", "1"]].concat())).expect(0);
    let done = coordinate();
    ended(done).expect(0);
}

#[test]
fn a_run_is_stopped_explicitly_whoever_leads_it() {
    let run = short_run();
    let cluster = Cluster::new(&run);
    let token = run.scratch().join("token").display().to_string();
    let wrong = run.scratch().join("wrong").display().to_string();
    std::fs::write(&wrong, "another secret").unwrap();
    let leader = cluster.coordinator(&[], None);
    let standby = cluster.coordinator(&["--standby"], None);
    let urls = [leader.url.as_str(), standby.url.as_str()];
    let mut first = cluster.worker("first", &urls, &[], Some(&format!("{IN_A_STEP}:8000")));
    let second = cluster.worker("second", &urls, &[], None);
    wait_for_drill(&mut first, IN_A_STEP);
    let root = run.root().display().to_string();
    for target in [&leader.url, &root] {
        finish(blip2(&["stop", target, "--token-file", &wrong])).expect(4).says(&["token"]);
        finish(blip2(&["stop", target])).expect(4).says(&["--token-file"]);
    }
    let stopped = finish(blip2(&["stop", &root, "--token-file", &token, "--json"])).expect(0);
    let line = stopped.json_lines().pop().expect("a line");
    assert_eq!(line["state"], "interrupted", "{line}");
    assert!(line["step"].as_u64().is_some_and(|step| step < TOTAL), "{line}");
    for process in [leader.process, standby.process, first, second] {
        ended(process).expect(5);
    }
    // Once more: it has ended.
    finish(blip2(&["stop", &root, "--token-file", &token])).expect(0).says(&["was interrupted"]);
    finish(blip2(&["stop", "127.0.0.1:1"])).expect(1).says(&["127.0.0.1:1"]);
}
