//! Hosts that reach each other, or not; and the connections between workers and coordinators.
//!
//! A stream keeps its order and loses nothing while it lives, as TCP does. What is sent while a link is cut
//! waits for it to heal; if that takes longer than the kernel's time-out, each end notices by itself that the
//! connection is gone, so that one end may still act on what the other has given up.

use std::collections::BTreeMap;

use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::worker_message::Kind as FromWorker;

use crate::random::Random;
use crate::schedule::Node;

/// Number of a process, unique in a simulation.
pub(crate) type ProcessId = usize;
/// Number of a connection, unique in a simulation.
pub(crate) type SessionId = u64;

/// The shortest and longest time after which the kernel gives up a connection that answers nothing, in
/// milliseconds.
pub(crate) const KERNEL_TIMEOUT: (u64, u64) = (2_000, 3_500);

/// What travels on a connection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// To the coordinator.
    Up(FromWorker),
    /// To the worker.
    Down(ToWorker),
    /// The sender has nothing more to say.
    End,
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parcel {
    pub(crate) session: SessionId,
    pub(crate) to_worker: bool,
    pub(crate) content: Content,
}

/// One end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) process: ProcessId,
    pub(crate) node: Node,
    /// The process still reads.
    pub(crate) reads: bool,
    /// The process is gone, or its kernel has given the connection up.
    pub(crate) is_broken: bool,
    /// When the last thing sent to this end arrives.
    last: u64,
    /// The next message to this end arrives twice.
    pub(crate) repeat: bool,
}

/// A connection of a worker to a coordinator.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) worker: End,
    pub(crate) coordinator: End,
    /// The worker's opening that led to it.
    pub(crate) attempt: u64,
}

impl End {
    fn new(process: ProcessId, node: Node) -> Self {
        Self { process, node, reads: true, is_broken: false, last: 0, repeat: false }
    }

    /// When something sent now arrives at this end, after all that was sent before.
    pub(crate) fn in_order(&mut self, time: u64) -> u64 {
        self.last = time.max(self.last);
        self.last
    }

    /// Whether this message is to arrive twice. Introductions and endings never do: they are the connection's
    /// own.
    pub(crate) fn takes_repeat(&mut self, content: &Content) -> bool {
        let is_bound = matches!(content, Content::Up(FromWorker::Hello(_)) | Content::End);
        !is_bound && std::mem::take(&mut self.repeat)
    }
}

impl Session {
    pub(crate) fn new(worker: (ProcessId, Node), coordinator: (ProcessId, Node), attempt: u64) -> Self {
        Self {
            worker: End::new(worker.0, worker.1),
            coordinator: End::new(coordinator.0, coordinator.1),
            attempt,
        }
    }

    pub(crate) fn end(&mut self, is_worker: bool) -> &mut End {
        if is_worker { &mut self.worker } else { &mut self.coordinator }
    }
}

/// The links between hosts.
#[derive(Debug)]
pub(crate) struct Network {
    usual_delay: u64,
    /// How many faults cut a link at present.
    cuts: BTreeMap<(Node, Node), u32>,
    /// How often a link was cut.
    generations: BTreeMap<(Node, Node), u64>,
    slow: BTreeMap<(Node, Node), Vec<u64>>,
    held: BTreeMap<(Node, Node), Vec<Parcel>>,
}

impl Network {
    pub(crate) fn new(usual_delay: u64) -> Self {
        Self {
            usual_delay,
            cuts: BTreeMap::new(),
            generations: BTreeMap::new(),
            slow: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// Milliseconds that a message takes.
    pub(crate) fn delay(&self, random: &mut Random, from: Node, to: Node) -> u64 {
        let slow: u64 = self.slow.get(&(from, to)).map_or(0, |delays| delays.iter().sum());
        slow + random.below(self.usual_delay + 1)
    }

    pub(crate) fn is_cut(&self, from: Node, to: Node) -> bool {
        from != to && self.cuts.get(&(from, to)).is_some_and(|faults| *faults > 0)
    }

    /// Whether a request and its answer get through.
    pub(crate) fn is_cut_any_way(&self, one: Node, other: Node) -> bool {
        self.is_cut(one, other) || self.is_cut(other, one)
    }

    pub(crate) fn generation(&self, from: Node, to: Node) -> u64 {
        self.generations.get(&(from, to)).copied().unwrap_or(0)
    }

    pub(crate) fn cut(&mut self, from: Node, to: Node) {
        *self.cuts.entry((from, to)).or_default() += 1;
        *self.generations.entry((from, to)).or_default() += 1;
    }

    /// Ends one cut; returns what waited for it, if it was the last.
    pub(crate) fn heal(&mut self, from: Node, to: Node) -> Vec<Parcel> {
        let cuts = self.cuts.entry((from, to)).or_default();
        *cuts = cuts.saturating_sub(1);
        if *cuts > 0 { Vec::new() } else { self.held.remove(&(from, to)).unwrap_or_default() }
    }

    /// Keeps a message until the link heals.
    pub(crate) fn hold(&mut self, from: Node, to: Node, parcel: Parcel) {
        self.held.entry((from, to)).or_default().push(parcel);
    }

    pub(crate) fn slow_down(&mut self, from: Node, to: Node, delay: u64) {
        self.slow.entry((from, to)).or_default().push(delay);
    }

    pub(crate) fn speed_up(&mut self, from: Node, to: Node, delay: u64) {
        let delays = self.slow.entry((from, to)).or_default();
        if let Some(place) = delays.iter().position(|found| *found == delay) {
            delays.remove(place);
        }
    }
}
