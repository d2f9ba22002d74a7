//! What goes wrong and when: a random schedule per seed.

use std::fmt;

use crate::random::Random;

/// Places at which a coordinator may run.
pub(crate) const COORDINATORS: u8 = 3;
/// Places at which a worker may run.
pub(crate) const WORKERS: u8 = 7;

/// Something with a network of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Node {
    /// Host of a coordinator.
    Coordinator(u8),
    /// Host of a worker.
    Worker(u8),
    /// The object store.
    Store,
}

/// How the run is set up.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) workers: u8,
    pub(crate) min_workers: u8,
    /// A second coordinator stands by, and fallen ones come back as stand-bys.
    pub(crate) standby: bool,
    pub(crate) every_steps: u64,
    pub(crate) keep: u32,
    pub(crate) automatic: bool,
    /// Milliseconds that a message usually takes at most.
    pub(crate) usual_delay: u64,
}

/// How the store misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreFault {
    /// Every request takes this many milliseconds longer.
    Slow(u64),
    /// Requests fail.
    Fails,
    /// Requests fail after they were done: the answer is lost.
    FailsAfterwards,
}

/// How a worker's host is sick, which no other is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sickness {
    /// What its process needs is not there: it cannot begin, nor go on.
    Lacks,
    /// Its reads fail, another attempt may go well.
    Reads,
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// A worker's process is killed, or its host is gone without a word; another starts there later.
    KillWorker { place: u8, silently: bool, back_after: u64 },
    /// All workers at once.
    KillAllWorkers { back_after: u64 },
    /// A coordinator's process is killed, or its host is gone; another starts there later.
    KillCoordinator { place: u8, silently: bool, back_after: u64 },
    /// A worker more.
    Join { place: u8 },
    /// A process stands still (SIGSTOP) and goes on (SIGCONT).
    Pause { node: Node, lasting: u64 },
    /// A coordinator is started beside the one that leads.
    SecondCoordinator,
    /// Nothing gets from one host to another, or neither way.
    Cut { from: Node, to: Node, both: bool, lasting: u64 },
    /// A host reaches nobody and nobody reaches it, but for the store maybe.
    Isolate { node: Node, store_too: bool, lasting: u64 },
    /// Messages between two hosts take longer, one way.
    Slow { from: Node, to: Node, delay: u64, lasting: u64 },
    /// A worker's session is reset.
    Reset { place: u8 },
    /// A worker's introduction arrives again, on a connection of its own.
    RepeatHello { place: u8 },
    /// A worker's next messages to the coordinator and from it arrive twice.
    Repeat { place: u8 },
    /// The store misbehaves, for one host or for all.
    Store { fault: StoreFault, node: Option<Node>, lasting: u64 },
    /// A worker is asked to leave (SIGTERM).
    Leave { place: u8 },
    /// A coordinator is asked to stop (SIGTERM).
    Stop { place: u8 },
    /// A worker's host is sick.
    Sick { place: u8, how: Sickness, lasting: u64 },
    /// A byte of the newest checkpoint is flipped, if there is one before it.
    Damage,
}

/// A fault and its time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: u64,
    pub(crate) kind: FaultKind,
}

/// The setup and the faults of a seed.
#[derive(Debug, Clone)]
pub(crate) struct Plot {
    pub(crate) seed: u64,
    pub(crate) setup: Setup,
    pub(crate) faults: Vec<Fault>,
}

impl Plot {
    /// The plot of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, 1);
        let workers = random.between(1, 4) as u8;
        let setup = Setup {
            workers,
            min_workers: random.between(1, u64::from(workers)) as u8,
            standby: !random.one_in(3),
            every_steps: random.below(5),
            keep: random.between(1, 3) as u32,
            automatic: random.one_in(4),
            usual_delay: [2, 10, 40][random.below(3) as usize],
        };
        let count = random.below(13);
        let mut at = 0;
        let mut faults = Vec::new();
        for _ in 0..count {
            // Now and then several at once.
            at += if random.one_in(4) { random.below(30) } else { random.between(50, 2500) };
            faults.push(Fault { at, kind: fault(&mut random) });
        }
        Self { seed, setup, faults }
    }
}

fn worker(random: &mut Random) -> u8 {
    // The first ones are there from the beginning.
    let bound = if random.one_in(4) { u64::from(WORKERS) } else { 4 };
    random.below(bound) as u8
}

fn coordinator(random: &mut Random) -> u8 {
    if random.one_in(5) { random.below(u64::from(COORDINATORS)) as u8 } else { random.below(2) as u8 }
}

fn node(random: &mut Random) -> Node {
    if random.one_in(3) { Node::Coordinator(coordinator(random)) } else { Node::Worker(worker(random)) }
}

fn lasting(random: &mut Random) -> u64 {
    if random.one_in(3) { random.between(5_000, 25_000) } else { random.between(100, 4_000) }
}

fn fault(random: &mut Random) -> FaultKind {
    let back_after = random.between(50, 12_000);
    match random.below(35) {
        0..=5 => FaultKind::KillWorker { place: worker(random), silently: random.one_in(3), back_after },
        6 => FaultKind::KillAllWorkers { back_after },
        7..=10 => {
            FaultKind::KillCoordinator { place: coordinator(random), silently: random.one_in(3), back_after }
        }
        11 | 12 => FaultKind::Join { place: random.below(u64::from(WORKERS)) as u8 },
        13..=15 => FaultKind::Pause { node: node(random), lasting: lasting(random) },
        16 => FaultKind::SecondCoordinator,
        17..=19 => {
            let from = node(random);
            let to = if random.one_in(6) { Node::Store } else { node(random) };
            FaultKind::Cut { from, to, both: random.one_in(2), lasting: lasting(random) }
        }
        20 => {
            let node = node(random);
            FaultKind::Isolate { node, store_too: random.one_in(2), lasting: lasting(random) }
        }
        21 | 22 => {
            let (from, to) = (node(random), node(random));
            FaultKind::Slow { from, to, delay: random.between(50, 3000), lasting: lasting(random) }
        }
        23 => FaultKind::Reset { place: worker(random) },
        24 => FaultKind::RepeatHello { place: worker(random) },
        25 => FaultKind::Repeat { place: worker(random) },
        26..=28 => {
            let fault = match random.below(3) {
                0 => StoreFault::Slow(random.between(100, 5000)),
                1 => StoreFault::Fails,
                _ => StoreFault::FailsAfterwards,
            };
            let node = if random.one_in(2) { Some(node(random)) } else { None };
            FaultKind::Store { fault, node, lasting: random.between(100, 8_000) }
        }
        29 => FaultKind::Leave { place: worker(random) },
        30 if random.one_in(2) => FaultKind::Stop { place: coordinator(random) },
        30 | 31 => FaultKind::Damage,
        _ => {
            let how = if random.one_in(2) { Sickness::Lacks } else { Sickness::Reads };
            FaultKind::Sick { place: worker(random), how, lasting: lasting(random) }
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator(place) => write!(f, "c{place}"),
            Self::Worker(place) => write!(f, "w{place}"),
            Self::Store => write!(f, "store"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>7.3} s  {:?}", self.at as f64 / 1e3, self.kind)
    }
}
