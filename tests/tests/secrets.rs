//! The token, private keys and a store's credentials are in no log, on no page, in no stored object and on no
//! command line. (URLs with credentials: `models.rs`.)

use std::time::Duration;

use blip2_tests::authority::Authority;
use blip2_tests::cluster::{Cluster, token_file};
use blip2_tests::process::{Ended, blip2, children, finish, poll, signal};
use blip2_tests::run::{STEPS, SmallRun};
use blip2_tests::secrets::Secrets;

const TOKEN: &str = "t0ken-that-nobody-sees";
/// What a process may have in its environment, with all that it says of itself.
const ENVIRONMENT: [&str; 6] = [
    "env",
    // The libraries underneath, which say what they send, say it too.
    "BLIP2_LOG=trace,h2=trace,hyper=trace,hyper_util=trace,tonic=trace,tower=trace,rustls=trace",
    "AWS_ACCESS_KEY_ID=reader-of-the-store",
    "AWS_SECRET_ACCESS_KEY=st0re-that-nobody-sees",
    "AWS_SESSION_TOKEN=sessi0n-that-nobody-sees",
    "HF_TOKEN=hf_m0del-that-nobody-sees",
];

/// The lines of a key's file that are its own.
fn key_lines(file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned).collect()
}

/// What is shown of a run that is over: page, status, audit.
fn shown(run: &SmallRun) -> [Ended; 3] {
    let root = run.root().display().to_string();
    [&["report", &root][..], &["status", &root], &["audit", &root]]
        .map(|arguments| finish(blip2(arguments)).expect(0))
}

#[test]
fn processes_of_a_run_show_their_secrets_to_nobody() {
    let run = SmallRun::short("[coordinator]\nworkers = 2\n");
    let authority = Authority::new(&run, "authority");
    let [cert, key] = authority.issue("member");
    let environment = ENVIRONMENT.iter().filter_map(|word| Some(word.split_once('=')?.1));
    let environment = environment.filter(|value| value.ends_with("nobody-sees")).map(str::to_owned);
    let secrets = Secrets::new(key_lines(&key).into_iter().chain(environment).chain([TOKEN.to_owned()]));

    let cluster = Cluster::new(&run).inside(&ENVIRONMENT).with_token(TOKEN);
    let files = [authority.file(), cert, key];
    let cluster = cluster.secured(files.clone());
    let leader = cluster.coordinator(&[], None);
    let first = cluster.worker("first", &[&leader.url], &[], None);
    first.listening();
    // The run waits for its second worker.
    for process in [leader.process.id(), first.id()] {
        secrets.assert_not_on_command_line(process);
    }
    secrets.assert_unsaid(&cluster.status(&leader.url).expect(0));
    // Whoever comes with another secret is told nothing of this one, and its own is not repeated.
    let guests = Secrets::new([TOKEN, "an0ther-that-nobody-sees"]);
    let token = token_file(&run, "guest", "an0ther-that-nobody-sees");
    let guest = ["status", &leader.url, "--token-file", &token, "--tls-ca", &files[0]];
    let guest = finish(blip2(&[&guest[..], &["--tls-cert", &files[1], "--tls-key", &files[2]]].concat()));
    guests.assert_unsaid(&guest.expect(4));

    let second = cluster.worker("second", &[&leader.url], &[], None);
    for process in [first, second, leader.process] {
        let ended = process.wait().expect(0);
        assert!(ended.stderr.contains("TRACE") || ended.stderr.contains("DEBUG"), "it logs all: {ended:?}");
        secrets.assert_unsaid(&ended);
    }
    shown(&run).iter().for_each(|ended| secrets.assert_unsaid(ended));
    secrets.assert_not_below(&run.root());
}

#[test]
fn the_token_that_train_makes_is_in_its_file_alone() {
    let run = SmallRun::of(STEPS, "");
    let train = run.start(&["--workers", "2"]);
    let file = run.root().join("logs/token");
    let token = poll(|| std::fs::read_to_string(&file).ok().filter(|token| !token.is_empty()));
    let secrets = Secrets::new([token.expect("the run has a token")]);
    let workers = poll(|| Some(children(train.id())).filter(|workers| workers.len() == 2));
    for process in workers.expect("two workers").into_iter().chain([train.id()]) {
        secrets.assert_not_on_command_line(process);
    }
    secrets.assert_unsaid(&train.wait().expect(0));
    assert!(!file.exists(), "it goes with the run");
    shown(&run).iter().for_each(|ended| secrets.assert_unsaid(ended));
    secrets.assert_not_below(&run.root());
}

/// Listening where others connect without TLS is said, by coordinators, workers and curations.
#[test]
fn whoever_listens_beyond_the_machine_without_tls_says_so() {
    let run = SmallRun::short("[coordinator]\nworkers = 2\n");
    let cluster = Cluster::new(&run).with_token(TOKEN);
    let open = cluster.coordinator(&["--listen", "0.0.0.0:0", "--advertise", "http://127.0.0.1:1"], None);
    let url = open.url.replace("0.0.0.0", "127.0.0.1");
    let everywhere = ["--listen", "0.0.0.0:0", "--advertise", "127.0.0.1:1"];
    let open_worker = cluster.worker("open", &[&url], &everywhere, None);
    let own = cluster.worker("own", &[&url], &[], None);
    for process in [&open_worker, &own] {
        process.listening();
    }
    let said = |ended: Ended| ended.stderr.contains("not encrypted");
    for (process, warns) in [(open_worker, true), (own, false), (open.process, true)] {
        signal(process.id(), "KILL");
        let ended = process.wait_within(Duration::from_secs(60)).expect("it was killed");
        assert_eq!(said(ended), warns);
    }
}
