//! The metrics and faults of a run in a store, when its leader is lost.

use std::collections::BTreeMap;

use blip2_tests::cluster::{Cluster, wait_for_drill};
use blip2_tests::process::{blip2, finish, signal};
use blip2_tests::run::{SHORT_STEPS, SmallRun};

use crate::suite::{location, scene};

/// Between two checkpoints: steps 3 and 4 are in no segment yet.
const IN_A_STEP: &str = "reduction@5";

/// The lines of a run's segments by step, each with how often it is there; a later segment takes the place of
/// what is there from its first step on.
async fn curve(root: &str) -> BTreeMap<u64, usize> {
    let mut segments = location(&format!("{root}/metrics")).list().await.unwrap();
    segments.sort_by(|a, b| a.location.file_name().cmp(b.location.file_name()));
    let mut lines = BTreeMap::new();
    for segment in segments {
        let name = segment.location.file_name().trim_end_matches(".jsonl").to_owned();
        let first: u64 = name.split_once('-').unwrap().1.parse().unwrap();
        lines.split_off(&first);
        let content = segment.location.read().await.unwrap().unwrap();
        for line in std::str::from_utf8(&content).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            *lines.entry(line["step"].as_u64().unwrap()).or_insert(0) += 1;
        }
    }
    lines
}

#[tokio::test]
#[ignore = "started by `a_real_server_and_its_faults`"]
async fn a_run_whose_leader_is_killed_has_one_line_a_step() {
    let (_proxy, folder) = scene("curve");
    let root = format!("{folder}/run");
    let run = SmallRun::short("[coordinator]\nworkers = 1\nmin_workers = 1\n");
    Cluster::new(&run).lose_the_leader(IN_A_STEP, &["--set", &format!("run.root={root}")]);
    let expected: BTreeMap<u64, usize> = (0..2 * SHORT_STEPS).map(|step| (step, 1)).collect();
    assert_eq!(curve(&root).await, expected);
    let page = run.scratch().join("page.html");
    finish(blip2(&["report", &root, "--out", page.to_str().unwrap()])).expect(0);
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("Faint: every step") && page.contains("samples/s"), "the page has all steps");
    let status = finish(blip2(&["status", &root, "--json"])).expect(0).json_lines();
    assert!(status[0]["values"]["loss"].is_number(), "{status:?}");
}

#[tokio::test]
#[ignore = "started by `a_real_server_and_its_faults`"]
async fn the_faults_of_a_run_in_a_store_are_there_for_every_machine() {
    let (_proxy, folder) = scene("faults");
    let root = format!("{folder}/run");
    let run = SmallRun::short("[coordinator]\nworkers = 2\nmin_workers = 1\n");
    let cluster = Cluster::new(&run);
    let leader = cluster.coordinator(&["--set", &format!("run.root={root}")], None);
    let urls = [leader.url.as_str()];
    let other = cluster.worker("other", &urls, &[], None);
    let mut victim = cluster.worker("victim", &urls, &[], Some(&format!("{IN_A_STEP}:4000")));
    wait_for_drill(&mut victim, IN_A_STEP);
    signal(victim.id(), "KILL");
    leader.process.wait().expect(0);
    other.wait().expect(0);

    let segments = location(&format!("{root}/faults")).list().await.unwrap();
    assert_eq!(segments.len(), 1, "one coordinator, a few faults");
    let content = segments[0].location.read().await.unwrap().unwrap();
    let faults = std::str::from_utf8(&content).unwrap();
    assert!(faults.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{faults}");
    assert!(faults.contains("victim"), "{faults}");
    // Another machine has nothing of the coordinator's own disk.
    let elsewhere = run.scratch().join("elsewhere");
    std::fs::create_dir_all(&elsewhere).unwrap();
    let page = elsewhere.join("page.html");
    let mut report = blip2(&["report", &root, "--out", page.to_str().unwrap()]);
    report.env("TMPDIR", &elsewhere);
    finish(report).expect(0);
    assert!(std::fs::read_to_string(page).unwrap().contains("victim"), "the page has the fault");
    let mut status = blip2(&["status", &root, "--json"]);
    status.env("TMPDIR", &elsewhere);
    let status = finish(status).expect(0).json_lines();
    assert!(status[0]["last_fault"].as_str().is_some_and(|fault| fault.contains("victim")), "{status:?}");
}
