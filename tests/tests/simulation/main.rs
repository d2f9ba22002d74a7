//! Random schedules of faults over the state machines of production: the coordinator's and the members'.
//!
//! `docs/simulation.md` says what is simulated, what must hold and how a seed is replayed.

mod compute;
mod coordinator_process;
mod corpus;
mod faults;
mod invariants;
mod network;
#[cfg(feature = "planted-bugs")]
mod planted;
mod process;
mod random;
mod schedule;
mod shrink;
mod store;
mod traffic;
mod worker_process;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::invariants::Violation;
use crate::schedule::{Fault, FaultKind, Node, Plot};
use crate::world::{Summary, World};

/// Seeds of an ordinary run.
const SEEDS: u64 = 1200;
/// Simulated milliseconds within which steps flow once a coordinator has taken over and nothing else is
/// wrong.
const TAKEOVER: u64 = 5_000;

/// Runs a plot: what it came to, and what happened if that was asked for.
fn simulate(plot: &Plot, is_traced: bool) -> (Result<Summary, Violation>, Vec<String>) {
    let run = || World::new(plot.clone(), is_traced).run();
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let violation = Violation { what: "nothing panics", detail: text.unwrap_or_default() };
        (Err(violation), Vec::new())
    })
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is no number")))
}

/// Runs seeds on all cores; what each came to, in the order of the seeds.
fn run_seeds<T: Send>(seeds: u64, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let results = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let result = run(seed);
                    results.lock().expect("no thread panics with it").push((seed, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no thread panicked with it");
    results.sort_by_key(|(seed, _)| *seed);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The setup, the faults, and how to see the seed again.
fn report(plot: &Plot, violation: &Violation) -> String {
    let smallest = shrink::shrink(plot, |smaller| simulate(smaller, false).0.is_err());
    let faults = |faults: &[Fault]| faults.iter().map(|fault| format!("\n    {fault}")).collect::<String>();
    format!(
        "seed {}: {violation}\n  {:?}\n  faults:{}\n  the smallest schedule that fails ({}):{}\n  replay it:\n    \
         BLIP2_SIM_SEED={} cargo test --release -p blip2-tests --test simulation replay -- --nocapture",
        plot.seed,
        plot.setup,
        faults(&plot.faults),
        simulate(&smallest, false).0.map_or_else(|violation| violation.what, |_| "it does not"),
        faults(&smallest.faults),
        plot.seed,
    )
}

#[test]
fn random_faults_lose_repeat_and_split_nothing() {
    let seeds = number("BLIP2_SIM_SEEDS").unwrap_or(SEEDS);
    let ended = run_seeds(seeds, |seed| simulate(&Plot::new(seed), false).0);
    let failed: Vec<u64> =
        (0..).zip(&ended).filter(|(_, ended)| ended.is_err()).map(|(seed, _)| seed).collect();
    if let Some(seed) = failed.first().copied()
        && let Some(Err(violation)) = ended.get(seed as usize)
    {
        let others = failed.iter().take(20).map(|seed| match &ended[*seed as usize] {
            Err(Violation { what, .. }) => format!("\n  seed {seed}: {what}"),
            Ok(_) => String::new(),
        });
        let others: String = others.collect();
        panic!(
            "{} of {seeds} seeds fail, among them{others}\n{}",
            failed.len(),
            report(&Plot::new(seed), violation)
        );
    }
    let summaries: Vec<Summary> = ended.into_iter().flatten().collect();
    let interruptions: u32 = summaries.iter().map(|summary| summary.interruptions).sum();
    let takeovers: usize = summaries.iter().map(|summary| summary.takeovers.len()).sum();
    let events: u64 = summaries.iter().map(|summary| summary.events).sum();
    println!(
        "{seeds} seeds, {events} events, {interruptions} interruptions, {takeovers} coordinators that led"
    );
    // Schedules in which nothing happens would prove nothing.
    assert!(interruptions > 0 && takeovers as u64 > seeds, "{interruptions} {takeovers}");
}

#[test]
fn replay() {
    let Some(seed) = number("BLIP2_SIM_SEED") else { return };
    let mut plot = Plot::new(seed);
    if std::env::var_os("BLIP2_SIM_LOST").is_some() {
        plot = with_a_lost_coordinator(seed);
    }
    if std::env::var_os("BLIP2_SIM_SHRINK").is_some() {
        plot = shrink::shrink(&plot, |smaller| simulate(smaller, false).0.is_err());
    }
    let (ended, trace) = simulate(&plot, true);
    println!("{:?}", plot.setup);
    plot.faults.iter().for_each(|fault| println!("  {fault}"));
    trace.iter().for_each(|line| println!("{line}"));
    match ended {
        Ok(summary) => println!("seed {seed} ends well: {summary:?}"),
        Err(violation) => panic!("{}", report(&plot, &violation)),
    }
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    let seeds = 16;
    let first: Vec<_> = (0..seeds).map(|seed| simulate(&Plot::new(seed), true)).collect();
    let again = run_seeds(seeds, |seed| simulate(&Plot::new(seed), true));
    for (seed, (first, again)) in first.iter().zip(&again).enumerate() {
        let differs = first.1.iter().zip(&again.1).find(|(first, again)| first != again);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!((&first.0, first.1.len()), (&again.0, again.1.len()), "seed {seed}");
    }
    let untraced = simulate(&Plot::new(3), false).0;
    assert_eq!(first[3].0, untraced, "looking changes nothing");
    assert_ne!(first[3].0, first[4].0, "seeds differ");
}

#[test]
fn every_kind_of_fault_is_drawn() {
    let faults: Vec<FaultKind> =
        (0..SEEDS).flat_map(|seed| Plot::new(seed).faults).map(|fault| fault.kind).collect();
    let kinds: std::collections::BTreeSet<String> = faults
        .iter()
        .map(|kind| format!("{kind:?}").split(' ').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(kinds.len(), 17, "{kinds:?}");
}

/// A run in which the coordinator is lost while steps flow, and nothing else.
fn with_a_lost_coordinator(seed: u64) -> Plot {
    let mut plot = Plot::new(seed);
    plot.setup.standby = seed.is_multiple_of(2);
    plot.setup.usual_delay = 10;
    let silently = seed.is_multiple_of(3);
    let kind = FaultKind::KillCoordinator { place: 0, silently, back_after: 1500 };
    plot.faults = vec![Fault { at: 5000 + seed * 11, kind }];
    plot
}

#[test]
fn a_lead_that_is_handed_over_costs_no_more_than_a_crash() {
    let (mut killed, mut drained) = (0, 0);
    for seed in (0..80).step_by(2) {
        let mut plot = with_a_lost_coordinator(seed);
        let time_of = |plot: &Plot| {
            let summary = simulate(plot, false).0.unwrap_or_else(|violation| panic!("{seed}: {violation}"));
            assert_eq!((summary.interruptions, summary.takeovers.len()), (0, 2), "seed {seed}: {summary:?}");
            summary.time
        };
        killed += time_of(&plot);
        plot.faults[0].kind = FaultKind::Stop { place: 0 };
        drained += time_of(&plot);
    }
    assert!(drained < killed, "{drained} ms of runs drained, {killed} ms of runs killed");
}

/// Simulated milliseconds for which a leader is cut off from the workers, longer than any run takes.
const FOR_EVER: u64 = 3_000_000;

#[test]
fn a_leader_that_no_worker_reaches_gives_way_to_one_that_stands_by() {
    for seed in 0..40 {
        let mut plot = Plot::new(seed);
        plot.setup.standby = true;
        plot.setup.usual_delay = 10;
        let cut = |place| FaultKind::Cut {
            from: Node::Coordinator(0),
            to: Node::Worker(place),
            both: true,
            lasting: FOR_EVER,
        };
        plot.faults = (0..schedule::WORKERS).map(|place| Fault { at: 5000, kind: cut(place) }).collect();
        let (ended, _) = simulate(&plot, false);
        let summary = ended.unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        assert!(summary.takeovers.len() > 1 && summary.time < FOR_EVER / 10, "seed {seed}: {summary:?}");
    }
}

#[test]
fn steps_flow_again_soon_after_a_coordinator_is_lost() {
    let mut takeovers = Vec::new();
    for seed in 0..60 {
        let (ended, _) = simulate(&with_a_lost_coordinator(seed), false);
        let summary = ended.unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        takeovers.extend(summary.takeovers.into_iter().skip(1));
    }
    let slowest = takeovers.iter().max().copied().unwrap_or(0);
    println!(
        "{} coordinators took over; the slowest saw a step committed after {slowest} ms",
        takeovers.len()
    );
    assert!(takeovers.len() > 30, "{}", takeovers.len());
    assert!(slowest < TAKEOVER, "{takeovers:?}");
}
