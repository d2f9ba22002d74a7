//! Steps that are not finite: they end the run, or are skipped, a number of times.

use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_proto::v1::{NamedValue, NonFinite, SlotSamples, StepDone, StopKind};

use super::scene::{Scene, hello_again, settings, spec};
use blip2_proto::v1::CommittedStep;

use crate::machine::{Action, Event, Outcome, SessionId, Start};
use crate::{LossRise, NonFinitePolicy, RunSpec};

const STAGES: [u64; 1] = [9];

fn skipping(at_most: u64) -> RunSpec {
    RunSpec { non_finite: NonFinitePolicy::Skip { at_most }, ..spec(&STAGES) }
}

/// Two workers step.
fn running(spec: RunSpec) -> Scene {
    let mut scene = Scene::new(spec, settings(2, 1), 0);
    scene.join(0);
    scene.join(1);
    scene
}

/// A report of a step with a loss that is not a number, with one NaN or another.
fn odd(scene: &Scene, session: SessionId, loss: f64) -> StepDone {
    let slot = SlotSamples { slot: 4 * session as u32, keys: vec!["k1".into(), "k2".into()], more: 6 };
    StepDone {
        values: vec![NamedValue { name: "loss".into(), value: loss }],
        non_finite: Some(NonFinite { term: "loss_itm".into(), slots: vec![slot] }),
        ..scene.report(session)
    }
}

fn both_odd(scene: &mut Scene) {
    for (session, loss) in [(0, f64::NAN), (1, -f64::NAN)] {
        let done = odd(scene, session, loss);
        scene.say(session, FromWorker::StepDone(done));
    }
}

fn message(scene: &Scene) -> String {
    match scene.outcome() {
        Some(Outcome::Failed { exit_code: 1, message }) => message.clone(),
        other => panic!("{other:?}"),
    }
}

fn reported(scene: &Scene) -> Vec<&CommittedStep> {
    let steps = scene.actions.iter().filter_map(|action| match action {
        Action::Report(step) => Some(step),
        _ => None,
    });
    steps.collect()
}

#[test]
fn a_step_that_is_not_finite_ends_the_run_before_it_is_committed() {
    let mut scene = running(spec(&STAGES));
    scene.all_done(&[0, 1]);
    both_odd(&mut scene);
    let text = message(&scene);
    for part in ["step 1 (stage 1)", "loss_itm", "slot 0 with the rows k1, k2 and 6 more", "slot 4", "skip"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    assert_eq!(scene.commits(0).len(), 1);
    assert_eq!(scene.stop(1).expect("stopped").0, StopKind::StopFailed);
}

#[test]
fn skipped_steps_are_committed_counted_and_bounded() {
    let mut scene = running(skipping(2));
    both_odd(&mut scene);
    scene.all_done(&[0, 1]);
    both_odd(&mut scene);
    let commits: Vec<_> = scene.commits(1).iter().map(|commit| (commit.step, commit.skipped)).collect();
    assert_eq!(commits, [(0, true), (1, false), (2, true)]);
    let skipped: Vec<bool> = reported(&scene).iter().map(|step| step.skipped).collect();
    assert_eq!(skipped, [true, false, true]);
    let status = scene.machine.status();
    assert_eq!(status.skipped_steps, 2);
    assert!(status.faults.iter().any(|fault| fault.contains("the step is skipped")), "{:?}", status.faults);
    both_odd(&mut scene);
    assert!(message(&scene).contains("max_skipped_steps = 2"));
    assert_eq!(scene.commits(1).len(), 3);
}

#[test]
fn a_checkpoint_and_a_ledger_name_the_skipped_steps() {
    let mut scene = running(skipping(5));
    both_odd(&mut scene);
    scene.all_done(&[0, 1]);
    scene.event(Event::StopRequested { reason: "asked".into() });
    both_odd(&mut scene);
    let name = scene.commits(0)[2].save_checkpoint.clone();
    scene.part(0, &name);
    scene.part(1, &name);
    let record = scene.stored()[0].clone();
    assert_eq!(record.skipped_steps, [0, 2]);

    let resumed = RunSpec { resume: Some(record), ..skipping(3) };
    let start = Start { epoch: 5, expected_members: 1, ..Start::default() };
    let mut scene = Scene::starting(resumed, settings(1, 1), 0, start);
    assert_eq!(scene.machine.status().skipped_steps, 2);
    let mut hello = hello_again(0, &STAGES, 6);
    hello.ledger.as_mut().expect("a ledger").skipped_steps = vec![4, 7];
    scene.event(Event::Joined { session: 0, hello });
    scene.say(0, FromWorker::Ready(Default::default()));
    assert_eq!(scene.assignments(0)[0].ledger.as_ref().expect("a ledger").skipped_steps, [0, 2, 4]);
    assert_eq!(scene.machine.status().skipped_steps, 3);
}

#[test]
fn members_that_disagree_on_what_is_finite_end_the_run() {
    let mut scene = running(skipping(5));
    let one = StepDone { non_finite: Some(NonFinite::default()), ..scene.report(0) };
    scene.say(0, FromWorker::StepDone(one));
    scene.done(1);
    assert!(message(&scene).contains("do not agree"));
    assert!(scene.commits(0).is_empty());
}

#[test]
fn a_rising_loss_is_told_and_ends_nothing() {
    let rise = LossRise { window: 1, factor: 1.5 };
    let mut scene = running(RunSpec { loss_rise: rise, ..spec(&STAGES) });
    for loss in [2.0, 2.5, 4.0, 5.0] {
        for session in [0, 1] {
            let values = vec![NamedValue { name: "loss".into(), value: loss }];
            let done = StepDone { values, ..scene.report(session) };
            scene.say(session, FromWorker::StepDone(done));
        }
    }
    let told: Vec<Option<f64>> = reported(&scene).iter().map(|step| step.loss_rise).collect();
    assert_eq!(told, [None, None, Some(2.0), None]);
    assert_eq!(reported(&scene)[3].samples_seen, 4 * 64);
    assert!(scene.machine.status().faults[0].contains("step 2: the loss rises"));
    assert!(scene.outcome().is_none());
}
