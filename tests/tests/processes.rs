//! Coordinator and workers started one by one, as on several machines.

use blip2_tests::cluster::token_file;
use blip2_tests::process::{Running, blip2, finish, start};
use blip2_tests::run::{STEPS, SmallRun};

fn coordinator(run: &SmallRun, token: &str, arguments: &[&str]) -> (Running, String) {
    let known = ["coordinator", "--config", run.config(), "--listen", "127.0.0.1:0", "--token-file", token];
    let process = start(blip2(&[&known[..], arguments].concat()));
    let address = process.listening();
    (process, address)
}

#[test]
fn a_run_of_separate_processes_refuses_strangers_and_shows_its_status() {
    let run = SmallRun::new();
    let token = token_file(&run, "token", "a long secret");
    let wrong = token_file(&run, "wrong", "another secret");
    let (coordinator, address) = coordinator(&run, &token, &["--set", "coordinator.workers=2", "--json"]);
    let url = format!("http://{address}");
    let worker = |token: &str, more: &[&str]| {
        blip2(&[&["worker", "--coordinator", &url, "--threads", "1", "--token-file", token], more].concat())
    };

    finish(worker(&wrong, &[])).expect(4).says(&["token"]);
    let first = start(worker(&token, &["--name", "first"]));
    first.listening();
    let other = ["--config", run.config(), "--set", "train.seed=7"];
    finish(worker(&token, &other)).expect(4).says(&["configuration"]);

    finish(blip2(&["status", &url])).expect(4).says(&["--token-file"]);
    finish(blip2(&["status", &url, "--token-file", &wrong])).expect(4).says(&["token"]);
    let status = finish(blip2(&["status", &url, "--json", "--token-file", &token])).expect(0);
    let status = &status.json_lines()[0];
    assert_eq!(status["state"], "waiting", "{status}");
    assert_eq!(status["total_steps"], 2 * STEPS, "{status}");

    let second = start(worker(&token, &["--name", "second", "--config", run.config()]));
    for process in [first, second] {
        process.wait().expect(0);
    }
    let ended = coordinator.wait().expect(0);
    let summary = ended.json_lines().pop().unwrap();
    assert_eq!(summary["steps"], 2 * STEPS, "{summary}");
    assert_eq!(run.digest().1, 2 * STEPS);
}

#[test]
fn without_a_token_everyone_stays_on_this_machine() {
    let run = SmallRun::new();
    for beyond in ["0.0.0.0:0", "[::]:0", "192.0.2.1:7200"] {
        finish(blip2(&["worker", "--coordinator", "http://127.0.0.1:1", "--listen", beyond]))
            .expect(2)
            .says(&["--token-file"]);
    }
    finish(blip2(&["coordinator", "--config", run.config(), "--listen", "0.0.0.0:0"]))
        .expect(2)
        .says(&["--token-file"]);
    finish(blip2(&["status", "127.0.0.1:1"])).expect(1).says(&["127.0.0.1:1"]);
}
