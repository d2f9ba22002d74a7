//! The kill matrix: a worker or the coordinator is killed, stopped or asked to go in each phase of a run.
//! Every run ends with the parameters of the run that nothing happened to, and with every sample used once.
//!
//! Processes are stopped for a few seconds, with deadlines to match; `BLIP2_FULL_STOPS=1` stops them for 20 s
//! with the deadlines of the defaults.

use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use blip2_tests::cluster::{Cluster, Coordinator, pause, wait_for_drill};
use blip2_tests::process::{Ended, Running, poll_for, signal};
use blip2_tests::run::{SHORT_STEPS, SmallRun};

/// After a replacement is up, steps flow again within this time.
const BAR: Duration = Duration::from_secs(5);
/// No cell takes longer, whatever the load.
const CELL: Duration = Duration::from_secs(120);
/// How long a process waits at the place of its drill when it is not to be left there.
const SHORT_WAIT: &str = "800";
/// The same when it is to be killed there.
const LONG_WAIT: &str = "60000";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Pause,
    Terminate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Worker,
    Coordinator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Join,
    Forward,
    Reduction,
    Commit,
    Upload,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    fault: Fault,
    role: Role,
    phase: Phase,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, role, phase } = self;
        write!(f, "{fault:?} the {role:?} in {phase:?}")
    }
}

impl Cell {
    fn all() -> impl Iterator<Item = Self> {
        let faults = [Fault::Pause, Fault::Kill, Fault::Terminate];
        let phases = [Phase::Join, Phase::Forward, Phase::Reduction, Phase::Commit, Phase::Upload];
        faults.into_iter().flat_map(move |fault| {
            [Role::Worker, Role::Coordinator]
                .into_iter()
                .flat_map(move |role| phases.into_iter().map(move |phase| Self { fault, role, phase }))
        })
    }

    /// Whether the coordinator itself waits in this phase; in the others a worker does.
    fn coordinator_waits(&self) -> bool {
        self.role == Role::Coordinator && matches!(self.phase, Phase::Join | Phase::Commit | Phase::Upload)
    }

    /// The place at which the process waits.
    fn place(&self) -> &'static str {
        match (self.phase, self.coordinator_waits()) {
            (Phase::Join, false) => "join@0",
            (Phase::Join, true) => "election@0",
            (Phase::Forward, _) => "forward@4",
            (Phase::Reduction, _) => "reduction@4",
            (Phase::Commit, _) => "commit@4",
            (Phase::Upload, false) => "upload@3",
            (Phase::Upload, true) => "checkpoint@3",
        }
    }

    fn drill(&self) -> String {
        let victim_waits = self.coordinator_waits() || self.role == Role::Worker;
        let wait = if self.fault == Fault::Kill && victim_waits { LONG_WAIT } else { SHORT_WAIT };
        format!("{}:{wait}", self.place())
    }
}

fn full_stops() -> bool {
    std::env::var_os("BLIP2_FULL_STOPS").is_some()
}

/// How long a process is stopped: longer than it takes to be missed.
fn stop_time() -> Duration {
    Duration::from_millis(if full_stops() { 20_000 } else { 3_000 })
}

fn short_run() -> SmallRun {
    let deadlines = if full_stops() { "" } else { "heartbeat_ms = 200\nheartbeat_timeout_s = 1.5\n" };
    SmallRun::short(&format!(
        "[coordinator]\nworkers = 2\nmin_workers = 1\ntakeover_after_s = 1.0\nflap_limit = 0\n{deadlines}"
    ))
}

/// Digest of the run that nothing happens to.
fn reference() -> &'static (String, u64) {
    static REFERENCE: OnceLock<(String, u64)> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let run = SmallRun::short("");
        run.train(&["--workers", "1"]).expect(0);
        run.digest()
    })
}

#[test]
fn whatever_happens_to_a_process_the_run_ends_the_same() {
    assert_eq!(reference().1, 2 * SHORT_STEPS);
    let asked_for = std::env::var("BLIP2_CELL").unwrap_or_default();
    let cells: Vec<Cell> = Cell::all().filter(|cell| cell.to_string().contains(&asked_for)).collect();
    let queue = Mutex::new(cells.iter());
    let failures = Mutex::new(Vec::new());
    // Each cell is three processes, of which mostly one computes.
    let work = || {
        while let Some(cell) = { lock(&queue).next() } {
            let began = Instant::now();
            let outcome = std::panic::catch_unwind(|| play(*cell));
            println!("{cell}: {} in {:.1?}", outcome.is_ok(), began.elapsed());
            if outcome.is_err() {
                lock(&failures).push(cell.to_string());
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let failures = lock(&failures);
    assert!(
        failures.is_empty(),
        "failed: {failures:?}; one alone: BLIP2_CELL={:?} cargo test --release -p blip2-tests --test faults",
        failures[0]
    );
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nobody panics with it")
}

fn play(cell: Cell) {
    let run = short_run();
    let cluster = Cluster::new(&run);
    match (cell.role, cell.fault) {
        (Role::Worker, _) => worker_meets(cell, &run, &cluster),
        (Role::Coordinator, Fault::Terminate) => coordinator_is_asked_to_go(cell, &cluster),
        (Role::Coordinator, _) => coordinator_fails(cell, &run, &cluster),
    }
    assert_eq!(&run.digest(), reference(), "{cell}");
    assert_eq!(run.recorded(), (0..2 * SHORT_STEPS).collect::<Vec<_>>(), "{cell}: one line a step");
    cluster.audit().expect(0);
}

/// A worker is killed, stopped or leaves; the other goes on, and one more comes.
fn worker_meets(cell: Cell, run: &SmallRun, cluster: &Cluster<'_>) {
    let leader = cluster.coordinator(&[], None);
    let mut victim = cluster.worker("victim", &[&leader.url], &[], Some(&cell.drill()));
    let other = cluster.worker("other", &[&leader.url], &[], None);
    wait_for_drill(&mut victim, cell.place());
    let steps = run.committed();
    match cell.fault {
        Fault::Kill => {
            signal(victim.id(), "KILL");
            let again = cluster.worker("victim", &[&leader.url], &["--join-timeout", "20"], None);
            flows_again(cell, run, steps, Instant::now());
            end_well(leader.process);
            drop(again);
        }
        Fault::Pause => {
            pause(victim.id(), stop_time());
            end_well(leader.process);
            // It comes back with its state, or the run ended without it.
            let ended = ended(victim);
            assert!(matches!(ended.code, Some(0 | 1 | 4)), "{ended:?}");
        }
        Fault::Terminate => {
            signal(victim.id(), "TERM");
            let again = cluster.worker("successor", &[&leader.url], &["--join-timeout", "20"], None);
            // It is let go; or its part is stored no sooner than the run is done.
            let ended = ended(victim);
            assert!(matches!(ended.code, Some(0 | 5)), "{ended:?}");
            end_well(leader.process);
            drop(again);
        }
    }
    end_well(other);
}

/// The coordinator is killed or stopped; one that stands by takes over.
fn coordinator_fails(cell: Cell, run: &SmallRun, cluster: &Cluster<'_>) {
    let mut leader = cluster.coordinator(&[], cell.coordinator_drill().as_deref());
    let standby = cluster.coordinator(&["--standby"], None);
    let mut workers = two_workers(cell, cluster, &[&leader.url, &standby.url]);
    wait_for_drill(waiting(cell, &mut leader, &mut workers), cell.place());
    let (epoch, steps) = (run.epoch(), run.committed());
    signal(leader.process.id(), if cell.fault == Fault::Kill { "KILL" } else { "STOP" });
    let stopped = Instant::now();
    let up = taken_over(cell, run, epoch);
    flows_again(cell, run, steps, up);
    if cell.fault == Fault::Pause {
        std::thread::sleep(stop_time().saturating_sub(stopped.elapsed()));
        signal(leader.process.id(), "CONT");
        // It finds that another leads.
        let ended = ended(leader.process);
        assert_eq!(ended.code, Some(4), "{ended:?}");
    }
    end_well(standby.process);
    workers.into_iter().for_each(end_well);
}

/// The coordinator saves and goes; the run is continued with `--resume`.
fn coordinator_is_asked_to_go(cell: Cell, cluster: &Cluster<'_>) {
    let mut leader = cluster.coordinator(&[], cell.coordinator_drill().as_deref());
    let mut workers = two_workers(cell, cluster, &[&leader.url]);
    wait_for_drill(waiting(cell, &mut leader, &mut workers), cell.place());
    signal(leader.process.id(), "TERM");
    // Before the first step there is nothing to save, which it says.
    let code = if cell.phase == Phase::Join { 1 } else { 5 };
    let words: &[&str] =
        if cell.phase == Phase::Join { &["before anything could be saved"] } else { &["--resume"] };
    ended(leader.process).expect(code).says(words);
    for worker in workers {
        ended(worker).expect(5);
    }
    let leader = cluster.coordinator(&["--resume"], None);
    let workers = ["first", "second"].map(|name| cluster.worker(name, &[&leader.url], &[], None));
    end_well(leader.process);
    workers.into_iter().for_each(end_well);
}

/// A coordinator that is started anew, at another address, finds the workers: they find it through the store.
#[test]
fn a_replacement_is_found_and_steps_flow_again() {
    let cell = Cell { fault: Fault::Kill, role: Role::Coordinator, phase: Phase::Commit };
    let run = short_run();
    let cluster = Cluster::new(&run);
    let mut leader = cluster.coordinator(&[], cell.coordinator_drill().as_deref());
    let workers = two_workers(cell, &cluster, &[&leader.url]);
    wait_for_drill(&mut leader.process, cell.place());
    signal(leader.process.id(), "KILL");
    let steps = run.committed();
    // The workers look for it meanwhile.
    std::thread::sleep(Duration::from_secs(1));
    let replacement = cluster.coordinator(&["--resume"], None);
    flows_again(cell, &run, steps, Instant::now());
    end_well(replacement.process);
    workers.into_iter().for_each(end_well);
    assert_eq!(&run.digest(), reference());
    cluster.audit().expect(0);
}

impl Cell {
    /// The coordinator's drill, when it is the one that waits.
    fn coordinator_drill(&self) -> Option<String> {
        self.coordinator_waits().then(|| self.drill())
    }
}

/// Two workers, of which the first waits in the phase if the coordinator does not.
fn two_workers(cell: Cell, cluster: &Cluster<'_>, urls: &[&str]) -> [Running; 2] {
    let drill = (!cell.coordinator_waits()).then(|| cell.drill());
    [cluster.worker("first", urls, &[], drill.as_deref()), cluster.worker("second", urls, &[], None)]
}

/// The process that waits in the phase.
fn waiting<'a>(cell: Cell, leader: &'a mut Coordinator, workers: &'a mut [Running; 2]) -> &'a mut Running {
    if cell.coordinator_waits() { &mut leader.process } else { &mut workers[0] }
}

/// Waits until another coordinator has taken an epoch; when that was seen.
fn taken_over(cell: Cell, run: &SmallRun, epoch: u64) -> Instant {
    let taken = poll_for(CELL, || (run.epoch() > epoch).then(Instant::now));
    taken.unwrap_or_else(|| panic!("{cell}: nobody takes over"))
}

/// Waits for the next committed step, which must come in time after the replacement was up.
fn flows_again(cell: Cell, run: &SmallRun, steps: usize, up: Instant) {
    let flowing = poll_for(CELL, || (run.committed() > steps).then(|| up.elapsed()));
    let time = flowing.unwrap_or_else(|| panic!("{cell}: no step after {steps} steps"));
    println!("{cell}: steps flow again after {time:.1?}");
    assert!(time <= BAR, "{cell}: steps flow again after {time:?}, {BAR:?} at most");
}

fn ended(process: Running) -> Ended {
    process.wait_within(CELL).unwrap_or_else(|running| panic!("it does not end: {}", running.stderr()))
}

fn end_well(process: Running) {
    ended(process).expect(0);
}
