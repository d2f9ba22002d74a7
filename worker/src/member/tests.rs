//! Scenarios told event by event. Random schedules are in the simulation.

mod scene;

use std::time::Duration;

use blip2_proto::v1::coordinator_message::Kind as FromCoordinator;
use blip2_proto::v1::worker_message::Kind as ToCoordinator;
use blip2_proto::v1::{
    Abort, Assignment, Commit, CommittedStep, Coverage, Ledger, PartFailed, RefusalCode, StopKind, Welcome,
};

use self::scene::{
    Scene, assignment, commit, end, enters, opens, reduces, refused, row, saving, stop, welcome,
};
use super::{Failure, MemberAction, MemberEnd, MemberEvent};

#[test]
fn a_member_joins_prepares_once_and_does_steps_as_they_are_committed() {
    let mut scene = Scene::new(60);
    assert_eq!(opens(&scene.event(MemberEvent::Tick)), [(0, 0)]);
    let welcomed = scene.join(1);
    assert_eq!(welcomed, [MemberAction::Prepare(welcome(1))]);
    let hello = scene.hello();
    assert_eq!((hello.token.as_str(), hello.run_id.as_str(), hello.holds), ("secret", "", None));
    assert!(hello.ledger.is_none());
    assert_eq!(scene.machine.member_id(), Some(3));
    assert_eq!(
        scene.event(MemberEvent::Prepared),
        [MemberAction::Send(ToCoordinator::Ready(Default::default()))]
    );

    assert_eq!(enters(&scene.say(FromCoordinator::Assignment(assignment(2, 0)))), [(2, 0, false)]);
    assert_eq!(reduces(&scene.entered(2, 0)), [(2, 0)]);
    let reported = scene.done(2, 0);
    assert!(
        matches!(&reported[..], [MemberAction::Send(ToCoordinator::StepDone(done))] if done.step == 0),
        "{reported:?}"
    );
    let committed = scene.say(FromCoordinator::Commit(saving(2, 0, "1-2")));
    assert_eq!(committed, [MemberAction::Apply(saving(2, 0, "1-2"))]);
    assert_eq!(scene.machine.holds(), Some(1));
    assert_eq!(reduces(&scene.event(MemberEvent::Applied { step: 0 })), [(2, 1)]);
    let failed = PartFailed { checkpoint: "1-2".into(), reason: "disk full".into() };
    assert_eq!(
        scene.event(MemberEvent::PartFailed(failed.clone())),
        [MemberAction::Send(ToCoordinator::PartFailed(failed))]
    );
    assert_eq!(end(&scene.say(stop(StopKind::StopDone))), Some(&MemberEnd::Done));
    assert!(scene.machine.is_over() && scene.event(MemberEvent::Tick).is_empty());
}

#[test]
fn no_step_is_begun_after_the_last_one() {
    let mut scene = Scene::new(60);
    scene.event(MemberEvent::Tick);
    scene.event(MemberEvent::Opened);
    let config_toml = "[stage1]\nsteps = 1\n[stage2]\nsteps = 1\n".into();
    scene.say(FromCoordinator::Welcome(Welcome { config_toml, ..welcome(1) }));
    scene.event(MemberEvent::Prepared);
    scene.say(FromCoordinator::Assignment(assignment(2, 1)));
    assert_eq!(reduces(&scene.entered(2, 1)), [(2, 1)]);
    scene.done(2, 1);
    scene.say(FromCoordinator::Commit(commit(2, 1)));
    assert_eq!(scene.event(MemberEvent::Applied { step: 1 }), []);
}

#[test]
fn signs_of_life_come_at_the_pace_asked_for() {
    let mut scene = Scene::joined();
    let beats = scene.pass(Duration::from_secs(5));
    assert_eq!(beats.len(), 10, "{beats:?}");
    assert!(
        beats.iter().all(|beat| matches!(beat, MemberAction::Send(ToCoordinator::Heartbeat(_)))),
        "{beats:?}"
    );
}

#[test]
fn an_abort_ends_the_attempt_and_the_step_is_redone_in_the_next_epoch() {
    let mut scene = Scene::joined();
    scene.say(FromCoordinator::Assignment(assignment(2, 4)));
    scene.entered(2, 4);
    let abort = Abort { epoch: 2, reason: "worker 1 is lost".into() };
    let aborted = scene.say(FromCoordinator::Abort(abort));
    assert_eq!(aborted, [MemberAction::Abort { epoch: 2, reason: "worker 1 is lost".into() }]);
    let result = Err(Failure { reason: "aborted".into(), suspects: vec![1] });
    let failed = scene.event(MemberEvent::Reduced { epoch: 2, step: 4, result });
    assert!(
        matches!(&failed[..], [MemberAction::Send(ToCoordinator::StepFailed(failed))] if failed.suspects == [1]),
        "{failed:?}"
    );
    assert_eq!(enters(&scene.say(FromCoordinator::Assignment(assignment(3, 4)))), [(3, 4, false)]);
    assert_eq!(reduces(&scene.entered(3, 4)), [(3, 4)]);
}

#[test]
fn an_assignment_during_a_step_waits_for_compute_and_the_old_result_is_not_reported() {
    let mut scene = Scene::joined();
    scene.say(FromCoordinator::Assignment(assignment(2, 4)));
    scene.entered(2, 4);
    let actions = scene.say(FromCoordinator::Assignment(assignment(3, 4)));
    assert!(matches!(&actions[..], [MemberAction::Abort { epoch: 2, .. }]), "{actions:?}");
    let actions = scene.say(FromCoordinator::Assignment(assignment(4, 4)));
    assert!(actions.is_empty(), "{actions:?}");
    let result = Err(Failure::default());
    let actions = scene.event(MemberEvent::Reduced { epoch: 2, step: 4, result });
    assert!(matches!(&actions[..], [MemberAction::Enter { assignment, .. }] if assignment.epoch == 4));
}

#[test]
fn after_a_commit_that_an_abort_follows_no_step_is_begun_in_the_old_epoch() {
    let mut scene = Scene::reduced();
    scene.say(FromCoordinator::Commit(commit(2, 0)));
    scene.say(FromCoordinator::Abort(Abort { epoch: 2, reason: "the membership changes".into() }));
    assert_eq!(scene.event(MemberEvent::Applied { step: 0 }), []);
    assert_eq!(enters(&scene.say(FromCoordinator::Assignment(assignment(3, 1)))), [(3, 1, false)]);
    assert_eq!(reduces(&scene.entered(3, 1)), [(3, 1)]);
}

#[test]
fn a_lost_session_is_sought_with_growing_pauses_until_the_deadline() {
    let mut scene = Scene::reduced();
    let mut pauses = vec![opens(&scene.lose())[0].1];
    for _ in 0..6 {
        let lost = scene.event(MemberEvent::Closed { reason: "connection refused".into() });
        pauses.push(opens(&lost)[0].1);
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
    scene.event(MemberEvent::Closed { reason: "connection refused".into() });
    let given_up = scene.pass(Duration::from_secs(61));
    let Some(MemberEnd::Unreachable { reason }) = end(&given_up) else { panic!("{given_up:?}") };
    assert!(reason.contains("60 s"), "{reason}");

    let mut impatient = Scene::new(0);
    impatient.event(MemberEvent::Tick);
    impatient.join(1);
    let lost = impatient.lose();
    assert!(matches!(end(&lost), Some(MemberEnd::Unreachable { reason }) if reason == "connection reset"));

    let mut alone = Scene::new(0);
    alone.event(MemberEvent::Tick);
    assert_eq!(opens(&alone.lose()), [(1, 100)]);
    let given_up = alone.pass(Duration::from_secs(21));
    assert!(matches!(end(&given_up), Some(MemberEnd::Unreachable { .. })), "{given_up:?}");
}

#[test]
fn a_session_that_does_not_open_or_answer_is_given_up_for_the_next() {
    let mut scene = Scene::new(60);
    scene.event(MemberEvent::Tick);
    let tried = scene.pass(Duration::from_secs(10));
    assert_eq!((tried[0].clone(), opens(&tried)), (MemberAction::Close, vec![(1, 100)]));
    scene.event(MemberEvent::Opened);
    let tried = scene.pass(Duration::from_secs(5));
    assert_eq!(opens(&tried), [(2, 200)]);
}

#[test]
fn a_rejoining_member_says_what_it_holds_and_applies_the_pending_gradient() {
    let mut scene = Scene::reduced();
    scene.say(FromCoordinator::Commit(commit(2, 0)));
    scene.event(MemberEvent::Applied { step: 0 });
    scene.lose();
    // The step that was under way is completed, and not reported to anybody.
    assert_eq!(scene.done(2, 1), []);
    let welcomed = scene.join(9);
    assert_eq!(welcomed, [MemberAction::Send(ToCoordinator::Ready(Default::default()))]);
    let hello = scene.hello();
    assert_eq!((hello.run_id.as_str(), hello.epoch, hello.holds), ("run", 2, Some(1)));
    assert_eq!(hello.ledger.as_ref().map(|ledger| ledger.step), Some(1));

    let told = assignment(10, 2);
    assert_eq!(enters(&scene.say(FromCoordinator::Assignment(told))), [(10, 2, true)]);
    assert_eq!(reduces(&scene.entered(10, 2)), [(10, 2)]);
    assert_eq!((scene.machine.holds(), scene.machine.ledger().step), (Some(2), 2));
}

#[test]
fn a_pending_gradient_of_another_step_is_not_applied() {
    for (step, expected) in [(0, false), (1, true), (2, false)] {
        let mut scene = Scene::reduced();
        scene.lose();
        scene.join(9);
        let actions = scene.say(FromCoordinator::Assignment(assignment(10, step)));
        assert_eq!(enters(&actions), [(10, step, expected)]);
    }
    // Redone, it is replaced.
    let mut scene = Scene::reduced();
    scene.say(FromCoordinator::Assignment(assignment(3, 0)));
    assert_eq!(reduces(&scene.entered(3, 0)), [(3, 0)]);
    scene.event(MemberEvent::Reduced { epoch: 3, step: 0, result: Err(Failure::default()) });
    assert_eq!(enters(&scene.say(FromCoordinator::Assignment(assignment(4, 1)))), [(4, 1, false)]);
}

#[test]
fn a_member_that_takes_up_a_state_greets_nobody_before_it_knows_what_it_holds() {
    let mut scene = Scene::joined();
    scene.say(FromCoordinator::Assignment(assignment(2, 6)));
    let lost = scene.lose();
    assert!(matches!(&lost[..], [MemberAction::Abort { epoch: 2, .. }]), "{lost:?}");
    let failure = Failure { reason: "aborted".into(), suspects: Vec::new() };
    let entered = scene.event(MemberEvent::Entered { epoch: 2, step: 6, result: Err(failure) });
    assert_eq!(opens(&entered), [(0, 100)]);
    scene.join(2);
    assert_eq!(scene.hello().holds, None);
}

#[test]
fn a_member_that_was_away_when_the_run_ended_ends_as_the_run_did() {
    for (how, expected) in [("done", Some(MemberEnd::Done)), ("interrupted", Some(MemberEnd::Interrupted))] {
        let mut scene = Scene::new(60);
        scene.event(MemberEvent::Tick);
        scene.join(1);
        assert_eq!(end(&scene.event(MemberEvent::RunOver { how: how.into() })), None, "it has a coordinator");
        scene.event(MemberEvent::Closed { reason: "gone".into() });
        assert_eq!(end(&scene.event(MemberEvent::RunOver { how: how.into() })).cloned(), expected);
    }
}

#[test]
fn a_coordinator_of_an_older_epoch_is_not_followed() {
    let mut scene = Scene::reduced();
    scene.lose();
    let turned = scene.join(1);
    assert!(
        matches!(&turned[..], [MemberAction::Close, MemberAction::Open { attempt: 1, .. }]),
        "{turned:?}"
    );
    scene.join(5);
    let turned = scene.say(FromCoordinator::Assignment(assignment(4, 0)));
    assert!(matches!(&turned[..], [MemberAction::Close, MemberAction::Open { .. }]), "{turned:?}");
    assert_eq!(scene.machine.epoch(), 5);
}

#[test]
fn another_run_configuration_or_manifest_ends_the_member() {
    for other in [
        Welcome { run_id: "other".into(), ..welcome(3) },
        Welcome { config_hash: "other".into(), ..welcome(3) },
        Welcome { manifest_hash: "other".into(), ..welcome(3) },
    ] {
        let mut scene = Scene::joined();
        scene.lose();
        scene.event(MemberEvent::Opened);
        let actions = scene.say(FromCoordinator::Welcome(other));
        assert!(matches!(end(&actions), Some(MemberEnd::Refused { reason }) if reason.contains("other")));
    }
}

#[test]
fn a_member_taken_for_lost_rejoins_with_its_state() {
    let mut scene = Scene::reduced();
    scene.say(FromCoordinator::Commit(commit(2, 0)));
    scene.event(MemberEvent::Applied { step: 0 });
    let stopped = scene.say(stop(StopKind::StopRejoin));
    assert!(
        matches!(
            &stopped[..],
            [MemberAction::Abort { epoch: 2, .. }, MemberAction::Close, MemberAction::Open { .. }]
        ),
        "{stopped:?}"
    );
    scene.event(MemberEvent::Reduced { epoch: 2, step: 1, result: Err(Failure::default()) });
    scene.join(4);
    assert_eq!(scene.hello().holds, Some(1));
}

#[test]
fn some_refusals_are_tried_again_and_the_others_end_the_member() {
    let cases = [
        (RefusalCode::RefusalStandby, true, true),
        (RefusalCode::RefusalFenced, true, true),
        (RefusalCode::RefusalCooldown, true, true),
        (RefusalCode::RefusalFull, false, true),
        (RefusalCode::RefusalToken, false, false),
        (RefusalCode::RefusalBinary, false, false),
        (RefusalCode::RefusalConfiguration, false, false),
        (RefusalCode::RefusalClosed, false, false),
        (RefusalCode::RefusalRun, false, false),
    ];
    for (code, first, again) in cases {
        let mut scene = Scene::new(60);
        scene.event(MemberEvent::Tick);
        scene.event(MemberEvent::Opened);
        let actions = scene.say(refused(code));
        assert_eq!(end(&actions).is_none(), first, "{code:?}: {actions:?}");

        let mut scene = Scene::joined();
        scene.lose();
        scene.event(MemberEvent::Opened);
        let actions = scene.say(refused(code));
        let refusal = MemberEnd::Refused { reason: "no".into() };
        assert_eq!(end(&actions), (!again).then_some(&refusal), "{code:?}");
        let pause = opens(&actions).first().map(|(_, pause)| *pause);
        let waits = matches!(code, RefusalCode::RefusalCooldown | RefusalCode::RefusalFull);
        assert_eq!(pause, again.then_some(if waits { 30_000 } else { 200 }), "{code:?}");
    }
}

#[test]
fn stops_end_the_member_as_they_say() {
    let cases = [
        (StopKind::StopDone, MemberEnd::Done),
        (StopKind::StopInterrupted, MemberEnd::Interrupted),
        (StopKind::StopReleased, MemberEnd::Released),
        (StopKind::StopFailed, MemberEnd::Failed { exit_code: 7, reason: "because".into() }),
    ];
    for (kind, expected) in cases {
        let actions = Scene::reduced().say(stop(kind));
        assert_eq!(end(&actions), Some(&expected));
    }
}

fn record(step: u64) -> CommittedStep {
    CommittedStep { step, ..CommittedStep::default() }
}

#[test]
fn the_ledger_grows_with_commits_and_forgets_what_is_durable() {
    let mut scene = Scene::joined();
    let coverage = |samples| vec![Coverage { stage: 1, samples, digest: vec![7; 16] }];
    let ledger = Ledger {
        step: 4,
        coverage: coverage(400),
        quarantined: vec![row(2), row(3)],
        skipped_steps: vec![1, 3],
        records: [1, 3].map(record).into(),
    };
    let told = Assignment { ledger: Some(ledger.clone()), ..assignment(2, 4) };
    scene.say(FromCoordinator::Assignment(told));
    assert_eq!(scene.machine.ledger(), &Ledger::default(), "the state is not there yet");
    scene.entered(2, 4);
    assert_eq!(scene.machine.ledger(), &ledger);
    scene.done(2, 4);
    let committed = Commit {
        coverage: coverage(500),
        quarantined: vec![row(4)],
        durable_step: 3,
        skipped: true,
        record: Some(record(4)),
        recorded_steps: 2,
        ..commit(2, 4)
    };
    scene.say(FromCoordinator::Commit(committed.clone()));
    let expected = Ledger {
        step: 5,
        coverage: coverage(500),
        quarantined: vec![row(3), row(4)],
        skipped_steps: vec![1, 3, 4],
        records: [3, 4].map(record).into(),
    };
    assert_eq!(scene.machine.ledger(), &expected);
    // Said again, it changes nothing.
    scene.say(FromCoordinator::Commit(committed));
    assert_eq!(scene.machine.ledger(), &expected);
    scene.lose();
    scene.event(MemberEvent::Opened);
    assert_eq!(scene.hello().ledger.as_ref(), Some(&expected));
}

#[test]
fn late_and_repeated_messages_change_nothing() {
    let mut scene = Scene::reduced();
    assert_eq!(scene.say(FromCoordinator::Assignment(assignment(2, 0))), []);
    assert_eq!(scene.say(FromCoordinator::Welcome(welcome(1))), []);
    assert_eq!(scene.say(FromCoordinator::Commit(commit(1, 0))), []);
    assert_eq!(scene.event(MemberEvent::Prepared), []);
    assert_eq!(scene.event(MemberEvent::Opened), []);
    assert_eq!(scene.done(2, 0), []);
    assert_eq!(scene.say(FromCoordinator::Commit(saving(2, 0, "1-2"))).len(), 1);
    assert_eq!(scene.say(FromCoordinator::Commit(saving(2, 0, "1-2"))), []);
    assert_eq!(reduces(&scene.event(MemberEvent::Applied { step: 0 })), [(2, 1)]);
    assert_eq!(scene.event(MemberEvent::Applied { step: 0 }), []);
    scene.lose();
    assert_eq!(scene.lose().len(), 1);
    assert_eq!(scene.say(FromCoordinator::Commit(commit(2, 1))), []);
}

#[test]
fn a_commit_of_a_step_that_was_not_reduced_ends_the_session_alone() {
    let mut scene = Scene::joined();
    scene.say(FromCoordinator::Assignment(assignment(2, 0)));
    scene.entered(2, 0);
    let turned = scene.say(FromCoordinator::Commit(commit(2, 0)));
    assert!(matches!(&turned[..], [MemberAction::Close, MemberAction::Open { .. }]), "{turned:?}");
    assert_eq!(scene.machine.holds(), Some(0));
}

#[test]
fn a_save_that_is_begun_again_waits_for_compute() {
    let mut scene = Scene::reduced();
    scene.say(FromCoordinator::Commit(commit(2, 0)));
    scene.event(MemberEvent::Applied { step: 0 });
    scene.say(FromCoordinator::Assignment(assignment(3, 1)));
    scene.event(MemberEvent::Reduced { epoch: 2, step: 1, result: Err(Failure::default()) });
    // It comes while the state is taken up, and again while a step is under way.
    assert_eq!(scene.say(FromCoordinator::Commit(saving(3, 0, "1-3"))), []);
    assert_eq!(scene.entered(3, 1), [MemberAction::Apply(saving(3, 0, "1-3"))]);
    assert_eq!(reduces(&scene.event(MemberEvent::Applied { step: 0 })), [(3, 1)]);
    assert_eq!(scene.say(FromCoordinator::Commit(saving(3, 0, "1-4"))), []);
    let actions = scene.done(3, 1);
    assert_eq!(actions[1..], [MemberAction::Apply(saving(3, 0, "1-4"))]);
    assert_eq!(scene.event(MemberEvent::Applied { step: 0 }), []);
    // What was pending meanwhile is applied when it is committed.
    assert_eq!(scene.say(FromCoordinator::Commit(commit(3, 1))), [MemberAction::Apply(commit(3, 1))]);
}

#[test]
fn a_state_that_cannot_be_had_is_reported_and_the_next_assignment_followed() {
    let mut scene = Scene::joined();
    scene.say(FromCoordinator::Assignment(assignment(2, 6)));
    let failure = Failure { reason: "peer is gone".into(), suspects: Vec::new() };
    let actions = scene.event(MemberEvent::Entered { epoch: 2, step: 6, result: Err(failure) });
    assert!(
        matches!(&actions[..], [MemberAction::Send(ToCoordinator::StepFailed(failed))] if failed.step == 6),
        "{actions:?}"
    );
    assert_eq!(scene.say(FromCoordinator::Commit(commit(2, 6))), []);
    assert_eq!(enters(&scene.say(FromCoordinator::Assignment(assignment(3, 6)))), [(3, 6, false)]);
}

#[test]
fn a_member_that_cannot_go_on_says_so_and_waits_for_the_coordinator_to_note_it() {
    let failed = || MemberEvent::Failed { exit_code: 3, message: "no column jpg".into() };
    let expected = MemberEnd::Failed { exit_code: 3, reason: "no column jpg".into() };
    let mut noted = Scene::joined();
    let actions = noted.event(failed());
    assert!(
        matches!(&actions[..], [MemberAction::Send(ToCoordinator::Failed(failed))] if failed.exit_code == 3),
        "{actions:?}"
    );
    assert_eq!(end(&noted.say(stop(StopKind::StopFailed))), Some(&expected));
    let mut closed = Scene::joined();
    closed.event(failed());
    assert_eq!(end(&closed.lose()), Some(&expected));
    let mut silent = Scene::joined();
    silent.event(failed());
    assert_eq!(end(&silent.pass(Duration::from_secs(6))), Some(&expected));
    let mut alone = Scene::joined();
    alone.lose();
    assert_eq!(end(&alone.event(failed())), Some(&expected));
}

#[test]
fn leaving_is_said_in_every_session_and_ends_a_member_that_has_none() {
    let mut scene = Scene::joined();
    let leaving = MemberAction::Send(ToCoordinator::Leaving(Default::default()));
    assert_eq!(scene.event(MemberEvent::LeaveRequested), [leaving]);
    assert_eq!(scene.event(MemberEvent::LeaveRequested), []);
    assert!(matches!(end(&scene.lose()), Some(MemberEnd::Left { .. })));

    let mut seeking = Scene::reduced();
    seeking.lose();
    let actions = seeking.event(MemberEvent::LeaveRequested);
    let Some(MemberEnd::Left { reason }) = end(&actions) else { panic!("{actions:?}") };
    assert!(reason.contains("asked to leave") && reason.contains("after 0 steps"), "{reason}");
}
