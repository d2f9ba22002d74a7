//! Scenarios told event by event.

mod complaints;
mod handing_over;
mod non_finite;
mod recording;
mod rejoining;
mod scene;
mod storing;

use std::time::Duration;

use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_proto::v1::{
    Hello, Leaving, NamedValue, Quarantined, Ready, RefusalCode, StepDone, StopKind, assignment,
};
use blip2_run::schedule::Stage;

use self::scene::{Scene, checkpoint, hello, settings, spec};
use super::{Action, Event, Outcome, StoreFailure};
use crate::CoordinatorSettings;

#[test]
fn a_run_without_faults_commits_every_step_and_saves_at_the_cadence_and_the_stage_ends() {
    let mut scene = Scene::running(&[3, 2], 2, 1, 2);
    assert_eq!(scene.machine.status().state, "running");
    let first = scene.assignments(1)[0].clone();
    assert_eq!(
        (first.epoch, first.step, first.state),
        (2, 0, Some(assignment::State::Fresh(Default::default())))
    );
    let slots: Vec<_> =
        first.members.iter().map(|member| (member.member_id, member.first_slot, member.slot_count)).collect();
    assert_eq!(slots, [(0, 0, 4), (1, 4, 4)]);
    for _ in 0..5 {
        scene.all_done(&[0, 1]);
        let name = scene.commits(0).last().expect("committed").save_checkpoint.clone();
        if !name.is_empty() {
            scene.part(1, &name);
            scene.part(0, &name);
        }
    }
    let commits: Vec<_> =
        scene.commits(1).iter().map(|commit| (commit.step, commit.save_checkpoint.as_str())).collect();
    let names = ["", "00000002-000002", "00000003-000002", "00000004-000002", "00000005-000002"];
    assert_eq!(commits, (0..).zip(names).collect::<Vec<_>>());
    assert_eq!((scene.commits(1)[1].part_index, scene.commits(1)[1].part_count), (1, 2));
    let stored = scene.stored();
    assert_eq!(
        stored.iter().map(|record| (record.step, record.stage)).collect::<Vec<_>>(),
        [(2, 1), (3, 1), (4, 2), (5, 2)]
    );
    assert_eq!(stored[0].parts[1].name, "part-00001.safetensors");
    assert_eq!(stored[3].values["loss"], 4.0);
    assert_eq!(scene.reported(), [0, 1, 2, 3, 4]);
    assert_eq!(scene.assignments(0).len(), 1);
    assert_eq!(scene.stop(0).expect("stopped").0, StopKind::StopDone);
    assert_eq!(scene.outcome(), Some(&Outcome::Done { checkpoint: "00000005-000002".into() }));
    assert_eq!(scene.machine.status().data_wait_share, 0.25);
}

#[test]
fn the_time_left_is_told_by_samples_since_a_later_stage_may_have_other_batches() {
    let mut two_sizes = spec(&[3, 2]);
    let stages = two_sizes.schedule.stages().iter().cloned();
    let smaller = |stage: Stage| Stage { batch: if stage.steps == 2 { 16 } else { 64 }, ..stage };
    two_sizes.schedule = stages.map(smaller).collect();
    let mut scene = Scene::new(two_sizes, settings(1, 1), 0);
    scene.join(0);
    assert_eq!(scene.machine.status().eta_seconds, 0.0, "no step tells yet");
    scene.done(0);
    let status = scene.machine.status();
    let samples_left = status.eta_seconds * status.samples_per_s;
    assert!((samples_left - (2.0 * 64.0 + 2.0 * 16.0)).abs() < 1e-6, "{samples_left}");
}

#[test]
fn done_is_said_only_when_the_last_checkpoint_is_stored() {
    let mut scene = Scene::running(&[1], 1, 1, 0);
    scene.store_answers = false;
    scene.done(0);
    scene.part(0, "00000001-000002");
    assert_eq!((scene.machine.status().state.as_str(), scene.stop(0)), ("saving", None));
    scene.event(Event::CommitStored { name: "00000001-000002".into(), result: Ok(()) });
    assert!(matches!(scene.outcome(), Some(Outcome::Done { .. })));
}

#[test]
fn a_member_lost_in_a_step_means_abort_and_redo_by_the_survivors() {
    let mut scene = Scene::running(&[5], 3, 1, 0);
    scene.all_done(&[0, 1, 2]);
    scene.all_done(&[0, 1]);
    scene.event(Event::Disconnected { session: 2 });
    let to_survivor = scene.sent(0);
    let place = |wanted: fn(&ToWorker) -> bool| to_survivor.iter().rposition(|message| wanted(message));
    let abort = place(|message| matches!(message, ToWorker::Abort(abort) if abort.epoch == 2));
    let redo = place(
        |message| matches!(message, ToWorker::Assignment(again) if again.epoch == 3 && again.step == 1),
    );
    assert!(abort.is_some() && abort < redo);
    let again = scene.assignments(1).last().copied().expect("assigned").clone();
    assert_eq!(again.members.iter().map(|member| member.slot_count).sum::<u32>(), 8);
    assert_eq!(again.state, Some(assignment::State::Peer("host-0:1".into())));
    // What was said in the old epoch counts no more.
    let late = StepDone { epoch: 2, step: 1, ..StepDone::default() };
    scene.say(0, FromWorker::StepDone(late));
    scene.done(1);
    assert_eq!(scene.commits(0).len(), 1);
    scene.done(0);
    assert_eq!(scene.commits(0).len(), 2);
    assert!(scene.machine.status().faults[0].contains("worker 2 (w2) is lost"));
}

#[test]
fn below_the_minimum_the_run_waits_and_then_fails_with_a_clear_error() {
    let mut scene = Scene::running(&[5], 2, 2, 1);
    scene.all_done(&[0, 1]);
    scene.part(0, "00000001-000002");
    scene.part(1, "00000001-000002");
    scene.event(Event::Disconnected { session: 0 });
    assert_eq!(scene.machine.status().state, "waiting");
    scene.pass(Duration::from_secs(290), &[1]);
    scene.join(2);
    let joiner = scene.assignments(2)[0];
    assert_eq!((joiner.step, &joiner.state), (1, &Some(assignment::State::Peer("host-1:1".into()))));
    scene.event(Event::Disconnected { session: 1 });
    scene.event(Event::Disconnected { session: 2 });
    scene.pass(Duration::from_secs(301), &[]);
    let Some(Outcome::Failed { exit_code: 1, message }) = scene.outcome() else {
        panic!("{:?}", scene.outcome())
    };
    assert!(message.contains("0 of at least 2") && message.contains("00000001-000002"), "{message}");
}

#[test]
fn when_all_are_lost_the_run_goes_on_from_the_last_checkpoint() {
    let mut scene = Scene::running(&[9], 1, 1, 2);
    for _ in 0..3 {
        scene.done(0);
        if scene.machine.committed == 2 {
            scene.part(0, "00000002-000002");
        }
    }
    scene.event(Event::Disconnected { session: 0 });
    scene.join(1);
    // Somebody who holds the state may come back within the grace.
    assert!(scene.assignments(1).is_empty());
    scene.pass(Duration::from_secs(3), &[1]);
    let again = scene.assignments(1)[0];
    assert_eq!(
        (again.step, &again.state),
        (2, &Some(assignment::State::Checkpoint("00000002-000002".into())))
    );
    scene.done(1);
    scene.done(1);
    assert_eq!(scene.reported(), [0, 1, 2, 3]);
}

#[test]
fn a_silent_worker_is_lost_after_the_heartbeat_timeout() {
    let mut scene = Scene::running(&[5], 2, 1, 0);
    scene.pass(Duration::from_secs(4), &[0]);
    assert_eq!(scene.assignments(0).len(), 1);
    scene.pass(Duration::from_secs(2), &[0]);
    assert_eq!(scene.assignments(0).len(), 2);
    assert_eq!(scene.stop(1).expect("told").0, StopKind::StopRejoin);
    assert!(scene.actions.contains(&Action::Close { session: 1 }));
}

#[test]
fn a_joiner_enters_at_the_next_commit_with_a_survivors_state() {
    let mut scene = Scene::running(&[5], 1, 1, 0);
    scene.done(0);
    scene.join(1);
    assert!(scene.assignments(1).is_empty());
    scene.done(0);
    let order: Vec<&str> = scene
        .sent(0)
        .iter()
        .skip(3)
        .map(|message| match message {
            ToWorker::Commit(commit) if commit.epoch == 2 => "commit",
            ToWorker::Abort(_) => "abort",
            ToWorker::Assignment(_) => "assignment",
            _ => "?",
        })
        .collect();
    assert_eq!(order, ["commit", "abort", "assignment"]);
    let entered = scene.assignments(1)[0];
    assert_eq!((entered.epoch, entered.step), (3, 2));
    assert_eq!(entered.state, Some(assignment::State::Peer("host-0:1".into())));
    scene.all_done(&[1, 0]);
    assert_eq!(scene.commits(1)[0].step, 2);
}

#[test]
fn a_stop_saves_at_the_next_commit_and_interrupts() {
    let mut scene = Scene::running(&[9], 2, 1, 0);
    scene.all_done(&[0, 1]);
    scene.event(Event::StopRequested { reason: "asked".into() });
    scene.event(Event::StopRequested { reason: "asked again".into() });
    scene.join(5);
    assert_eq!(scene.refusal(5).expect("refused").0, RefusalCode::RefusalClosed);
    scene.all_done(&[0, 1]);
    assert_eq!(scene.commits(0)[1].save_checkpoint, "00000002-000002");
    // The next step must not be committed any more.
    scene.all_done(&[0, 1]);
    assert_eq!(scene.commits(0).len(), 2);
    scene.part(0, "00000002-000002");
    assert_eq!(scene.outcome(), None);
    scene.part(1, "00000002-000002");
    assert_eq!(scene.outcome(), Some(&Outcome::Interrupted { checkpoint: Some("00000002-000002".into()) }));
    assert_eq!(scene.stop(1).expect("stopped").0, StopKind::StopInterrupted);
}

#[test]
fn a_stop_before_anything_is_done_interrupts_at_once() {
    let mut scene = Scene::new(spec(&[9]), settings(2, 1), 0);
    scene.join(0);
    scene.event(Event::StopRequested { reason: "asked".into() });
    assert_eq!(scene.outcome(), Some(&Outcome::Interrupted { checkpoint: None }));
}

#[test]
fn a_member_lost_while_the_last_checkpoint_is_written_means_writing_it_again() {
    let mut scene = Scene::running(&[1], 2, 1, 0);
    scene.all_done(&[0, 1]);
    scene.part(0, "00000001-000002");
    scene.event(Event::Disconnected { session: 1 });
    let again = *scene.commits(0).last().expect("ordered again");
    assert_eq!((again.epoch, again.step, again.save_checkpoint.as_str()), (3, 0, "00000001-000003"));
    assert_eq!((again.part_index, again.part_count), (0, 1));
    assert_eq!(scene.assignments(0).last().expect("assigned").step, 1);
    scene.part(0, "00000001-000003");
    assert_eq!(scene.outcome(), Some(&Outcome::Done { checkpoint: "00000001-000003".into() }));
}

#[test]
fn an_abandoned_checkpoint_is_reported_and_written_at_the_next_commit() {
    let mut scene = Scene::running(&[9], 2, 1, 3);
    (0..3).for_each(|_| scene.all_done(&[0, 1]));
    scene.part(0, "00000003-000002");
    scene.event(Event::Disconnected { session: 1 });
    assert!(scene.stored().is_empty());
    assert!(scene.machine.status().faults.iter().any(|fault| fault.contains("00000003-000002 is abandoned")));
    scene.done(0);
    assert_eq!(scene.commits(0).last().expect("committed").save_checkpoint, "00000004-000003");
}

#[test]
fn a_checkpoint_that_is_not_written_in_time_is_abandoned() {
    let mut scene = Scene::running(&[1], 1, 1, 0);
    scene.done(0);
    scene.pass(Duration::from_secs(4000), &[0]);
    let Some(Outcome::Failed { message, .. }) = scene.outcome() else { panic!("{:?}", scene.outcome()) };
    assert!(
        message.contains("3 checkpoints in a row") && message.contains("not written in time"),
        "{message}"
    );
}

#[test]
fn a_worker_that_leaves_is_released_at_a_commit_or_stops_the_run() {
    let mut scene = Scene::running(&[9], 2, 1, 0);
    scene.say(1, FromWorker::Leaving(Leaving {}));
    assert_eq!(scene.stop(1), None);
    scene.all_done(&[0, 1]);
    assert_eq!(scene.stop(1).expect("released").0, StopKind::StopReleased);
    assert_eq!(scene.assignments(0).last().expect("assigned").members.len(), 1);
    scene.say(0, FromWorker::Leaving(Leaving {}));
    scene.done(0);
    let name = scene.commits(0).last().expect("committed").save_checkpoint.clone();
    scene.part(0, &name);
    assert_eq!(scene.outcome(), Some(&Outcome::Interrupted { checkpoint: Some("00000002-000003".into()) }));
}

#[test]
fn failed_attempts_are_redone_and_then_fail_the_run_with_their_reasons() {
    let mut scene = Scene::running(&[9], 2, 1, 0);
    for _ in 0..5 {
        scene.failed(0, &[]);
        scene.pass(Duration::from_secs(3), &[0, 1]);
    }
    assert_eq!((scene.outcome(), scene.assignments(1).len()), (None, 6));
    scene.failed(0, &[]);
    scene.pass(Duration::from_secs(3), &[0, 1]);
    let Some(Outcome::Failed { exit_code: 1, message }) = scene.outcome() else {
        panic!("{:?}", scene.outcome())
    };
    assert!(message.contains("step 0") && message.contains("no answer"), "{message}");
}

#[test]
fn a_member_that_hangs_or_is_cut_off_from_its_peers_is_sent_away() {
    let mut hangs = Scene::running(&[9], 3, 1, 0);
    hangs.pass(Duration::from_secs(600), &[0, 1, 2]);
    hangs.failed(0, &[2]);
    hangs.failed(1, &[2]);
    hangs.pass(Duration::from_secs(3), &[0, 1, 2]);
    assert_eq!(hangs.stop(2).expect("sent away").0, StopKind::StopFailed);
    assert_eq!(hangs.assignments(0).last().expect("assigned").members.len(), 2);

    let mut cut_off = Scene::running(&[9], 3, 1, 0);
    for attempt in 1..=2 {
        assert_eq!(cut_off.assignments(2).len(), attempt);
        cut_off.failed(0, &[2]);
        cut_off.failed(2, &[0]);
        cut_off.failed(1, &[2]);
        cut_off.pass(Duration::from_secs(3), &[0, 1, 2]);
    }
    assert_eq!(cut_off.stop(2).expect("sent away").0, StopKind::StopRejoin);
    assert_eq!(cut_off.assignments(1).last().expect("assigned").members.len(), 2);

    let mut unreported = Scene::running(&[9], 2, 1, 0);
    unreported.done(0);
    unreported.pass(Duration::from_secs(612), &[0, 1]);
    assert_eq!(unreported.stop(1).expect("sent away").0, StopKind::StopFailed);
    assert_eq!(unreported.assignments(0).len(), 2);
}

#[test]
fn members_that_disagree_on_the_loss_end_the_run() {
    let mut scene = Scene::running(&[9], 2, 1, 0);
    scene.done(0);
    let values = vec![NamedValue { name: "loss".into(), value: -0.0 }];
    let other = StepDone { values, ..scene.report(1) };
    scene.say(1, FromWorker::StepDone(other));
    assert!(
        matches!(scene.outcome(), Some(Outcome::Failed { message, .. }) if message.contains("different values"))
    );
    assert!(scene.commits(0).is_empty());
}

#[test]
fn too_many_unusable_rows_stop_the_run() {
    let mut scene = Scene::running(&[9], 1, 1, 0);
    for (step, rows) in [(0, 4), (1, 3)] {
        let quarantined = (0..rows).map(|row| Quarantined {
            key: format!("k{row}"),
            file: "a.parquet".into(),
            reason: "truncated JPEG".into(),
            row,
            row_group: 1,
            sample: step * 64 + u64::from(row),
            stage: 1,
            step: 0,
        });
        let done = StepDone { quarantined: quarantined.collect(), ..scene.report(0) };
        scene.say(0, FromWorker::StepDone(done));
        assert_eq!(scene.outcome().is_some(), step == 1);
    }
    let Some(Outcome::Failed { exit_code: 3, message }) = scene.outcome() else {
        panic!("{:?}", scene.outcome())
    };
    for part in ["7 of 128", "5.47 %", "0.05", "a.parquet row group 1 row 0", "truncated JPEG"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(
        scene.actions.iter().any(|action| matches!(action, Action::StoreQuarantine(list) if list.len() == 7))
    );
}

#[test]
fn strangers_are_refused_with_the_reason() {
    let mut scene = Scene::new(spec(&[9]), CoordinatorSettings { max_workers: 2, ..settings(2, 1) }, 0);
    let cases = [
        (Hello { token: "secreT".into(), ..hello(10) }, RefusalCode::RefusalToken, "token"),
        (Hello { binary: "0.2.0 def".into(), ..hello(11) }, RefusalCode::RefusalBinary, "0.2.0 def"),
        (Hello { config_hash: "f00d".into(), ..hello(12) }, RefusalCode::RefusalConfiguration, "f00d"),
        (Hello { exchange_address: String::new(), ..hello(13) }, RefusalCode::RefusalProtocol, "address"),
    ];
    for (session, (hello, code, part)) in (10..).zip(cases) {
        scene.event(Event::Joined { session, hello });
        let (found, reason) = scene.refusal(session).expect("refused");
        assert!(found == code && reason.contains(part), "{found:?}: {reason}");
        assert!(scene.actions.contains(&Action::Close { session }));
    }
    scene.event(Event::Joined { session: 0, hello: Hello { config_hash: String::new(), ..hello(0) } });
    scene.event(Event::Joined { session: 1, hello: hello(1) });
    scene.join(2);
    assert_eq!(scene.refusal(2).expect("refused").0, RefusalCode::RefusalFull);
    scene.event(Event::StopRequested { reason: "asked".into() });
    scene.join(3);
    assert_eq!(scene.refusal(3).expect("refused").0, RefusalCode::RefusalClosed);
}

#[test]
fn a_restarted_worker_replaces_the_old_one_at_its_address() {
    let mut scene = Scene::running(&[9], 2, 1, 0);
    scene.event(Event::Joined { session: 7, hello: hello(1) });
    scene.say(7, FromWorker::Ready(Ready::default()));
    assert_eq!(scene.stop(1).expect("replaced").0, StopKind::StopFailed);
    assert_eq!(scene.assignments(0).len(), 2);
    scene.done(0);
    assert_eq!(scene.assignments(7).len(), 1);
}

#[test]
fn a_fenced_coordinator_ends_as_refused() {
    let mut scene = Scene::new(spec(&[9]), settings(1, 1), 0);
    scene.store_answers = false;
    scene.join(0);
    scene.event(Event::EpochTaken { epoch: 2, result: Err(StoreFailure::Fenced("taken".into())) });
    assert!(matches!(scene.outcome(), Some(Outcome::Failed { exit_code: 4, .. })));
}

#[test]
fn a_resumed_run_starts_at_its_checkpoint_and_a_finished_one_ends_at_once() {
    let mut resumed = spec(&[9]);
    resumed.resume = Some(checkpoint(&[9], 4, 7));
    let mut scene = Scene::new(resumed.clone(), settings(1, 1), 0);
    scene.join(0);
    let first = scene.assignments(0)[0];
    assert_eq!(
        (first.step, &first.state),
        (4, &Some(assignment::State::Checkpoint("00000004-000007".into())))
    );
    scene.done(0);
    assert_eq!(scene.reported(), [4]);

    resumed.resume = Some(checkpoint(&[9], 9, 7));
    let mut finished = Scene::new(resumed, settings(1, 1), 0);
    finished.event(Event::Tick);
    assert_eq!(finished.outcome(), Some(&Outcome::Done { checkpoint: "00000009-000007".into() }));
}

#[test]
fn too_few_first_workers_start_without_the_rest_or_fail() {
    let mut enough = Scene::new(spec(&[9]), settings(3, 2), 0);
    enough.join(0);
    enough.join(1);
    enough.pass(Duration::from_secs(121), &[0, 1]);
    assert_eq!(enough.assignments(1).len(), 1);
    let mut nobody = Scene::new(spec(&[9]), settings(1, 1), 0);
    nobody.pass(Duration::from_secs(121), &[]);
    assert!(matches!(nobody.outcome(), Some(Outcome::Failed { exit_code: 1, .. })));
}
