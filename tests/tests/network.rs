//! Runs over links that are slow, lossy, or cut: through a relay everywhere, through network namespaces where
//! this machine allows them.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use blip2_tests::cluster::{Cluster, wait_for_drill};
use blip2_tests::need::Need;
use blip2_tests::process::{Running, poll_for};
use blip2_tests::relay::Relay;
use blip2_tests::run::SmallRun;

const DEADLINE: Duration = Duration::from_secs(120);
/// A host that is gone is noticed by the kernel within this time; the rest is for what follows.
const NOTICED: Duration = Duration::from_secs(2);
const SLACK: Duration = Duration::from_secs(3);

fn reference() -> (String, u64) {
    let run = SmallRun::short("");
    run.train(&["--workers", "1"]).expect(0);
    run.digest()
}

fn end_well(processes: impl IntoIterator<Item = Running>) {
    for process in processes {
        process.wait_within(DEADLINE).unwrap_or_else(|still| panic!("{}", still.stderr())).expect(0);
    }
}

fn socket(url: &str) -> SocketAddr {
    url.rsplit('/').next().and_then(|address| address.parse().ok()).expect("host:port")
}

/// An address that is free now, for a worker that is reached through a relay.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free address")
}

/// A worker reached by the others, and reaching the coordinator, through relays.
struct Remote {
    to_coordinator: Relay,
    to_worker: Relay,
    worker: Running,
}

impl Remote {
    fn start(cluster: &Cluster<'_>, coordinator: &str, delay: Duration, drill: Option<&str>) -> Self {
        let listen = free_address();
        let to_worker = Relay::to(listen, delay);
        let to_coordinator = Relay::to(socket(coordinator), delay);
        let (listen, advertise) = (listen.to_string(), to_worker.address().to_string());
        let url = format!("http://{}", to_coordinator.address());
        let arguments = ["--listen", listen.as_str(), "--advertise", advertise.as_str()];
        let worker = cluster.worker("remote", &[&url], &arguments, drill);
        Self { to_coordinator, to_worker, worker }
    }
}

#[test]
fn a_slow_link_changes_nothing() {
    let run = SmallRun::short("[coordinator]\nworkers = 2\n");
    let cluster = Cluster::new(&run);
    let leader = cluster.coordinator(&[], None);
    let remote = Remote::start(&cluster, &leader.url, Duration::from_millis(50), None);
    let near = cluster.worker("near", &[&leader.url], &[], None);
    end_well([leader.process, near, remote.worker]);
    assert_eq!(run.digest(), reference());
    cluster.audit().expect(0);
}

#[test]
fn a_worker_whose_words_do_not_arrive_is_taken_for_lost_and_comes_back() {
    let deadlines = "heartbeat_ms = 200\nheartbeat_timeout_s = 1.5\nstep_deadline_s = 20.0\n";
    let run = SmallRun::short(&format!("[coordinator]\nworkers = 2\nmin_workers = 1\n{deadlines}"));
    let cluster = Cluster::new(&run);
    let leader = cluster.coordinator(&[], None);
    let mut remote = Remote::start(&cluster, &leader.url, Duration::ZERO, Some("reduction@3:300"));
    let near = cluster.worker("near", &[&leader.url], &[], None);
    wait_for_drill(&mut remote.worker, "reduction@3");
    let (epoch, steps) = (run.epoch(), run.committed());
    // One way only: the worker still hears the coordinator and its peer.
    remote.to_coordinator.hold_forth(true);
    let redealt = poll_for(DEADLINE, || (run.epoch() > epoch && run.committed() > steps).then_some(()));
    assert!(redealt.is_some(), "the others do not go on: {}", leader.process.stderr());
    remote.to_coordinator.hold_forth(false);
    end_well([leader.process, near]);
    drop(remote.to_worker);
    assert_eq!(run.digest(), reference());
    cluster.audit().expect(0);
}

#[test]
fn a_cut_connection_is_made_anew() {
    let run = SmallRun::short("[coordinator]\nworkers = 2\nmin_workers = 1\n");
    let cluster = Cluster::new(&run);
    let leader = cluster.coordinator(&[], None);
    let mut remote = Remote::start(&cluster, &leader.url, Duration::ZERO, Some("forward@3:300"));
    let near = cluster.worker("near", &[&leader.url], &[], None);
    wait_for_drill(&mut remote.worker, "forward@3");
    remote.to_coordinator.cut();
    remote.to_worker.cut();
    end_well([leader.process, near, remote.worker]);
    assert_eq!(run.digest(), reference());
    cluster.audit().expect(0);
}

/// Two network namespaces joined by a pair of virtual interfaces; gone when dropped.
struct Namespaces {
    near: String,
    far: String,
}

impl Namespaces {
    /// `None`, with a printed word, where this machine does not allow them.
    fn new(name: &str) -> Option<Self> {
        let id = format!("{name}{}", std::process::id());
        let both = Self { near: format!("b2n{id}"), far: format!("b2f{id}") };
        let (near, far) = (both.near.clone(), both.far.clone());
        let made = ip(&["netns", "add", &near])
            && ip(&["netns", "add", &far])
            && ip(&[
                "-n", &near, "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", &far,
            ])
            && [(&near, "10.77.0.1/24"), (&far, "10.77.0.2/24")].into_iter().all(|(namespace, address)| {
                ip(&["-n", namespace, "address", "add", address, "dev", "veth0"])
                    && ip(&["-n", namespace, "link", "set", "veth0", "up"])
                    && ip(&["-n", namespace, "link", "set", "lo", "up"])
            });
        if !made {
            Need::Namespaces.skip();
        }
        made.then_some(both)
    }

    /// Delay and loss on both ends; `false`, with a printed word, where this machine has no `netem`.
    fn impair(&self, how: &[&str]) -> bool {
        let impaired = [&self.near, &self.far].into_iter().all(|namespace| {
            let before = ["netns", "exec", namespace, "tc", "qdisc", "add", "dev", "veth0", "root", "netem"];
            ip(&[&before[..], how].concat())
        });
        if !impaired {
            Need::Netem.skip();
        }
        impaired
    }

    fn cluster<'a>(&self, run: &'a SmallRun, namespace: &str) -> Cluster<'a> {
        Cluster::new(run).inside(&["ip", "netns", "exec", namespace])
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // What was not made cannot be removed.
        for namespace in [&self.near, &self.far] {
            ip(&["netns", "delete", namespace]);
        }
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}

const NEAR: [&str; 2] = ["--listen", "10.77.0.1:0"];
const FAR: [&str; 2] = ["--listen", "10.77.0.2:0"];

#[test]
fn delay_and_loss_change_nothing() {
    let Some(namespaces) = Namespaces::new("d") else { return };
    if !namespaces.impair(&["delay", "50ms", "loss", "1%"]) {
        return;
    }
    let run = SmallRun::short("[coordinator]\nworkers = 2\n");
    let near = namespaces.cluster(&run, &namespaces.near);
    let far = namespaces.cluster(&run, &namespaces.far);
    let leader = near.coordinator(&NEAR, None);
    let workers =
        [near.worker("near", &[&leader.url], &NEAR, None), far.worker("far", &[&leader.url], &FAR, None)];
    end_well([leader.process].into_iter().chain(workers));
    assert_eq!(run.digest(), reference());
    near.audit().expect(0);
}

/// What cuts the link, and whether it can be mended.
fn cut_link_is_noticed(name: &str, cut: impl Fn(&Namespaces) -> bool) {
    let Some(namespaces) = Namespaces::new(name) else { return };
    // A hang would be noticed much later than a host that is gone.
    let run = SmallRun::short("[coordinator]\nworkers = 2\nmin_workers = 1\nheartbeat_timeout_s = 30.0\n");
    let near = namespaces.cluster(&run, &namespaces.near);
    let far = namespaces.cluster(&run, &namespaces.far);
    let leader = near.coordinator(&NEAR, None);
    let worker = near.worker("near", &[&leader.url], &NEAR, None);
    let mut lost = far.worker("far", &[&leader.url], &FAR, Some("forward@3:60000"));
    wait_for_drill(&mut lost, "forward@3");
    let epoch = run.epoch();
    assert!(cut(&namespaces), "the link can be cut");
    let began = Instant::now();
    let noticed = poll_for(DEADLINE, || (run.epoch() > epoch).then(|| began.elapsed()));
    let noticed = noticed.unwrap_or_else(|| panic!("not noticed: {}", leader.process.stderr()));
    println!("{name}: a new epoch {noticed:.1?} after the cut");
    assert!(noticed <= NOTICED + SLACK, "{noticed:?}");
    end_well([leader.process, worker]);
    drop(lost);
    assert_eq!(run.digest(), reference());
    near.audit().expect(0);
}

#[test]
fn a_link_that_is_cut_is_noticed() {
    cut_link_is_noticed("c", |namespaces| ip(&["-n", &namespaces.far, "link", "set", "veth0", "down"]));
}

#[test]
fn a_link_that_is_cut_one_way_is_noticed() {
    cut_link_is_noticed("o", |namespaces| {
        ip(&["-n", &namespaces.far, "route", "add", "blackhole", "10.77.0.1"])
    });
}
