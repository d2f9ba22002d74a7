//! What holds after every event, whatever happened.

use blip2_run::coverage::StageCoverage;

use super::phase::Phase;
use super::state::Machine;

/// Whether everything that must always hold does, or what does not.
///
/// # Errors
/// The first invariant that is broken, in words.
pub fn check(machine: &Machine) -> Result<(), String> {
    committed_steps(machine)?;
    coverage(machine)?;
    rows(machine)?;
    slots(machine)?;
    members(machine)?;
    saves(machine)
}

/// No more steps are committed than there are, and no checkpoint is of more.
fn committed_steps(machine: &Machine) -> Result<(), String> {
    let total = machine.schedule.total();
    ensure(machine.committed <= total, || format!("{} of {total} steps are committed", machine.committed))?;
    let last = machine.skipped.last();
    ensure(last.is_none_or(|step| *step < total), || format!("step {last:?} of {total} is skipped"))?;
    ensure(machine.saved_step() <= total, || format!("a checkpoint is of step {}", machine.saved_step()))
}

/// Every state's coverage has exactly the samples that its steps use.
fn coverage(machine: &Machine) -> Result<(), String> {
    let fits = |what: &str, coverage: &StageCoverage, step: u64| {
        coverage.fits(&machine.schedule, step).map_err(|error| format!("{what} after {step} steps: {error}"))
    };
    fits("the run", &machine.coverage, machine.committed)?;
    if let Some(saved) = &machine.last_checkpoint {
        fits("the newest checkpoint", &saved.coverage, saved.step)?;
    }
    for (id, member) in &machine.members {
        if let Some(held) = &member.held {
            fits(&format!("member {id}'s state"), &held.coverage, held.step)?;
            ensure(held.step != machine.committed || held.coverage == machine.coverage, || {
                format!("member {id} holds the committed state with another coverage")
            })?;
        }
    }
    Ok(())
}

/// Unusable rows are those of committed steps, and no others.
fn rows(machine: &Machine) -> Result<(), String> {
    let samples = |stage| machine.schedule.samples_of(stage, machine.committed);
    let early = machine.quarantine.iter().find(|row| row.sample >= samples(row.stage));
    ensure(early.is_none(), || format!("a row of a step that is not committed is quarantined: {early:?}"))?;
    let late = machine.rows_ahead.iter().find(|row| row.sample < samples(row.stage));
    ensure(late.is_none(), || format!("a row of a committed step is not quarantined: {late:?}"))
}

/// The slots of an epoch are dealt out, each once.
fn slots(machine: &Machine) -> Result<(), String> {
    let elected = match &machine.phase {
        Phase::Electing(election) => &election.members,
        _ => &machine.world,
    };
    if elected.is_empty() {
        return Ok(());
    }
    let mut next = 0;
    for (id, slots) in elected {
        ensure(slots.start == next && slots.end > next, || {
            format!("member {id} has slots {slots:?}, those before end at {next}")
        })?;
        next = slots.end;
    }
    ensure(next == machine.spec.slots, || format!("{next} of {} slots are dealt out", machine.spec.slots))
}

/// Those who step are there and ready, and only they have reported; nobody holds more than is committed
/// unless it is about to be taken over.
fn members(machine: &Machine) -> Result<(), String> {
    let (Phase::Stepping { reports, .. } | Phase::Settling { reports, .. }) = &machine.phase else {
        return Ok(());
    };
    for (id, _) in &machine.world {
        ensure(machine.members.get(id).is_some_and(|member| member.is_ready), || {
            format!("member {id} is in the epoch but not there, or not ready")
        })?;
    }
    ensure(!machine.world.is_empty(), || "an epoch without members".to_owned())?;
    ensure(reports.keys().all(|id| machine.is_in_world(*id)), || {
        "somebody reported who is not in the epoch".to_owned()
    })?;
    let all = matches!(machine.phase, Phase::Stepping { .. }) && reports.len() >= machine.world.len();
    ensure(!all, || "all have reported and the step is not committed".to_owned())
}

/// Checkpoints in the making are of committed steps, with their coverage.
fn saves(machine: &Machine) -> Result<(), String> {
    for (name, save) in &machine.saves {
        let record = &save.record;
        ensure(record.step > 0 && record.step <= machine.schedule.total(), || {
            format!("checkpoint {name} is of step {}", record.step)
        })?;
        record.coverage.fits(&machine.schedule, record.step).map_err(|error| format!("{name}: {error}"))?;
        ensure(record.step != machine.committed || record.coverage == machine.coverage, || {
            format!("checkpoint {name} has another coverage than the run")
        })?;
    }
    Ok(())
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
