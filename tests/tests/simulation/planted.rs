//! Bugs planted in the machines of production, each of which the simulation must find.

use std::panic::{AssertUnwindSafe, catch_unwind};

use blip2_coordinator::PlantedBug as Coordinators;
use blip2_worker::member::PlantedBug as Members;

use crate::invariants::{
    COMMITTED_BY_ALL, COMMITTED_ONCE, COVERAGE_EXACT, ENDS, NEVER_AFRESH, ONE_LEADER, QUARANTINE_EXACT,
    SKIPS_EXACT, SLOTS_PARTITIONED, Violation,
};
use crate::network::ProcessId;
use crate::run_seeds;
use crate::schedule::Plot;
use crate::world::World;

/// Seeds within which a planted bug must be found.
const SEEDS: u64 = 400;

/// What is wrong with the machines of a simulation.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Planted {
    coordinators: Option<Coordinators>,
    members: Option<Members>,
}

impl World {
    /// Plants what is to be planted in a process that was just started.
    pub(crate) fn plant(&mut self, id: ProcessId) {
        let Planted { coordinators, members } = self.planted;
        if let (Some(bug), Some(worker)) = (members, self.worker_mut(id)) {
            worker.plant(bug);
        }
        if let (Some(bug), Some(coordinator)) = (coordinators, self.coordinator_mut(id)) {
            coordinator.plant(bug);
        }
    }
}

/// What a seed comes to with a bug, but for what the machine's own check says.
fn run(seed: u64, planted: Planted) -> Option<Violation> {
    let run = || {
        let mut world = World::new(Plot::new(seed), false);
        world.planted = planted;
        world.run().0.err()
    };
    let panicked = |_| Some(Violation { what: "nothing panics", detail: String::new() });
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(panicked)
}

/// Runs seeds until the bug is seen by one of `invariants`.
fn is_found(name: &str, planted: Planted, invariants: &[&str]) {
    let violations = run_seeds(SEEDS, |seed| run(seed, planted));
    let found = (0..)
        .zip(&violations)
        .find(|(_, found)| found.as_ref().is_some_and(|violation| invariants.contains(&violation.what)));
    let seen: std::collections::BTreeSet<&str> =
        violations.iter().flatten().map(|found| found.what).collect();
    let Some((seed, Some(violation))) = found else {
        panic!("{name} is not found within {SEEDS} seeds by {invariants:?}; seen: {seen:?}");
    };
    let all = violations.iter().flatten().count();
    let text: String = violation.to_string().chars().take(160).collect();
    println!("{name} is found by seed {seed}, and by {all} of {SEEDS}: {text}");
}

fn in_coordinators(bug: Coordinators, invariants: &[&str]) {
    is_found(&format!("{bug:?}"), Planted { coordinators: Some(bug), members: None }, invariants);
}

fn in_members(bug: Members, invariants: &[&str]) {
    is_found(&format!("{bug:?}"), Planted { coordinators: None, members: Some(bug) }, invariants);
}

#[test]
fn bugs_of_the_coordinator_are_found() {
    // The run goes back to a step whose samples it has counted.
    in_coordinators(Coordinators::CommitsTwice, &[COMMITTED_ONCE, COVERAGE_EXACT]);
    in_coordinators(Coordinators::SkipsAStep, &[COMMITTED_ONCE]);
    in_coordinators(Coordinators::TwoLeaders, &[ONE_LEADER]);
    in_coordinators(Coordinators::SlotsOverlap, &[SLOTS_PARTITIONED]);
    in_coordinators(Coordinators::CoverageDropped, &[COVERAGE_EXACT]);
    // The machine itself misses the samples of the report that is missing, and ends the run.
    in_coordinators(Coordinators::CommitsWithoutAll, &[COMMITTED_BY_ALL, ENDS]);
    in_coordinators(Coordinators::LosesQuarantine, &[QUARANTINE_EXACT]);
    in_coordinators(Coordinators::LosesSkips, &[SKIPS_EXACT]);
    in_coordinators(Coordinators::StartsAfresh, &[NEVER_AFRESH]);
    in_coordinators(Coordinators::OneForAll, &[ENDS]);
}

#[test]
fn bugs_of_the_members_are_found() {
    in_members(Members::ForgetsRows, &[QUARANTINE_EXACT]);
    in_members(Members::AppliesWhatIsPending, &["applied is reduced"]);
    in_members(Members::StaysAway, &[ENDS]);
}
