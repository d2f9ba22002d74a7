//! Which faults come when: a function of the seed.

use std::fmt;

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL to a worker.
    KillWorker,
    /// SIGKILL to all workers at once: the run goes back to its newest checkpoint.
    KillAllWorkers,
    /// SIGSTOP to a worker until it is missed, then SIGCONT.
    StopWorker,
    /// SIGTERM to a worker.
    DrainWorker,
    /// SIGKILL to the coordinator; another one continues.
    KillCoordinator,
    /// SIGSTOP to the coordinator; another one takes over before SIGCONT.
    StopCoordinator,
    /// SIGTERM to the coordinator: all save and leave, and are started again.
    DrainCoordinator,
    /// The run's disk is full for a while.
    Fill,
    /// All are killed and the newest checkpoint is damaged before they are started again.
    Damage,
    /// A worker joins whose clock is another.
    Clock,
}

/// How many kinds of faults there are.
pub(crate) const KINDS: usize = 10;

const ALL: [Fault; KINDS] = [
    Fault::KillWorker,
    Fault::KillAllWorkers,
    Fault::StopWorker,
    Fault::DrainWorker,
    Fault::KillCoordinator,
    Fault::StopCoordinator,
    Fault::DrainCoordinator,
    Fault::Fill,
    Fault::Damage,
    Fault::Clock,
];

/// A fault, as soon as so many steps are committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    pub(crate) step: u64,
    pub(crate) fault: Fault,
}

/// Events in their order.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    pub(crate) events: Vec<Event>,
}

impl Schedule {
    /// So many events, `apart` steps from each other: every kind once in each round, in the order of the
    /// seed.
    pub(crate) fn of(seed: u64, events: usize, apart: u64) -> Self {
        let mut random = Random::new(seed);
        let mut faults = Vec::new();
        while faults.len() < events {
            let mut round = ALL;
            for place in (1..KINDS).rev() {
                round.swap(place, random.below(place as u64 + 1) as usize);
            }
            faults.extend(round);
        }
        let event = |(place, fault): (usize, Fault)| Event { step: 2 + place as u64 * apart, fault };
        Self { events: faults.into_iter().take(events).enumerate().map(event).collect() }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.events.iter().map(|event| format!("{:?}@{}", event.fault, event.step));
        f.write_str(&events.collect::<Vec<_>>().join(" "))
    }
}

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

#[test]
fn a_seed_is_a_schedule_with_every_kind() {
    let shown = |seed| Schedule::of(seed, KINDS, 3).to_string();
    assert_eq!(shown(5), shown(5));
    assert_ne!(shown(5), shown(6));
    for fault in ALL {
        assert!(shown(5).contains(&format!("{fault:?}@")), "{fault:?} in {}", shown(5));
    }
}
