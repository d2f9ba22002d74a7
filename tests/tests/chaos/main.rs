//! Chaos: a run of real processes under a seeded schedule of faults. Whatever happens, and whoever is started
//! again, the run ends done, with the parameters of the run that nothing happened to, and its audit is exact.
//!
//! `BLIP2_CHAOS_SEED=7` plays one schedule, `BLIP2_CHAOS_SECONDS=600` one after the other for so long,
//! `BLIP2_CHAOS_EVENTS=40` has more events in each.

mod schedule;
mod tmpfs;
mod world;

use std::time::{Duration, Instant};

use blip2_tests::process::{blip2, finish};
use blip2_tests::run::SmallRun;

use schedule::Schedule;
use world::World;

/// The schedule of a test run that asks for none.
const SEED: u64 = 1;
/// Steps between two events.
const APART: u64 = 3;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// A run long enough for so many events, with deadlines to match.
fn run_for(events: usize) -> SmallRun {
    let steps = (events as u64 * APART).div_ceil(2) + 10;
    SmallRun::of(
        steps,
        "[checkpoint]\nevery_steps = 4\nkeep = 3\nmax_failures = 50\n\
         [coordinator]\nworkers = 2\nmin_workers = 1\nmax_workers = 4\nflap_limit = 0\nheartbeat_ms = 200\n\
         heartbeat_timeout_s = 1.5\nrejoin_grace_s = 1.0\nstep_deadline_s = 60.0\n",
    )
}

fn play(seed: u64, events: usize) {
    let schedule = Schedule::of(seed, events, APART);
    let calm = run_for(events);
    calm.train(&["--workers", "1"]).expect(0);

    let run = run_for(events);
    println!("seed {seed}: {schedule}");
    let mut world = World::begin(&run, seed);
    for event in &schedule.events {
        world.play(event);
    }
    world.end();
    assert_eq!(run.digest(), calm.digest(), "seed {seed}");
    let root = run.root().display().to_string();
    let audit = finish(blip2(&["audit", &root, "--json"])).expect(0);
    let audit = audit.json_lines().pop().expect("the audit's line");
    assert_eq!(audit["exact"], true, "seed {seed}: {audit}");
    for note in audit["notes"].as_array().expect("a list") {
        println!("seed {seed}: audit notes: {}", note.as_str().unwrap_or_default());
    }
}

#[test]
fn whatever_happens_the_run_ends_with_the_same_bits_and_its_audit_is_exact() {
    let events = number("BLIP2_CHAOS_EVENTS").map_or(schedule::KINDS, |events| events as usize);
    let first = number("BLIP2_CHAOS_SEED").unwrap_or(SEED);
    let until = number("BLIP2_CHAOS_SECONDS").map(Duration::from_secs).unwrap_or_default();
    let began = Instant::now();
    for seed in first.. {
        let outcome = std::panic::catch_unwind(|| play(seed, events));
        println!(
            "seed {seed}: {} after {:.0?}",
            if outcome.is_ok() { "held" } else { "FAILED" },
            began.elapsed()
        );
        assert!(
            outcome.is_ok(),
            "replay with BLIP2_CHAOS_SEED={seed} BLIP2_CHAOS_EVENTS={events} cargo test --release -p blip2-tests --test \
             chaos -- --nocapture"
        );
        if began.elapsed() >= until {
            break;
        }
    }
}
