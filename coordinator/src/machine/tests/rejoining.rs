//! Members that come back, and coordinators that take over.

use std::time::Duration;

use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_proto::v1::{Hello, Ledger, Quarantined, Ready, RefusalCode, StepDone, StopKind, assignment};

use super::scene::{Scene, checkpoint, covered, hello, hello_again, settings, spec};
use crate::machine::{Action, Event, Outcome, SessionId, Start, StoreFailure};
use crate::{CoordinatorSettings, RunSpec};

const STAGES: [u64; 1] = [9];

/// A coordinator that takes over a run of `expected` members from the checkpoint after four steps.
fn taking_over(expected: usize, workers: u32, min_workers: u32) -> Scene {
    let spec = RunSpec { resume: Some(checkpoint(&STAGES, 4, 3)), ..spec(&STAGES) };
    let start = Start { epoch: 7, expected_members: expected, ..Start::default() };
    Scene::starting(spec, settings(workers, min_workers), 0, start)
}

fn row(sample: u64) -> Quarantined {
    Quarantined { key: "k".into(), file: "a.parquet".into(), sample, stage: 1, ..Quarantined::default() }
}

#[test]
fn a_take_over_goes_on_from_what_the_members_hold_when_all_are_back() {
    let mut scene = taking_over(2, 2, 1);
    // One missed the last commit: it has the step pending.
    scene.rejoin(0, &STAGES, 6);
    assert!(scene.assignments(0).is_empty());
    scene.rejoin(1, &STAGES, 7);
    let (behind, ahead) = (scene.assignments(0)[0].clone(), scene.assignments(1)[0].clone());
    assert_eq!((ahead.epoch, ahead.step), (8, 7));
    assert_eq!(behind.state, Some(assignment::State::Peer("host-1:1".into())));
    let ledger = behind.ledger.expect("a ledger goes with an assignment");
    assert_eq!((ledger.step, ledger.coverage), (7, covered(&STAGES, 7).to_messages()));
    scene.all_done(&[0, 1]);
    assert_eq!(scene.commits(0)[0].coverage, covered(&STAGES, 8).to_messages());
    assert_eq!(scene.commits(0)[0].durable_step, 4);
    // Steps 4 to 6 were another coordinator's to report.
    assert_eq!(scene.reported(), [7]);
}

#[test]
fn a_take_over_waits_a_grace_for_the_others_after_the_first_came_back() {
    let mut scene = taking_over(3, 3, 2);
    scene.pass(Duration::from_secs(10), &[]);
    scene.rejoin(0, &STAGES, 5);
    scene.rejoin(1, &STAGES, 5);
    scene.pass(Duration::from_millis(1500), &[0, 1]);
    assert!(scene.assignments(0).is_empty());
    scene.pass(Duration::from_secs(1), &[0, 1]);
    assert_eq!((scene.assignments(0)[0].step, scene.assignments(0)[0].members.len()), (5, 2));

    let mut too_few = taking_over(3, 3, 2);
    too_few.rejoin(0, &STAGES, 5);
    too_few.pass(Duration::from_secs(30), &[0]);
    assert!(too_few.assignments(0).is_empty());
    assert_eq!(too_few.machine.status().state, "waiting");
}

#[test]
fn without_anybody_from_before_a_take_over_starts_from_the_checkpoint() {
    let mut scene = taking_over(2, 1, 1);
    scene.join(0);
    assert!(scene.assignments(0).is_empty(), "those who hold more may be on their way");
    scene.pass(Duration::from_secs(3), &[0]);
    let first = scene.assignments(0)[0];
    assert_eq!(
        (first.step, &first.state),
        (4, &Some(assignment::State::Checkpoint("00000004-000003".into())))
    );
}

#[test]
fn one_who_holds_more_and_comes_late_takes_the_run_ahead_at_the_next_boundary() {
    let mut scene = taking_over(2, 1, 1);
    scene.join(0);
    scene.pass(Duration::from_secs(3), &[0]);
    scene.rejoin(1, &STAGES, 8);
    scene.done(0);
    let ahead = scene.assignments(0)[1];
    assert_eq!((ahead.step, &ahead.state), (8, &Some(assignment::State::Peer("host-1:1".into()))));
    scene.all_done(&[0, 1]);
    assert_eq!(scene.reported(), [4, 8]);
    assert_eq!(scene.machine.status().step, 9);
}

#[test]
fn nobody_is_taken_for_the_holder_of_a_state_that_it_gave_up_for_another() {
    let mut scene = taking_over(2, 1, 1);
    scene.rejoin(0, &STAGES, 6);
    scene.rejoin(1, &STAGES, 8);
    assert_eq!(scene.assignments(0)[0].state, Some(assignment::State::Peer("host-1:1".into())));
    // Whether the first has copied the state by now, nobody knows.
    scene.event(Event::Disconnected { session: 1 });
    scene.pass(Duration::from_secs(3), &[0]);
    let next = scene.assignments(0)[1];
    assert_eq!((next.step, &next.state), (4, &Some(assignment::State::Checkpoint("00000004-000003".into()))));
}

#[test]
fn rows_of_a_ledger_are_taken_over_and_kept_until_their_steps_are_committed() {
    let mut scene = taking_over(1, 1, 1);
    let mut hello = hello_again(0, &STAGES, 6);
    hello.ledger.as_mut().expect("a ledger").quarantined = vec![row(4 * 64 + 1), row(5 * 64)];
    scene.event(Event::Joined { session: 0, hello });
    scene.say(0, FromWorker::Ready(Ready::default()));
    let rows = |scene: &Scene, at: usize| -> Vec<(u64, u64)> {
        let ledger = scene.assignments(0)[at].ledger.as_ref().expect("a ledger");
        ledger.quarantined.iter().map(|row| (row.sample, row.step)).collect()
    };
    assert_eq!(rows(&scene, 0), [(257, 4), (320, 5)]);
    let done = StepDone { quarantined: vec![row(6 * 64 + 3)], ..scene.report(0) };
    scene.say(0, FromWorker::StepDone(done));
    let commit = scene.commits(0)[0];
    assert_eq!(commit.quarantined.iter().map(|row| (row.sample, row.step)).collect::<Vec<_>>(), [(387, 6)]);
    // The state is lost: back to the checkpoint, and the rows are met again.
    scene.event(Event::Disconnected { session: 0 });
    scene.join(1);
    scene.pass(Duration::from_secs(3), &[1]);
    assert_eq!(scene.assignments(1)[0].step, 4);
    assert_eq!(scene.machine.status().quarantined, 0);
    (0..5).for_each(|_| scene.done(1));
    let name = scene.commits(1)[4].save_checkpoint.clone();
    scene.part(1, &name);
    let stored = scene.actions.iter().find_map(|action| match action {
        Action::StoreCommit { record, quarantine, .. } => Some((record.coverage.clone(), quarantine.len())),
        _ => None,
    });
    assert_eq!(stored, Some((covered(&STAGES, 9), 3)));
}

#[test]
fn a_state_that_is_lost_sets_the_run_back_to_the_newest_that_is_held_with_its_coverage() {
    let mut scene = Scene::running(&STAGES, 1, 1, 2);
    (0..2).for_each(|_| scene.done(0));
    scene.part(0, "00000002-000002");
    (0..3).for_each(|_| scene.done(0));
    scene.event(Event::Disconnected { session: 0 });
    // Another that fell behind is back, with more than the checkpoint.
    scene.rejoin(1, &STAGES, 4);
    assert!(scene.assignments(1).is_empty());
    scene.pass(Duration::from_secs(3), &[1]);
    assert_eq!(scene.assignments(1)[0].step, 4);
    let ledger = scene.assignments(1)[0].ledger.as_ref().expect("a ledger");
    assert_eq!(ledger.coverage, covered(&STAGES, 4).to_messages());
    scene.done(1);
    assert_eq!(scene.reported(), [0, 1, 2, 3, 4], "step 4 was reported before");
}

#[test]
fn a_member_that_comes_back_with_the_state_loses_nothing() {
    let mut scene = Scene::running(&STAGES, 1, 1, 0);
    (0..3).for_each(|_| scene.done(0));
    scene.event(Event::Disconnected { session: 0 });
    scene.event(Event::Joined {
        session: 1,
        hello: Hello { exchange_address: "host-0:1".into(), ..hello_again(1, &STAGES, 3) },
    });
    assert!(scene.assignments(1).is_empty());
    scene.say(1, FromWorker::Ready(Ready::default()));
    let again = scene.assignments(1)[0];
    assert_eq!((again.step, &again.state), (3, &Some(assignment::State::Peer("host-0:1".into()))));
}

#[test]
fn a_member_on_a_new_connection_is_not_told_to_go() {
    let mut scene = Scene::running(&STAGES, 2, 1, 0);
    scene.all_done(&[0, 1]);
    scene.event(Event::Joined {
        session: 5,
        hello: Hello { exchange_address: "host-1:1".into(), ..hello_again(5, &STAGES, 1) },
    });
    assert_eq!(scene.stop(1), None);
    assert!(scene.actions.contains(&Action::Close { session: 1 }));
    scene.say(5, FromWorker::Ready(Ready::default()));
    scene.done(0);
    assert_eq!(scene.assignments(5)[0].members.len(), 2);
}

#[test]
fn ledgers_that_do_not_fit_are_not_believed() {
    let broken: [fn(&mut Hello); 4] = [
        |hello| hello.ledger = None,
        |hello| hello.holds = Some(5),
        |hello| hello.ledger.as_mut().expect("a ledger").coverage[0].samples += 1,
        |hello| {
            hello.holds = Some(10);
            hello.ledger.as_mut().expect("a ledger").step = 10;
        },
    ];
    for break_it in broken {
        let mut scene = taking_over(1, 1, 1);
        let mut hello = hello_again(0, &STAGES, 6);
        break_it(&mut hello);
        scene.event(Event::Joined { session: 0, hello });
        scene.say(0, FromWorker::Ready(Ready::default()));
        scene.pass(Duration::from_secs(3), &[0]);
        assert_eq!(scene.assignments(0)[0].step, 4);
        assert!(scene.machine.status().faults[0].contains("not believed"), "{:?}", scene.machine.status());
    }
    let mut differs = taking_over(1, 1, 1);
    let mut other = hello_again(0, &STAGES, 4);
    other.ledger.as_mut().expect("a ledger").coverage[0].digest[0] ^= 1;
    differs.event(Event::Joined { session: 0, hello: other });
    assert!(differs.machine.status().faults[0].contains("another coverage"));
}

#[test]
fn one_that_does_not_belong_here_is_told_where_the_difference_is() {
    let mut scene = taking_over(1, 1, 1);
    scene.event(Event::Joined { session: 0, hello: Hello { run_id: "other".into(), ..hello(0) } });
    let (code, reason) = scene.refusal(0).expect("refused");
    assert!(code == RefusalCode::RefusalRun && reason.contains("part of run other"), "{reason}");
    let asked = scene.actions.len();
    scene.event(Event::Joined { session: 1, hello: Hello { epoch: 8, ..hello_again(1, &STAGES, 4) } });
    let (code, reason) = scene.refusal(1).expect("refused");
    assert!(code == RefusalCode::RefusalFenced && reason.contains("epoch 8"), "{reason}");
    assert!(scene.actions[asked..].contains(&Action::ConfirmEpoch { epoch: 7 }), "it looks who leads");
    scene.event(Event::Joined { session: 2, hello: Hello { epoch: 7, ..hello_again(2, &STAGES, 4) } });
    assert_eq!(scene.refusal(2), None);
    assert!(
        scene
            .sent(2)
            .iter()
            .any(|message| matches!(message, ToWorker::Welcome(welcome) if welcome.epoch == 7))
    );
}

#[test]
fn a_flapping_worker_is_refused_for_a_while() {
    let mut scene = Scene::running(&STAGES, 1, 1, 0);
    let on = |host: &str, session: SessionId| Hello {
        name: "flaps".into(),
        exchange_address: format!("{host}:{session}"),
        ..hello(session)
    };
    for session in 10..13 {
        scene.event(Event::Joined { session, hello: on("sick", session) });
        scene.event(Event::Disconnected { session });
    }
    // One of the same name on another host is another.
    scene.event(Event::Joined { session: 20, hello: on("well", 20) });
    assert_eq!(scene.refusal(20), None);
    scene.event(Event::Joined { session: 13, hello: on("sick", 13) });
    let refused = scene.sent(13).into_iter().find_map(|message| match message {
        ToWorker::Refused(refused) => Some(refused.clone()),
        _ => None,
    });
    let refused = refused.expect("refused");
    assert_eq!(refused.code(), RefusalCode::RefusalCooldown);
    assert!((29_000..=30_000).contains(&refused.retry_after_ms), "{refused:?}");
    scene.pass(Duration::from_secs(31), &[0]);
    scene.event(Event::Joined { session: 14, hello: on("sick", 14) });
    assert_eq!(scene.refusal(14), None);
}

#[test]
fn only_members_that_are_ready_are_counted_and_those_who_never_are_are_sent_away() {
    let mut scene =
        Scene::new(spec(&STAGES), CoordinatorSettings { join_timeout_s: 60.0, ..settings(2, 1) }, 0);
    scene.join(0);
    scene.event(Event::Joined { session: 1, hello: hello(1) });
    assert!(scene.assignments(0).is_empty());
    scene.say(1, FromWorker::Ready(Ready::default()));
    assert_eq!(scene.assignments(0)[0].members.len(), 2);
    scene.event(Event::Joined { session: 2, hello: hello(2) });
    scene.all_done(&[0, 1]);
    assert_eq!(scene.assignments(0).len(), 1, "it loads its models while the others go on");
    scene.say(2, FromWorker::Ready(Ready::default()));
    scene.all_done(&[0, 1]);
    assert_eq!(scene.assignments(2)[0].step, 2);

    let mut stuck = Scene::running(&STAGES, 1, 1, 0);
    stuck.event(Event::Joined { session: 3, hello: hello(3) });
    let deadline = Duration::from_secs(600);
    let until = stuck.now + deadline + Duration::from_secs(1);
    while stuck.now < until {
        stuck.pass(Duration::from_secs(100), &[0, 3]);
        stuck.done(0);
    }
    let (kind, reason) = stuck.stop(3).expect("sent away");
    assert!(kind == StopKind::StopFailed && reason.contains("600 s"), "{reason}");
}

#[test]
fn who_leads_is_looked_at_again_and_again() {
    let mut scene = Scene::running(&STAGES, 1, 1, 0);
    scene.store_answers = false;
    let asked = |scene: &Scene| {
        scene.actions.iter().filter(|action| matches!(action, Action::ConfirmEpoch { .. })).count()
    };
    let before = asked(&scene);
    scene.pass(Duration::from_secs(10), &[0]);
    assert_eq!(asked(&scene), before + 1, "one question at a time");
    scene.event(Event::EpochConfirmed { result: Err(StoreFailure::Failed("slow".into())) });
    scene.pass(Duration::from_secs(3), &[0]);
    assert_eq!(asked(&scene), before + 2);
    scene.event(Event::EpochConfirmed { result: Err(StoreFailure::Fenced("epoch 3 is another's".into())) });
    assert!(matches!(scene.outcome(), Some(Outcome::Failed { exit_code: 4, .. })));
    assert_eq!(scene.stop(0), None, "the worker shall look for the one that leads");
    assert!(scene.actions.contains(&Action::Close { session: 0 }));
    scene.event(Event::Joined { session: 9, hello: hello_again(9, &STAGES, 0) });
    assert_eq!(scene.refusal(9).expect("refused").0, RefusalCode::RefusalFenced);
}

#[test]
fn one_that_comes_back_when_all_is_over_is_told_how_it_ended() {
    let mut scene = Scene::running(&[1], 1, 1, 0);
    scene.done(0);
    scene.part(0, "00000001-000002");
    assert!(matches!(scene.outcome(), Some(Outcome::Done { .. })));
    scene.event(Event::Joined { session: 4, hello: hello_again(4, &[1], 1) });
    assert_eq!(scene.stop(4).expect("told").0, StopKind::StopDone);
    scene.event(Event::Joined { session: 5, hello: hello(5) });
    assert_eq!(scene.refusal(5).expect("refused").0, RefusalCode::RefusalClosed);
}

#[test]
fn a_holder_that_comes_back_while_the_run_stops_saves_it() {
    let mut scene = Scene::running(&STAGES, 1, 1, 0);
    scene.done(0);
    scene.event(Event::StopRequested { reason: "asked".into() });
    scene.event(Event::Disconnected { session: 0 });
    scene.join(1);
    assert_eq!(scene.refusal(1).expect("a new one").0, RefusalCode::RefusalClosed);
    scene.rejoin(2, &STAGES, 1);
    scene.pass(Duration::from_secs(3), &[2]);
    let name = scene.commits(2)[0].save_checkpoint.clone();
    scene.part(2, &name);
    assert_eq!(scene.outcome(), Some(&Outcome::Interrupted { checkpoint: Some(name) }));

    let mut nobody = Scene::running(&STAGES, 1, 1, 0);
    nobody.done(0);
    nobody.event(Event::StopRequested { reason: "asked".into() });
    nobody.event(Event::Disconnected { session: 0 });
    nobody.pass(Duration::from_secs(3), &[]);
    assert_eq!(nobody.outcome(), Some(&Outcome::Interrupted { checkpoint: None }));
}

#[test]
fn the_only_holder_hands_the_state_on_before_it_is_released() {
    let mut scene = Scene::running(&STAGES, 1, 1, 0);
    scene.done(0);
    scene.join(1);
    scene.say(0, FromWorker::Leaving(blip2_proto::v1::Leaving {}));
    scene.done(0);
    let entered = scene.assignments(1)[0];
    assert_eq!((entered.step, entered.members.len()), (2, 2));
    assert_eq!(entered.state, Some(assignment::State::Peer("host-0:1".into())));
    scene.all_done(&[0, 1]);
    assert_eq!(scene.stop(0).expect("released").0, StopKind::StopReleased);
    assert_eq!(scene.assignments(1)[1].step, 3);
}

#[test]
fn one_that_leaves_a_take_over_is_let_go_unless_it_alone_holds_the_newest_state() {
    let leave = |scene: &mut Scene, session| {
        scene.say(session, FromWorker::Leaving(blip2_proto::v1::Leaving {}));
    };
    let mut others_hold_it = taking_over(3, 3, 2);
    others_hold_it.rejoin(0, &STAGES, 6);
    others_hold_it.rejoin(1, &STAGES, 6);
    leave(&mut others_hold_it, 0);
    assert_eq!(others_hold_it.stop(0).expect("released").0, StopKind::StopReleased);
    let mut alone = taking_over(3, 3, 2);
    alone.rejoin(0, &STAGES, 6);
    alone.rejoin(1, &STAGES, 5);
    leave(&mut alone, 0);
    let save = alone.commits(0)[0].save_checkpoint.clone();
    assert_eq!(save, "00000006-000008");
    alone.part(0, &save);
    assert_eq!(alone.outcome(), Some(&Outcome::Interrupted { checkpoint: Some(save) }));
}

#[test]
fn a_coordinator_that_was_paused_does_not_blame_the_members() {
    let mut scene = Scene::running(&STAGES, 2, 1, 0);
    scene.pass(Duration::from_secs(1), &[0, 1]);
    scene.now += Duration::from_secs(20);
    scene.event(Event::Tick);
    assert_eq!((scene.stop(0), scene.stop(1)), (None, None));
    scene.pass(Duration::from_secs(6), &[0]);
    assert_eq!(scene.stop(1).expect("this one is silent").0, StopKind::StopRejoin);
}

#[test]
fn a_coordinator_that_was_paused_for_longer_than_a_step_may_take_does_not_end_the_run() {
    let mut scene = Scene::running(&STAGES, 2, 1, 0);
    scene.pass(Duration::from_secs(1), &[0, 1]);
    scene.now += Duration::from_secs(3600);
    scene.event(Event::Tick);
    assert_eq!((scene.outcome(), scene.stop(0)), (None, None));
    scene.all_done(&[0, 1]);
    assert_eq!(scene.reported(), [0]);
}

#[test]
fn a_ledger_is_of_the_assignments_step() {
    let scene = Scene::running(&STAGES, 1, 1, 0);
    assert_eq!(scene.assignments(0)[0].ledger, Some(Ledger::default()));
}
