//! Whoever has no business in a run is refused with the reason, and the run goes on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use blip2_proto::v1::coordinator_client::CoordinatorClient;
use blip2_proto::v1::coordinator_message::Kind as Answer;
use blip2_proto::v1::leases_client::LeasesClient;
use blip2_proto::v1::worker_message::Kind;
use blip2_proto::v1::{Hello, LeaseStatusRequest, RefusalCode, StatusRequest, WorkerMessage};
use blip2_random::KeyedRng;
use blip2_tests::authority::Authority;
use blip2_tests::cluster::{Cluster, token_file};
use blip2_tests::need::Need;
use blip2_tests::process::{Running, blip2, poll_for, start};
use blip2_tests::run::{SHORT_STEPS, SmallRun};

/// Everything ends within this time.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long a stranger tries.
const TRIES: [&str; 2] = ["--join-timeout", "3"];

/// A stranger's end: refused, with the reason.
fn refused(stranger: Running, word: &str) {
    let ended = stranger.wait_within(DEADLINE).unwrap_or_else(|still| panic!("{}", still.stderr()));
    ended.expect(4).says(&[word]);
}

#[test]
fn with_mutual_tls_only_members_with_certificate_and_token_are_taken_in() {
    let plain = SmallRun::short("");
    plain.train(&["--workers", "1"]).expect(0);

    let run = SmallRun::short("[coordinator]\nworkers = 2\n");
    let (ours, theirs) = (Authority::new(&run, "ours"), Authority::new(&run, "theirs"));
    let files = |authority: &Authority, signer: &Authority, name: &str| {
        let [cert, key] = signer.issue(name);
        [authority.file(), cert, key]
    };
    let cluster = || Cluster::new(&run);
    let member = cluster().secured(files(&ours, &ours, "member"));
    let leader = member.coordinator(&[], None);
    let urls = [leader.url.as_str()];
    let first = member.worker("first", &urls, &[], None);

    let other_token = cluster().secured(files(&ours, &ours, "guest")).with_token("another secret");
    refused(other_token.worker("guest", &urls, &TRIES, None), "token");
    let forged = cluster().secured(files(&ours, &theirs, "forged"));
    // It sees no more than a connection that ends.
    let forged = forged.worker("forged", &urls, &TRIES, None).wait_within(DEADLINE).expect("it ends");
    assert!(matches!(forged.code, Some(1 | 4)), "{forged:?}");
    let forged = forged.says(&["certificate"]);
    assert!(!forged.stderr.contains("token"), "{forged:?}");
    let stranger = cluster().secured(files(&theirs, &theirs, "stranger"));
    refused(stranger.worker("stranger", &urls, &TRIES, None), "certificate");
    refused(cluster().worker("plain", &urls, &TRIES, None), "TLS files");

    let second = member.worker("second", &urls, &[], None);
    for process in [first, second, leader.process] {
        process.wait_within(DEADLINE).unwrap_or_else(|still| panic!("{}", still.stderr())).expect(0);
    }
    assert_eq!(run.digest(), plain.digest());
}

/// Idle connections to each port: more than a process with few descriptors may have.
const IDLE: usize = 300;
/// Of these, those that may be left at a time: a quarter of the descriptors.
const MOST_LEFT: usize = 64;

/// Connections that say nothing, or the beginning of HTTP/2 and then nothing.
fn idle_at(address: &str) -> Vec<TcpStream> {
    let connect = |number: usize| {
        let mut stream = TcpStream::connect(address).expect("it listens, and accepts");
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        if number.is_multiple_of(3) {
            // It may be closed by now.
            let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        }
        stream
    };
    (0..IDLE).map(connect).collect()
}

/// Connections that the other side has not closed.
fn left_open(idle: &mut [TcpStream]) -> usize {
    let is_open = |stream: &mut TcpStream| loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => {
                return matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
            }
        }
    };
    idle.iter_mut().map(is_open).filter(|open| *open).count()
}

/// A run of processes with few descriptors, beset by idle connections, goes to its end.
fn outlasts_idle_connections(run: &SmallRun, cluster: &Cluster<'_>) {
    blip2_proto::transport::raise_descriptor_limit().unwrap();
    let leader = cluster.coordinator(&[], None);
    let coordinator = leader.url.split_once("://").unwrap().1.to_owned();
    let first = cluster.worker("first", &[&leader.url], &[], None);
    let mut idle = [idle_at(&coordinator), idle_at(&first.listening())];
    for idle in &mut idle {
        let few = poll_for(DEADLINE, || (left_open(idle) <= MOST_LEFT).then_some(()));
        assert!(few.is_some(), "{} of {IDLE} are held", left_open(idle));
    }
    let second = cluster.worker("second", &[&leader.url], &[], None);
    for process in [first, second, leader.process] {
        process.wait_within(DEADLINE).unwrap_or_else(|still| panic!("{}", still.stderr())).expect(0);
    }
    assert_eq!(run.digest().1, 2 * SHORT_STEPS);
}

/// Starts what follows with few descriptors.
const FEW_DESCRIPTORS: [&str; 4] = ["sh", "-c", "ulimit -n 256; exec \"$@\"", "sh"];

#[test]
fn idle_connections_lock_nobody_out() {
    let run = SmallRun::short("[coordinator]\nworkers = 2\n");
    outlasts_idle_connections(&run, &Cluster::new(&run).inside(&FEW_DESCRIPTORS));
}

#[test]
fn with_mutual_tls_handshakes_that_never_end_lock_nobody_out() {
    let run = SmallRun::short("[coordinator]\nworkers = 2\n");
    let authority = Authority::new(&run, "ours");
    let [cert, key] = authority.issue("member");
    let files = [authority.file(), cert, key];
    outlasts_idle_connections(&run, &Cluster::new(&run).inside(&FEW_DESCRIPTORS).secured(files));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_stranger_says_is_logged_or_believed() {
    let run = SmallRun::short("[coordinator]\nworkers = 1\n");
    let cluster = Cluster::new(&run);
    let leader = cluster.coordinator(&[], None);
    let client = || async {
        let connected = CoordinatorClient::connect(leader.url.clone()).await.expect("it listens");
        connected.max_encoding_message_size(usize::MAX)
    };
    let evil = "\x1b[31mEVIL\r\n";
    let hello = |token: String, name: String| Hello {
        token,
        name,
        binary: evil.into(),
        exchange_address: evil.into(),
        run_id: evil.into(),
        ..Hello::default()
    };
    let say = |hello: Hello| async {
        let said = WorkerMessage { kind: Some(Kind::Hello(hello)) };
        let answer = client().await.session(futures::stream::iter([said])).await;
        let Ok(answer) = answer else { return None };
        tokio::time::timeout(DEADLINE, answer.into_inner().message()).await.expect("in time").ok().flatten()
    };
    let refused = say(hello(evil.into(), evil.into())).await.expect("an answer");
    let Some(Answer::Refused(refused)) = refused.kind else { panic!("{refused:?}") };
    assert_eq!(refused.code(), RefusalCode::RefusalToken);
    assert!(!refused.reason.contains("EVIL"), "{refused:?}");
    // Beyond a few KiB nobody listens, not even with the right token.
    assert_eq!(say(hello(evil.repeat(3 << 20), evil.into())).await, None);
    assert_eq!(say(hello("a long secret".into(), evil.repeat(3 << 20))).await, None);
    let refused = say(hello("a long secret".into(), evil.into())).await;
    assert_eq!(refused, None, "a name is a line");

    let ask = |token: &str| {
        let request = StatusRequest { token: token.into(), ..StatusRequest::default() };
        async { client().await.status(request).await.map(|reply| reply.into_inner().state) }
    };
    for wrong in ["", "another secret", "this machine only"] {
        assert_eq!(ask(wrong).await.expect_err(wrong).code(), tonic::Code::Unauthenticated);
    }
    assert_eq!(ask("a long secret").await.expect("the run's token"), "waiting");

    let worker = cluster.worker("worker", &[&leader.url], &[], None);
    for process in [worker, leader.process] {
        let ended =
            process.wait_within(DEADLINE).unwrap_or_else(|still| panic!("{}", still.stderr())).expect(0);
        assert!(!ended.stderr.contains("EVIL") && ended.stderr.len() < 32 << 10, "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_curation_tells_strangers_nothing() {
    let run = SmallRun::short("");
    let token = token_file(&run, "curation-token", "a curation's secret");
    let output = format!("curation.output={}", run.scratch().join("curated").display());
    let known = ["curate", "--config", "configs/curate-quickstart.toml", "--set", &output, "--workers", "0"];
    let curation = start(blip2(&[&known[..], &["--listen", "127.0.0.1:0", "--token-file", &token]].concat()));
    let url = format!("http://{}", curation.listening());
    let ask = |token: &str| {
        let (url, request) = (url.clone(), LeaseStatusRequest { token: token.into() });
        async move { LeasesClient::connect(url).await.expect("it listens").lease_status(request).await }
    };
    for wrong in ["", "another secret"] {
        assert_eq!(ask(wrong).await.expect_err(wrong).code(), tonic::Code::PermissionDenied);
    }
    assert!(ask("a curation's secret").await.expect("its token").into_inner().tasks > 0);
}

#[test]
fn the_limit_of_descriptors_is_raised() {
    let run = SmallRun::short("");
    let cluster = Cluster::new(&run).inside(&["sh", "-c", "ulimit -S -n 64; exec \"$@\"", "sh"]);
    let leader = cluster.coordinator(&[], None);
    let Ok(limits) = std::fs::read_to_string(format!("/proc/{}/limits", leader.process.id())) else {
        Need::Limits.skip();
        return;
    };
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[3], words[4], "{line}");
}

#[test]
fn a_run_over_ipv6_is_a_run() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        Need::Ipv6.skip();
        return;
    }
    let run = SmallRun::short("[coordinator]\nworkers = 2\n");
    let cluster = Cluster::new(&run);
    let leader = cluster.coordinator(&["--listen", "[::1]:0"], None);
    assert!(leader.url.starts_with("http://[::1]:"), "{}", leader.url);
    let listen = ["--listen", "[::1]:0"];
    let workers = ["first", "second"].map(|name| cluster.worker(name, &[&leader.url], &listen, None));
    for process in workers.into_iter().chain([leader.process]) {
        process.wait_within(DEADLINE).unwrap_or_else(|still| panic!("{}", still.stderr())).expect(0);
    }
    assert_eq!(run.digest().1, 2 * SHORT_STEPS);
}

/// Bytes that are no HTTP, or HTTP and no gRPC, or gRPC that lies about its length.
fn nonsense(random: &mut KeyedRng, kind: u64) -> Vec<u8> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let noise: Vec<u8> = (0..random.below(4096)).map(|_| random.below(256) as u8).collect();
    match kind % 4 {
        0 => noise,
        1 => [PREFACE, &noise].concat(),
        // A frame of the largest length that is, of which little comes.
        2 => [PREFACE, b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", &noise].concat(),
        _ => b"POST /blip2.v1.Coordinator/Session HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
    }
}

#[test]
fn random_bytes_stop_neither_coordinator_nor_workers() {
    let run = SmallRun::short("[coordinator]\nworkers = 2\n");
    let cluster = Cluster::new(&run);
    let leader = cluster.coordinator(&[], None);
    // The first waits a while in its third step, so that the bytes meet a run under way.
    let first = cluster.worker("first", &[&leader.url], &[], Some("reduction@3:2000"));
    let second = cluster.worker("second", &[&leader.url], &[], None);
    let addresses = [leader.url.replace("http://", ""), first.listening(), second.listening()];
    let mut random = KeyedRng::new(1, "nonsense", &[]);
    let mut open = Vec::new();
    for kind in 0..120 {
        let address = &addresses[kind as usize % 3];
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        // The other side may hang up at any time.
        let _ = stream.write_all(&nonsense(&mut random, kind / 3));
        let _ = stream.read(&mut [0; 64]);
        if kind % 2 == 0 {
            open.push(stream);
        }
    }
    for process in [first, second, leader.process] {
        process.wait_within(DEADLINE).unwrap_or_else(|still| panic!("{}", still.stderr())).expect(0);
    }
    drop(open);
    assert_eq!(run.digest().1, 2 * SHORT_STEPS);
    cluster.audit().expect(0);
}
