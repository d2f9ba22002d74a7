//! Benches that start processes, and what they hold to that is no time.

use blip2_tests::process::{blip2, finish};
use serde_json::Value;

/// The runs that `bench coordinator` reports.
fn coordinated(members: &str) -> Vec<Value> {
    let ended = finish(blip2(&[
        "bench",
        "coordinator",
        "--json",
        "--steps=4",
        "--idle-ms=600",
        &format!("--members={members}"),
    ]));
    let report: Value = serde_json::from_str(&ended.expect(0).stdout).expect("a JSON line");
    report["runs"].as_array().expect("runs").clone()
}

#[test]
fn a_coordinator_is_measured_by_its_members_the_fewest_first() {
    let runs = coordinated("5,2");
    assert_eq!(runs.iter().map(|run| run["members"].as_u64()).collect::<Vec<_>>(), [Some(2), Some(5)]);
    for run in &runs {
        let number = |name: &str| run[name].as_f64().expect("a number");
        assert!(number("commit_ms") > 0.0 && number("slowest_commit_ms") >= number("commit_ms"), "{run}");
    }
}

/// As many as a large run has, each with a connection of its own; they are idle, then step.
#[test]
fn a_coordinator_holds_256_members_in_256_mebibytes() {
    let run = &coordinated("256")[0];
    let bytes = run["peak_bytes"].as_u64().expect("a system that tells it");
    assert!(bytes < 256 << 20, "{:.1} MiB", bytes as f64 / f64::from(1 << 20));
}
