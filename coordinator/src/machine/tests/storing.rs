//! Stores that fail, and the automatic cadence.

use std::time::Duration;

use blip2_proto::v1::PartFailed;
use blip2_proto::v1::worker_message::Kind as FromWorker;

use super::scene::{Scene, covered, settings, spec};
use crate::machine::{Action, Event, Machine, Outcome, Start, StoreFailure};
use crate::{Cadence, CheckpointSettings};

fn failed(reason: &str) -> Result<(), StoreFailure> {
    Err(StoreFailure::Failed(reason.into()))
}

#[test]
fn an_epoch_that_cannot_be_written_is_tried_again_with_the_same_content() {
    let mut scene = Scene::new(spec(&[9]), settings(1, 1), 0);
    scene.store_answers = false;
    scene.join(0);
    let takes = |scene: &Scene| -> Vec<Action> {
        scene.actions.iter().filter(|action| matches!(action, Action::TakeEpoch { .. })).cloned().collect()
    };
    for attempt in 1..=3 {
        assert_eq!(takes(&scene).len(), attempt);
        scene.event(Event::EpochTaken { epoch: 2, result: failed("no route") });
        scene.pass(Duration::from_millis(500), &[0]);
        assert_eq!(takes(&scene).len(), attempt, "not at once");
        scene.pass(Duration::from_secs(1), &[0]);
    }
    assert!(takes(&scene).windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(scene.machine.status().faults.len(), 1);
    scene.event(Event::EpochTaken { epoch: 2, result: Ok(()) });
    assert_eq!(scene.assignments(0)[0].epoch, 2);

    let mut never = Scene::new(spec(&[9]), settings(1, 1), 0);
    never.store_answers = false;
    never.join(0);
    never.pass(Duration::from_secs(121), &[0]);
    assert!(
        matches!(never.outcome(), Some(Outcome::Failed { exit_code: 1, message }) if message.contains("epoch 2"))
    );
}

#[test]
fn a_checkpoint_that_cannot_be_stored_is_tried_again_and_then_fails_the_run() {
    let mut scene = Scene::running(&[90], 1, 1, 2);
    scene.store_answers = false;
    let mut names = Vec::new();
    for attempt in 1..=3 {
        while scene.commits(0).last().is_none_or(|commit| commit.save_checkpoint.is_empty()) {
            scene.done(0);
            scene.pass(Duration::from_millis(500), &[0]);
        }
        let name = scene.commits(0).last().expect("a commit").save_checkpoint.clone();
        if attempt == 2 {
            let reason = "disk full".into();
            scene.say(0, FromWorker::PartFailed(PartFailed { checkpoint: name.clone(), reason }));
        } else {
            scene.part(0, &name);
            scene.event(Event::CommitStored { name: name.clone(), result: failed("no space left") });
        }
        let fault = scene.machine.status().faults[attempt - 1].clone();
        assert!(fault.contains(&name) && fault.contains("is abandoned"), "{fault}");
        assert_eq!(scene.outcome().is_some(), attempt == 3);
        scene.done(0);
        names.push(name);
    }
    let (_, message) = match scene.outcome() {
        Some(Outcome::Failed { exit_code, message }) => (*exit_code, message),
        other => panic!("{other:?}"),
    };
    assert!(message.contains("3 checkpoints in a row") && message.contains("no space left"), "{message}");
    names.dedup();
    assert_eq!(names.len(), 3);
}

#[test]
fn a_checkpoint_that_is_stored_ends_the_count_of_failures() {
    let mut scene = Scene::running(&[90], 1, 1, 1);
    scene.store_answers = false;
    for round in 0..8 {
        while scene.commits(0).last().is_none_or(|commit| commit.save_checkpoint.is_empty()) {
            scene.done(0);
            scene.pass(Duration::from_millis(500), &[0]);
        }
        let name = scene.commits(0).last().expect("a commit").save_checkpoint.clone();
        scene.part(0, &name);
        let result = if round % 3 == 2 { Ok(()) } else { failed("slow down") };
        scene.event(Event::CommitStored { name, result });
        assert_eq!(scene.outcome(), None);
        scene.done(0);
    }
}

#[test]
fn the_last_checkpoint_is_tried_again_after_a_pause() {
    let mut scene = Scene::running(&[1], 1, 1, 0);
    scene.store_answers = false;
    scene.done(0);
    scene.part(0, "00000001-000002");
    scene.event(Event::CommitStored { name: "00000001-000002".into(), result: failed("slow down") });
    scene.pass(Duration::from_millis(500), &[0]);
    assert_eq!((scene.commits(0).len(), scene.machine.status().state.as_str()), (1, "saving"));
    scene.pass(Duration::from_secs(1), &[0]);
    scene.event(Event::EpochTaken { epoch: 3, result: Ok(()) });
    assert_eq!(scene.commits(0)[1].save_checkpoint, "00000001-000003");
    scene.part(0, "00000001-000003");
    scene.event(Event::CommitStored { name: "00000001-000003".into(), result: Ok(()) });
    assert!(matches!(scene.outcome(), Some(Outcome::Done { .. })));
}

#[test]
fn a_checkpoint_has_the_coverage_and_the_costs_of_its_step() {
    let mut scene = Scene::running(&[3, 3], 2, 1, 2);
    (0..2).for_each(|_| scene.all_done(&[0, 1]));
    scene.all_done(&[0, 1]);
    scene.part(0, "00000002-000002");
    scene.part(1, "00000002-000002");
    assert_eq!(scene.stored()[0].coverage, covered(&[3, 3], 2));
    let status = scene.machine.status();
    assert_eq!((status.checkpoint_stall_seconds, status.checkpoint_seconds), (1.25, 3.0));
}

#[test]
fn the_end_of_a_stage_is_saved_though_a_member_was_lost_over_it() {
    let mut scene = Scene::running(&[2, 5], 2, 1, 0);
    (0..2).for_each(|_| scene.all_done(&[0, 1]));
    assert_eq!(scene.commits(0)[1].save_checkpoint, "00000002-000002");
    scene.event(Event::Disconnected { session: 1 });
    let again = scene.commits(0)[2].clone();
    assert_eq!((again.epoch, again.step, again.save_checkpoint.as_str()), (3, 1, "00000002-000003"));
    scene.done(0);
    scene.part(0, "00000002-000003");
    assert_eq!((scene.stored()[0].step, scene.stored()[0].stage), (2, 1));
    assert_eq!(scene.reported(), [0, 1, 2]);
}

/// Commits one step a second; returns when the checkpoints of a run with these costs are ordered.
fn saves_by_the_rule(stall: f64, losses: u64, seconds: u64) -> Vec<u64> {
    let checkpoints = CheckpointSettings { cadence: Cadence::Auto, mtbf_s: 1000.0, ..Default::default() };
    let start = Start { epoch: 1, ..Start::default() };
    let mut scene = Scene::new(spec(&[100_000]), settings(1, 1), 0);
    scene.machine = Machine::new(spec(&[100_000]), settings(1, 1), checkpoints, start);
    scene.join(0);
    (0..losses).for_each(|loss| {
        scene.join(100 + loss);
        scene.event(Event::Disconnected { session: 100 + loss });
    });
    let mut saves = Vec::new();
    for second in 0..seconds {
        scene.pass(Duration::from_secs(1), &[0]);
        scene.done(0);
        let name = scene.commits(0).last().expect("a commit").save_checkpoint.clone();
        if !name.is_empty() {
            scene.stored_part(0, &name, stall);
            saves.push(second);
        }
    }
    saves
}

#[test]
fn the_automatic_cadence_follows_cost_and_losses() {
    let gap = |saves: &[u64]| saves[saves.len() - 1] - saves[saves.len() - 2];
    // The first one by an assumed second: sqrt(2 x 1 x 1000) = 45 s.
    let cheap = saves_by_the_rule(0.02, 0, 200);
    assert!((43..=48).contains(&cheap[0]), "{cheap:?}");
    // sqrt(2 x 0.02 x 1150) = 6.8 s.
    assert!((6..=8).contains(&gap(&cheap)), "{cheap:?}");
    // sqrt(2 x 2 x 1200) = 69 s.
    let dear = saves_by_the_rule(2.0, 0, 400);
    assert!((66..=76).contains(&gap(&dear)), "{dear:?}");
    // Nine losses: ten times as often lost, 3.2 times as often saved.
    let flaky = saves_by_the_rule(2.0, 9, 400);
    assert!((20..=25).contains(&gap(&flaky)), "{flaky:?}");
}
