//! Members that cannot go on, and who is to blame for it.

use std::time::Duration;

use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_proto::v1::{Failed, Hello, PartFailed, StopKind};

use super::scene::{Scene, hello, settings, spec};
use crate::machine::{Event, Outcome, SessionId, Start};

const NO_COLUMN: &str = "corpus.parquet: no column jpg";

fn cannot(scene: &mut Scene, session: SessionId, message: &str) {
    scene.say(session, FromWorker::Failed(Failed { exit_code: 3, message: message.into() }));
}

fn failure(scene: &Scene) -> Option<(u32, &str)> {
    match scene.outcome()? {
        Outcome::Failed { exit_code, message } => Some((*exit_code, message)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_member_whose_trouble_is_its_own_is_turned_out_and_the_run_goes_on() {
    let mut scene = Scene::running(&[3], 2, 1, 0);
    scene.all_done(&[0, 1]);
    cannot(&mut scene, 1, NO_COLUMN);
    let (kind, reason) = scene.stop(1).expect("told");
    assert!(kind == StopKind::StopExcluded && reason.contains(NO_COLUMN), "{kind:?}: {reason}");
    assert!(scene.machine.status().faults.iter().any(|fault| fault.contains(NO_COLUMN)));
    assert_eq!(scene.assignments(0).last().expect("assigned").members.len(), 1);
    assert_eq!(scene.stop(0), None);
    scene.done(0);
    scene.done(0);
    let name = scene.commits(0).last().expect("committed").save_checkpoint.clone();
    scene.part(0, &name);
    assert!(matches!(scene.outcome(), Some(Outcome::Done { .. })));
}

#[test]
fn what_another_member_meets_in_its_place_is_the_runs() {
    let mut scene = Scene::running(&[9], 3, 1, 0);
    // Two that fail in the same attempt are of the same host, or read the same file.
    cannot(&mut scene, 1, NO_COLUMN);
    assert_eq!(failure(&scene), None);
    cannot(&mut scene, 0, NO_COLUMN);
    let (exit_code, message) = failure(&scene).expect("the run's");
    assert!(exit_code == 3 && message.contains("worker 0 (w0): corpus.parquet"), "{message}");
    assert_eq!(scene.stop(2).expect("stopped").0, StopKind::StopFailed);

    // A step that is committed in between proves that it was not.
    let mut scene = Scene::running(&[9], 3, 1, 0);
    cannot(&mut scene, 1, NO_COLUMN);
    scene.all_done(&[0, 2]);
    cannot(&mut scene, 0, NO_COLUMN);
    assert_eq!(failure(&scene), None);
    // Another error is another one's trouble, until nobody is left.
    cannot(&mut scene, 2, "out of memory");
    assert_eq!(failure(&scene).map(|(exit_code, _)| exit_code), Some(3));
}

#[test]
fn a_run_of_one_worker_ends_with_its_error_at_once() {
    let mut scene = Scene::running(&[9], 1, 1, 0);
    cannot(&mut scene, 0, NO_COLUMN);
    assert!(failure(&scene).expect("failed").1.contains(NO_COLUMN));
    let start = Start { epoch: 1, on_one_machine: true, ..Start::default() };
    let mut before = Scene::starting(spec(&[9]), settings(1, 1), 0, start);
    before.event(Event::Joined { session: 0, hello: hello(0) });
    cannot(&mut before, 0, NO_COLUMN);
    assert_eq!(failure(&before).map(|(exit_code, _)| exit_code), Some(3));
}

#[test]
fn before_the_start_only_all_workers_can_speak_for_the_run() {
    let starting = || {
        let mut scene = Scene::new(spec(&[9]), settings(2, 1), 0);
        (0..2).for_each(|session| scene.event(Event::Joined { session, hello: hello(session) }));
        scene
    };
    let mut one = starting();
    cannot(&mut one, 0, NO_COLUMN);
    assert_eq!((failure(&one), one.stop(0).expect("told").0), (None, StopKind::StopExcluded));
    // The same process once more at the same place is no other witness.
    one.event(Event::Joined {
        session: 5,
        hello: Hello { name: "w0".into(), exchange_address: "host-0:2".into(), ..hello(5) },
    });
    cannot(&mut one, 5, NO_COLUMN);
    assert_eq!(failure(&one), None);
    cannot(&mut one, 1, NO_COLUMN);
    assert_eq!(failure(&one).map(|(exit_code, _)| exit_code), Some(3));

    let mut proven = starting();
    proven.say(1, FromWorker::Ready(Default::default()));
    assert!(proven.assignments(1).is_empty());
    cannot(&mut proven, 0, NO_COLUMN);
    // Nobody waits for the one that was turned out.
    assert_eq!((failure(&proven), proven.assignments(1).len()), (None, 1));

    let start = Start { epoch: 1, on_one_machine: true, ..Start::default() };
    let mut local = Scene::starting(spec(&[9]), settings(2, 1), 0, start);
    (0..2).for_each(|session| local.event(Event::Joined { session, hello: hello(session) }));
    cannot(&mut local, 0, NO_COLUMN);
    assert_eq!(failure(&local).map(|(exit_code, _)| exit_code), Some(3));
}

#[test]
fn a_joiner_that_cannot_begin_is_nobody_elses_trouble() {
    let mut scene = Scene::running(&[9], 1, 1, 0);
    scene.event(Event::Joined { session: 1, hello: hello(1) });
    cannot(&mut scene, 1, NO_COLUMN);
    assert_eq!((failure(&scene), scene.stop(1).expect("told").0), (None, StopKind::StopExcluded));
    scene.done(0);
    assert_eq!(scene.commits(0).len(), 1);
}

#[test]
fn whoever_says_that_the_trouble_is_its_own_is_sent_away_and_nobody_else() {
    let mut scene = Scene::running(&[9], 3, 1, 0);
    for attempt in 1..=2 {
        assert_eq!((scene.assignments(1).len(), scene.stop(1)), (attempt, None));
        // The second waits for the third, which waits for the first, whose disk does not answer.
        scene.failed(1, &[2]);
        scene.failed(2, &[0]);
        scene.failed(0, &[0]);
        scene.pass(Duration::from_secs(3), &[0, 1, 2]);
    }
    let (kind, reason) = scene.stop(0).expect("sent away");
    assert!(kind == StopKind::StopExcluded && reason.contains("others can"), "{reason}");
    assert_eq!((scene.stop(1), scene.stop(2)), (None, None));
    assert_eq!(scene.assignments(2).last().expect("assigned").members.len(), 2);

    // What all have is no one's own: a store that is away.
    let mut all = Scene::running(&[9], 2, 1, 0);
    for _ in 0..5 {
        (0..2).for_each(|session| all.failed(session, &[session as u32]));
        all.pass(Duration::from_secs(3), &[0, 1]);
    }
    assert_eq!((all.stop(0), all.stop(1), all.outcome()), (None, None, None));
}

#[test]
fn one_that_reaches_nobody_goes_and_not_those_whom_it_suspects() {
    let mut scene = Scene::running(&[9], 3, 1, 0);
    for _ in 0..2 {
        scene.failed(0, &[1, 2]);
        scene.failed(1, &[0]);
        scene.failed(2, &[0]);
        scene.pass(Duration::from_secs(3), &[0, 1, 2]);
    }
    assert_eq!(scene.stop(0).expect("sent away").0, StopKind::StopRejoin);
    assert_eq!((scene.stop(1), scene.stop(2)), (None, None));
}

#[test]
fn one_that_alone_cannot_store_its_parts_is_turned_out() {
    let mut scene = Scene::running(&[90], 2, 1, 1);
    for attempt in 1..=2 {
        scene.all_done(&[0, 1]);
        let name = scene.commits(0).last().expect("committed").save_checkpoint.clone();
        assert!(!name.is_empty(), "attempt {attempt}");
        let reason = "no space left".into();
        scene.say(1, FromWorker::PartFailed(PartFailed { checkpoint: name.clone(), reason }));
        assert_eq!(scene.stop(1), None);
        scene.part(0, &name);
    }
    let (kind, reason) = scene.stop(1).expect("turned out");
    assert!(kind == StopKind::StopExcluded && reason.contains("no space left"), "{reason}");
    assert!(scene.stored().is_empty());
    scene.done(0);
    let name = scene.commits(0).last().expect("committed").save_checkpoint.clone();
    scene.part(0, &name);
    assert_eq!((scene.stored().len(), scene.outcome()), (1, None));
}
