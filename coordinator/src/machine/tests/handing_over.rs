//! A leader that is asked to go, with and without one that stands by.

use std::time::Duration;

use blip2_proto::v1::StopKind;

use super::scene::{Scene, settings, spec};
use crate::machine::{Event, Outcome, Start, StoreFailure};

/// A run of nine steps, of which one is committed.
fn running() -> Scene {
    let mut scene = Scene::running(&[9], 2, 1, 0);
    scene.all_done(&[0, 1]);
    scene
}

fn asks(scene: &mut Scene, standby: &str) {
    scene.event(Event::StandbyAsked { standby: standby.into() });
}

fn leaves(scene: &mut Scene, standby: &str) {
    scene.event(Event::StandbyLeft { standby: standby.into() });
}

fn drain(scene: &mut Scene) {
    scene.event(Event::DrainRequested { reason: "asked to go".into() });
}

/// The members save after the step under way, and are told that the run was interrupted.
fn stops(scene: &mut Scene) {
    assert!(!scene.machine.status().hands_over);
    scene.all_done(&[0, 1]);
    let name = scene.commits(0).last().expect("committed").save_checkpoint.clone();
    assert!(!name.is_empty(), "it is saved");
    scene.part(0, &name);
    scene.part(1, &name);
    assert_eq!(scene.outcome(), Some(&Outcome::Interrupted { checkpoint: Some(name) }));
    assert_eq!(scene.stop(1).expect("told").0, StopKind::StopInterrupted);
}

#[test]
fn the_lead_passes_to_one_that_stands_by_and_no_member_is_stopped() {
    let mut scene = running();
    asks(&mut scene, "http://b:1");
    drain(&mut scene);
    assert!(scene.machine.status().hands_over);
    // Until the other one leads, steps are committed.
    scene.all_done(&[0, 1]);
    assert_eq!(scene.commits(1).len(), 2);
    assert!(scene.commits(1).iter().all(|commit| commit.save_checkpoint.is_empty()), "nothing need be saved");
    drain(&mut scene);
    scene.event(Event::EpochConfirmed { result: Err(StoreFailure::Fenced("epoch 3 is another's".into())) });
    assert_eq!(scene.outcome(), Some(&Outcome::HandedOver));
    assert_eq!((scene.stop(0), scene.stop(1)), (None, None), "they look for the new one");
    let status = scene.machine.status();
    assert_eq!((status.state.as_str(), status.hands_over), ("handed over", false));
    assert_eq!(status.faults, Vec::<String>::new());
}

#[test]
fn an_offer_is_looked_after_more_often_than_a_lead() {
    let asked = |is_offered: bool| {
        let mut scene = running();
        asks(&mut scene, "http://b:1");
        if is_offered {
            drain(&mut scene);
        }
        let before = scene.confirmations();
        scene.pass(Duration::from_secs(10), &[0, 1]);
        scene.confirmations() - before
    };
    assert!(asked(true) >= 3 * asked(false), "{} and {}", asked(true), asked(false));
}

#[test]
fn where_nobody_stands_by_the_run_stops() {
    let mut alone = running();
    drain(&mut alone);
    stops(&mut alone);

    let mut silent = running();
    asks(&mut silent, "http://b:1");
    silent.pass(Duration::from_secs(4), &[0, 1]);
    drain(&mut silent);
    stops(&mut silent);

    let mut left = running();
    asks(&mut left, "http://b:1");
    leaves(&mut left, "http://b:1");
    drain(&mut left);
    stops(&mut left);
}

#[test]
fn an_offer_that_nobody_takes_ends_in_a_stop() {
    let mut late = running();
    asks(&mut late, "http://b:1");
    drain(&mut late);
    late.pass(Duration::from_secs(19), &[0, 1]);
    assert!(late.machine.status().hands_over);
    late.pass(Duration::from_secs(2), &[0, 1]);
    stops(&mut late);

    // All are asked to go at once.
    let mut gone = running();
    asks(&mut gone, "http://b:1");
    asks(&mut gone, "http://c:1");
    drain(&mut gone);
    leaves(&mut gone, "http://b:1");
    assert!(gone.machine.status().hands_over);
    leaves(&mut gone, "http://c:1");
    stops(&mut gone);

    // Somebody asks for the end.
    let mut stopped = running();
    asks(&mut stopped, "http://b:1");
    drain(&mut stopped);
    stopped.event(Event::StopRequested { reason: "asked to stop".into() });
    stops(&mut stopped);
}

#[test]
fn a_run_whose_workers_end_with_this_process_or_whose_steps_are_done_is_not_handed_over() {
    let start = Start { epoch: 1, on_one_machine: true, ..Start::default() };
    let mut launched = Scene::starting(spec(&[9]), settings(2, 1), 0, start);
    launched.join(0);
    launched.join(1);
    asks(&mut launched, "http://b:1");
    drain(&mut launched);
    stops(&mut launched);

    let mut done = Scene::running(&[1], 1, 1, 0);
    asks(&mut done, "http://b:1");
    done.done(0);
    drain(&mut done);
    assert!(!done.machine.status().hands_over);
    done.part(0, "00000001-000002");
    assert!(matches!(done.outcome(), Some(Outcome::Done { .. })), "{:?}", done.outcome());
}
