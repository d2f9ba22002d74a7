//! What `blip2 doctor` says of a coordinator, and that it leaves nothing behind.

use std::process::Command;

use blip2_tests::cluster::{Cluster, wait_for_drill};
use blip2_tests::process::{Ended, blip2, finish};
use blip2_tests::run::SmallRun;
use serde_json::Value;

/// `doctor` on a run's configuration, in an environment without proxies.
fn doctor(run: &SmallRun, arguments: &[&str]) -> Ended {
    let known = ["doctor", "--config", run.config(), "--json", "--listen", "127.0.0.1:0"];
    let mut command: Command = blip2(&[&known[..], arguments].concat());
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name);
    }
    finish(command)
}

/// The state of a check, and what was found.
fn found(ended: &Ended, name: &str) -> (String, String) {
    let line = &ended.json_lines()[0];
    let checks = line["checks"].as_array().unwrap_or_else(|| panic!("{ended:?}"));
    let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {line}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&check["state"]), text(&check["found"]))
}

#[test]
fn a_coordinator_is_green_with_its_token_and_red_with_another() {
    let run = SmallRun::short("[coordinator]\nworkers = 2\n");
    let cluster = Cluster::new(&run);
    let coordinator = cluster.coordinator(&[], None);
    let token = run.scratch().join("token").display().to_string();
    let url = coordinator.url.as_str();
    let own = doctor(&run, &["--coordinator", url, "--token-file", &token]).expect(0);
    let (state, words) = found(&own, "coordinator");
    assert_eq!(state, "green", "{words}");
    assert_eq!(found(&own, "peers").0, "yellow");
    assert_eq!(own.json_lines()[0]["ok"], true);

    let other = run.scratch().join("other");
    std::fs::write(&other, "another secret").unwrap();
    let stranger = doctor(&run, &["--coordinator", url, "--token-file", other.to_str().unwrap()]).expect(1);
    let (state, words) = found(&stranger, "coordinator");
    assert!(state == "red" && words.contains("refused"), "{words}");
    assert_eq!(found(&stranger, "store").0, "green");
    let left = std::fs::read_dir(run.root()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.starts_with("doctor-")), "{left:?}");
}

#[test]
fn the_way_to_the_members_is_measured() {
    let run = SmallRun::short("[coordinator]\nworkers = 1\n");
    let cluster = Cluster::new(&run);
    let coordinator = cluster.coordinator(&[], None);
    let place = "reduction@2";
    let mut worker = cluster.worker("only", &[&coordinator.url], &[], Some(&format!("{place}:20000")));
    wait_for_drill(&mut worker, place);
    let token = run.scratch().join("token").display().to_string();
    let asked = doctor(&run, &["--coordinator", &coordinator.url, "--token-file", &token]).expect(0);
    let (state, words) = found(&asked, "bandwidth");
    assert_eq!(state, "green", "{words}");
    assert!(words.contains("bit/s to, ") && words.contains("bit/s from"), "{words}");
}
