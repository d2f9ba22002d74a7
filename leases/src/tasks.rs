//! Which task is whose, for how long: a state machine without a clock of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Leases of a task that may end without a word, for each failure that is allowed: workers are preempted more
/// often than tasks fail, but one that kills whoever takes it must come to an end.
const EXPIRATIONS_PER_FAILURE: u32 = 10;

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    task: u64,
    worker: String,
    ends: Duration,
}

/// What a worker that asks gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// A task.
    Task {
        /// Its number.
        task: u64,
        /// Names the lease.
        lease: u64,
    },
    /// Every task that is not done is leased, or waits for those that are.
    Wait,
    /// Every task is done.
    Finished,
}

/// Tasks that are open, leased and done. Times are counted from any fixed moment.
///
/// Invariant: a task is in exactly one of the three.
#[derive(Debug, Clone)]
pub struct Leases {
    duration: Duration,
    most_failures: u32,
    /// First tasks of what begins only when all tasks before are done.
    barriers: Vec<u64>,
    open: BTreeSet<u64>,
    held: BTreeMap<u64, Held>,
    done: BTreeSet<u64>,
    failures: BTreeMap<u64, u32>,
    expirations: BTreeMap<u64, u32>,
    given_up: Option<(u64, String)>,
    next_lease: u64,
}

impl Leases {
    /// `tasks` tasks, those of `done` done already; a task that fails `most_failures` times is given up, and
    /// so is one whose workers vanish ten times as often.
    pub fn new(tasks: u64, done: BTreeSet<u64>, duration: Duration, most_failures: u32) -> Self {
        let done: BTreeSet<u64> = done.into_iter().filter(|task| *task < tasks).collect();
        let open = (0..tasks).filter(|task| !done.contains(task)).collect();
        Self {
            duration,
            most_failures: most_failures.max(1),
            barriers: Vec::new(),
            open,
            held: BTreeMap::new(),
            done,
            failures: BTreeMap::new(),
            expirations: BTreeMap::new(),
            given_up: None,
            next_lease: 1,
        }
    }

    /// The same, with tasks of which each of `barriers` and those after it need all before it.
    pub fn with_barriers(self, barriers: Vec<u64>) -> Self {
        Self { barriers, ..self }
    }

    /// The first open task for a worker that asks at `now`.
    pub fn lease(&mut self, now: Duration, worker: &str) -> Offer {
        self.expire(now);
        if self.open.first().is_some_and(|task| self.waits(*task)) {
            return Offer::Wait;
        }
        if let Some(task) = self.open.pop_first() {
            let lease = self.next_lease;
            self.next_lease += 1;
            let held = Held { task, worker: worker.to_owned(), ends: now + self.duration };
            self.held.insert(lease, held);
            return Offer::Task { task, lease };
        }
        match self.held.is_empty() {
            true => Offer::Finished,
            false => Offer::Wait,
        }
    }

    /// Whether the lease of a task goes on, for its whole duration from `now`.
    ///
    /// Leases are numbered from 1 by every coordinator: one that was given by a coordinator before this may
    /// have the number of another task's.
    pub fn renew(&mut self, now: Duration, lease: u64, task: u64) -> bool {
        self.expire(now);
        let ends = now + self.duration;
        let held = self.held.get_mut(&lease).filter(|held| held.task == task);
        held.map(|held| held.ends = ends).is_some()
    }

    /// The task's record is in the store, whoever had a lease; whether that is news.
    pub fn done(&mut self, task: u64) -> bool {
        let known = self.open.remove(&task) | self.release(task);
        if known {
            self.done.insert(task);
        }
        known
    }

    /// The holder of a lease could not do the task. A lease that has ended counts no failure: its task is in
    /// other hands.
    pub fn failed(&mut self, now: Duration, lease: u64, task: u64, reason: &str) {
        self.expire(now);
        if !self.reopen(lease, task) {
            return;
        }
        let failures = self.failures.entry(task).or_insert(0);
        *failures += 1;
        if *failures >= self.most_failures {
            let reason = format!("failed {failures} times: {reason}");
            self.given_up.get_or_insert((task, reason));
        }
    }

    /// The holder of a task's lease leaves.
    pub fn give_back(&mut self, lease: u64, task: u64) {
        self.reopen(lease, task);
    }

    /// A task that went wrong too often, and how.
    pub fn given_up(&self) -> Option<&(u64, String)> {
        self.given_up.as_ref()
    }

    /// Whether every task is done.
    pub fn is_finished(&self) -> bool {
        self.open.is_empty() && self.held.is_empty()
    }

    /// Tasks, done ones, leased ones.
    pub fn counts(&self) -> [u64; 3] {
        let (open, held, done) = (self.open.len(), self.held.len(), self.done.len());
        [(open + held + done) as u64, done as u64, held as u64]
    }

    /// Workers that hold a lease, by name.
    pub fn workers(&self) -> BTreeSet<String> {
        self.held.values().map(|held| held.worker.clone()).collect()
    }

    /// Whether an open task, the first of all, needs one that is leased.
    fn waits(&self, task: u64) -> bool {
        let needed = self.barriers.iter().copied().filter(|barrier| *barrier <= task).max().unwrap_or(0);
        self.held.values().any(|held| held.task < needed)
    }

    fn release(&mut self, task: u64) -> bool {
        let lease = self.held.iter().find(|(_, held)| held.task == task).map(|(lease, _)| *lease);
        lease.and_then(|lease| self.held.remove(&lease)).is_some()
    }

    /// Ends the lease of a task that is not done; whether it was one.
    fn reopen(&mut self, lease: u64, task: u64) -> bool {
        let held = self.held.get(&lease).is_some_and(|held| held.task == task);
        if held {
            self.held.remove(&lease);
            self.open.insert(task);
        }
        held
    }

    /// Leases that nobody renewed end.
    fn expire(&mut self, now: Duration) {
        let ended: Vec<u64> =
            self.held.iter().filter(|(_, held)| held.ends <= now).map(|(lease, _)| *lease).collect();
        for lease in ended {
            if let Some(held) = self.held.remove(&lease) {
                tracing::warn!(task = held.task, worker = held.worker, "a lease ended without a word");
                self.open.insert(held.task);
                self.count_expiration(&held);
            }
        }
    }

    fn count_expiration(&mut self, held: &Held) {
        let expirations = self.expirations.entry(held.task).or_insert(0);
        *expirations += 1;
        if *expirations >= self.most_failures.saturating_mul(EXPIRATIONS_PER_FAILURE) {
            let reason = format!(
                "its lease ended {expirations} times without a word, at {} the last time; do its workers die of it?",
                held.worker
            );
            self.given_up.get_or_insert((held.task, reason));
        }
    }
}

#[cfg(test)]
mod tests {
    use blip2_random::KeyedRng;
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn nothing_behind_a_barrier_is_begun_before_all_before_it_is_done() {
        let mut leases = Leases::new(5, BTreeSet::new(), LEASE, 3).with_barriers(vec![2]);
        let (first, _) = leased(leases.lease(at(0), "a"));
        let (second, lease) = leased(leases.lease(at(0), "b"));
        assert_eq!((first, second), (0, 1));
        assert_eq!(leases.lease(at(1), "c"), Offer::Wait);
        assert!(leases.done(0));
        assert_eq!(leases.lease(at(2), "a"), Offer::Wait);
        // Whoever had it is gone: it is done first.
        leases.give_back(lease, 1);
        assert_eq!(leased(leases.lease(at(3), "a")).0, 1);
        assert_eq!(leases.lease(at(3), "b"), Offer::Wait);
        assert!(leases.done(1));
        assert_eq!(leased(leases.lease(at(4), "a")).0, 2);
        assert_eq!(leased(leases.lease(at(4), "b")).0, 3);
    }

    fn leased(offer: Offer) -> (u64, u64) {
        match offer {
            Offer::Task { task, lease } => (task, lease),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tasks_are_handed_out_in_order_and_come_back() {
        let mut leases = Leases::new(4, [1, 9].into(), LEASE, 2);
        assert_eq!(leases.counts(), [4, 1, 0]);
        let (first, a) = leased(leases.lease(at(0), "a"));
        let (second, b) = leased(leases.lease(at(5), "b"));
        let (third, _) = leased(leases.lease(at(5), "a"));
        assert_eq!((first, second, third), (0, 2, 3));
        assert_eq!(leases.lease(at(6), "c"), Offer::Wait);
        assert_eq!(leases.workers(), ["a", "b"].map(str::to_owned).into());
        // One is renewed, the other two are not.
        assert!(leases.renew(at(9), b, second));
        assert_eq!(leased(leases.lease(at(15), "c")).0, 0);
        assert!(!leases.renew(at(15), a, first), "it has ended");
        // Its holder was alive after all: what is in the store counts.
        assert!(leases.done(0));
        assert!(!leases.done(0) && leases.done(2));
        assert_eq!(leased(leases.lease(at(15), "c")).0, 3);
        assert!(!leases.is_finished() && leases.done(3) && leases.is_finished());
        assert_eq!(leases.lease(at(15), "c"), Offer::Finished);
    }

    #[test]
    fn a_task_that_fails_too_often_is_named() {
        let mut leases = Leases::new(1, BTreeSet::new(), LEASE, 2);
        let (_, lease) = leased(leases.lease(at(0), "a"));
        leases.failed(at(11), lease, 0, "too late to count");
        for reason in ["first", "second"] {
            assert_eq!(leases.given_up(), None);
            let (_, lease) = leased(leases.lease(at(12), "a"));
            leases.failed(at(12), lease, 0, reason);
        }
        assert_eq!(leases.given_up(), Some(&(0, "failed 2 times: second".to_owned())));
        let (_, lease) = leased(leases.lease(at(13), "a"));
        leases.give_back(lease, 0);
        assert_eq!(leases.counts(), [1, 0, 0]);
    }

    #[test]
    fn a_task_that_its_workers_die_of_is_named() {
        let mut leases = Leases::new(2, [1].into(), LEASE, 2);
        for round in 0..20 {
            assert_eq!(leases.given_up(), None, "after {round}");
            assert_eq!(leased(leases.lease(at(10 * round), &format!("w{round}"))).0, 0);
        }
        assert!(!leases.renew(at(200), 20, 0));
        let (task, reason) = leases.given_up().unwrap();
        assert!(*task == 0 && reason.contains("20 times") && reason.contains("w19"), "{reason}");
    }

    /// The first lease of a coordinator that was started again has the number of the first one before.
    #[test]
    fn a_lease_of_the_coordinator_before_touches_no_other_task() {
        let mut before = Leases::new(3, BTreeSet::new(), LEASE, 1);
        let (task, lease) = leased(before.lease(at(0), "old"));
        let mut leases = Leases::new(3, [0].into(), LEASE, 1);
        let (other, same) = leased(leases.lease(at(0), "new"));
        assert!(lease == same && task != other);
        assert!(!leases.renew(at(1), lease, task));
        leases.failed(at(1), lease, task, "of no concern");
        leases.give_back(lease, task);
        assert_eq!((leases.given_up(), leases.counts()), (None, [3, 1, 1]));
        assert!(leases.renew(at(1), same, other));
    }

    /// What may happen: to the clock, to a lease that was given, to a task.
    #[derive(Debug, Clone, Copy)]
    enum Happening {
        Waits(u64),
        Asks,
        Renews(usize),
        Does(usize),
        Fails(usize),
        Leaves(usize),
        ReportsAgain(u64),
    }

    fn happenings() -> impl Strategy<Value = Vec<Happening>> {
        use Happening::{Asks, Does, Fails, Leaves, Renews, ReportsAgain, Waits};
        let one = prop_oneof![
            (0..15_u64).prop_map(Waits),
            Just(Asks),
            Just(Asks),
            (0..8_usize).prop_map(Renews),
            (0..8_usize).prop_map(Does),
            (0..8_usize).prop_map(Fails),
            (0..8_usize).prop_map(Leaves),
            (0..8_u64).prop_map(ReportsAgain),
        ];
        prop::collection::vec(one, 0..80)
    }

    proptest! {
        /// Whatever happens, a task is open, leased once or done; what is done stays done and is news once;
        /// and once one patient worker is left, every task gets done.
        #[test]
        fn every_task_is_done_once_whatever_is_lost(tasks in 1..7_u64, happenings in happenings()) {
            let mut leases = Leases::new(tasks, BTreeSet::new(), LEASE, 1000);
            let (mut now, mut given, mut news) = (0, Vec::new(), BTreeMap::new());
            for happening in happenings {
                let of = |index: usize| given.get(index % given.len().max(1)).copied();
                match happening {
                    Happening::Waits(seconds) => now += seconds,
                    Happening::Asks => {
                        if let Offer::Task { task, lease } = leases.lease(at(now), "w") {
                            prop_assert!(!news.contains_key(&task), "a task that is done is given out");
                            given.push((task, lease));
                        }
                    }
                    Happening::Renews(index) => {
                        if let Some((task, lease)) = of(index) {
                            let goes_on = leases.renew(at(now), lease, task);
                            prop_assert!(!goes_on || !news.contains_key(&task));
                        }
                    }
                    Happening::Does(index) => {
                        if let Some((task, _)) = of(index) {
                            *news.entry(task).or_insert(0) += u32::from(leases.done(task));
                        }
                    }
                    Happening::Fails(index) => {
                        if let Some((task, lease)) = of(index) {
                            leases.failed(at(now), lease, task, "a reason");
                        }
                    }
                    Happening::Leaves(index) => {
                        if let Some((task, lease)) = of(index) {
                            leases.give_back(lease, task);
                        }
                    }
                    Happening::ReportsAgain(task) if news.contains_key(&task) => prop_assert!(!leases.done(task)),
                    Happening::ReportsAgain(_) => {}
                }
                let held: Vec<u64> = leases.held.values().map(|held| held.task).collect();
                prop_assert_eq!(held.iter().collect::<BTreeSet<_>>().len(), held.len());
                prop_assert_eq!(leases.counts()[..2].to_vec(), [tasks, news.len() as u64].to_vec());
            }
            while !leases.is_finished() {
                now += LEASE.as_secs();
                if let Offer::Task { task, .. } = leases.lease(at(now), "patient") {
                    *news.entry(task).or_insert(0) += u32::from(leases.done(task));
                }
            }
            prop_assert_eq!(news, (0..tasks).map(|task| (task, 1)).collect::<BTreeMap<_, _>>());
        }
    }

    /// Workers that come, die silently, are slow, report twice or late: every task is done in the end, and
    /// none is in two hands whose leases both go on.
    #[test]
    fn whatever_workers_do_every_task_is_done() {
        for seed in 0..300 {
            let mut draws = KeyedRng::new(seed, "leases", &[]);
            let tasks = 1 + draws.below(12);
            let mut leases = Leases::new(tasks, BTreeSet::new(), LEASE, 1000);
            let mut store = BTreeSet::new();
            // Of each worker: task, lease, when it is done; dead ones keep theirs.
            let mut busy: Vec<Option<(u64, u64, u64)>> = vec![None; 3];
            let mut now = 0;
            while !leases.is_finished() {
                now += 1;
                assert!(now < 100_000, "seed {seed}: {leases:?}");
                let who = draws.below(3) as usize;
                match busy[who] {
                    None => {
                        if let Offer::Task { task, lease } = leases.lease(at(now), &who.to_string()) {
                            assert!(!store.contains(&task) || !leases.done.contains(&task));
                            busy[who] = Some((task, lease, now + draws.below(25)));
                        }
                    }
                    // It dies, and another one comes in its place.
                    Some(_) if draws.below(12) == 0 => busy[who] = None,
                    Some((task, _, ready)) if now >= ready => {
                        store.insert(task);
                        // The report may be lost, or come twice.
                        for _ in 0..draws.below(3) {
                            leases.done(task);
                        }
                        busy[who] = None;
                    }
                    Some((task, lease, _)) => {
                        if draws.below(2) == 0 {
                            leases.renew(at(now), lease, task);
                        }
                    }
                }
                let held: Vec<u64> = leases.held.values().map(|held| held.task).collect();
                let distinct: BTreeSet<u64> = held.iter().copied().collect();
                assert_eq!(held.len(), distinct.len(), "seed {seed}");
                assert_eq!(leases.counts()[0], tasks, "seed {seed}");
            }
            assert_eq!(store.len() as u64, tasks, "seed {seed}");
        }
    }
}
