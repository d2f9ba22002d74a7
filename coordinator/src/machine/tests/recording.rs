//! The records of committed steps over a change of leaders, and the lead in numbers.

use std::time::Duration;

use blip2_proto::v1::worker_message::Kind as FromWorker;
use blip2_proto::v1::{CommittedStep, Hello, Ready, Spent};

use super::scene::{Scene, checkpoint, hello_again, settings, spec};
use crate::RunSpec;
use crate::machine::{Event, Start};

const STAGES: [u64; 1] = [9];

/// A coordinator that takes over a run of one member from the checkpoint after four steps.
fn taking_over() -> Scene {
    let spec = RunSpec { resume: Some(checkpoint(&STAGES, 4, 3)), ..spec(&STAGES) };
    let start = Start { epoch: 7, expected_members: 1, ..Start::default() };
    Scene::starting(spec, settings(1, 1), 0, start)
}

/// A member that comes back with the state after seven steps, and knows these records.
fn knowing(steps: &[u64]) -> Hello {
    let mut hello = hello_again(0, &STAGES, 7);
    let records = steps.iter().map(|step| CommittedStep { step: *step, ..CommittedStep::default() });
    hello.ledger.as_mut().unwrap().records = records.collect();
    hello
}

fn rejoin(scene: &mut Scene, hello: Hello) {
    scene.event(Event::Joined { session: 0, hello });
    scene.say(0, FromWorker::Ready(Ready::default()));
}

fn known(scene: &Scene) -> Vec<u64> {
    let assignments = scene.assignments(0);
    let ledger = assignments.last().unwrap().ledger.as_ref().unwrap();
    ledger.records.iter().map(|record| record.step).collect()
}

#[test]
fn who_takes_over_reports_what_the_members_know_and_nobody_may_have_kept() {
    let mut scene = taking_over();
    rejoin(&mut scene, knowing(&[3, 4, 5, 6, 7]));
    assert_eq!(scene.reported(), [3, 4, 5, 6], "of steps that are committed");
    assert_eq!(known(&scene), [3, 4, 5, 6]);
    scene.done(0);
    assert_eq!(scene.reported(), [3, 4, 5, 6, 7], "each once");
    let commit = scene.commits(0)[0];
    assert_eq!((commit.record.as_ref().unwrap().step, commit.recorded_steps), (7, 0));
}

#[test]
fn what_is_kept_for_good_is_not_handed_on() {
    let mut scene = Scene::running(&STAGES, 1, 1, 0);
    (0..4).for_each(|_| scene.done(0));
    scene.event(Event::Recorded { steps: 3 });
    scene.done(0);
    assert_eq!(scene.commits(0)[4].recorded_steps, 3);
    scene.join(1);
    scene.done(0);
    assert_eq!(known(&scene), [3, 4, 5]);
    let record = scene.assignments(1)[0].ledger.as_ref().unwrap().records[0].clone();
    assert_eq!((record.task.as_str(), record.samples, record.seconds), ("contrast", 8, 2.0));
    assert_eq!(record.values[0].name, "loss");
}

#[test]
fn the_parts_of_a_lead_add_up_to_its_time() {
    let mut scene = Scene::new(spec(&STAGES), settings(2, 1), 3);
    scene.pass(Duration::from_secs(20), &[]);
    scene.join(0);
    scene.join(1);
    scene.pass(Duration::from_secs(3), &[0, 1]);
    scene.all_done(&[0, 1]);
    // A member is lost in a step, which the other does again.
    scene.pass(Duration::from_secs(2), &[0, 1]);
    scene.event(Event::Disconnected { session: 1 });
    scene.pass(Duration::from_secs(4), &[0]);
    scene.done(0);
    scene.pass(Duration::from_secs(5), &[0]);
    scene.done(0);
    let name = scene.commits(0)[2].save_checkpoint.clone();
    scene.stored_part(0, &name, 1.5);
    scene.pass(Duration::from_secs(2), &[0]);
    scene.done(0);
    let figures = scene.machine.figures();
    let cause = |name: &str| {
        let found = figures.not_useful.iter().find(|(cause, _)| *cause == name);
        found.unwrap().1.as_secs_f64()
    };
    let total = figures.useful.unwrap().as_secs_f64()
        + figures.not_useful.iter().map(|(_, time)| time.as_secs_f64()).sum::<f64>();
    assert!(
        (total - scene.now.as_secs_f64()).abs() < 0.01 * total,
        "{total} of {:?}: {figures:?}",
        scene.now
    );
    let near = |value: f64, expected: f64| (value - expected).abs() < 0.6;
    assert!(
        near(cause("start_up"), 20.0) && near(cause("wasted"), 2.0) && near(cause("save"), 1.5),
        "{figures:?}"
    );
    // Half a second of each of four commits.
    assert!(near(cause("data"), 2.0), "{figures:?}");
    assert_eq!(figures.redone.iter().collect::<Vec<_>>(), [(&"member_lost", &1)]);
    assert_eq!(figures.members, [("computing", 1), ("waiting", 0), ("preparing", 0), ("leaving", 0)]);
    assert!(
        figures.since_commit < Duration::from_secs(1) && figures.since_checkpoint < Duration::from_secs(3)
    );
}

/// When the next coordinator of a run begins, by its clock.
const BEGAN: Duration = Duration::from_secs(1_800_000_000);

/// Seconds that were useful, that were wasted, and in which nobody led.
fn useful_wasted_and_unled(scene: &Scene) -> Option<(f64, f64, f64)> {
    let figures = scene.machine.figures();
    let useful = figures.useful?.as_secs_f64();
    let cause = |name: &str| figures.not_useful.iter().find(|(cause, _)| *cause == name).unwrap().1;
    Some((useful, cause("wasted").as_secs_f64(), cause("no_leader").as_secs_f64()))
}

/// A coordinator that begins at [`BEGAN`], after one that told these times so long before.
fn after(known: &[(u64, f64)], ago: impl Fn(f64) -> f64) -> Scene {
    let told = |useful: f64| Spent { told_at: BEGAN.as_secs_f64() - ago(useful), ..spent(useful) };
    let earlier = known.iter().map(|(step, useful)| (*step, told(*useful))).collect();
    let start = Start { epoch: 7, expected_members: 1, began: BEGAN, ..Start::default() };
    let resume = Some(checkpoint(&STAGES, 4, 3));
    Scene::starting(RunSpec { resume, earlier, ..spec(&STAGES) }, settings(1, 1), 0, start)
}

fn spent(useful: f64) -> Spent {
    Spent { useful, wasted: 5.0, ..Spent::default() }
}

#[test]
fn time_is_counted_on_over_a_change_of_leaders() {
    // The first lead began 100 s before this one. The members bring all steps, of which the store knows some.
    let ago = |useful: f64| 100.0 - 5.0 - useful;
    let mut scene = after(&[(3, 40.0), (5, 60.0)], ago);
    assert_eq!(useful_wasted_and_unled(&scene), None, "before it is known where the run goes on");
    let mut hello = knowing(&[6]);
    let told = Spent { told_at: BEGAN.as_secs_f64() - ago(70.0), ..spent(70.0) };
    hello.ledger.as_mut().unwrap().records[0].spent = Some(told);
    rejoin(&mut scene, hello);
    scene.pass(Duration::from_secs(2), &[0]);
    scene.done(0);
    let (useful, wasted, unled) = useful_wasted_and_unled(&scene).unwrap();
    assert!(useful > 70.5 && useful < 75.0 && wasted < 6.0, "{useful} {wasted}");
    assert!((unled - 25.0).abs() < 0.001, "from what was told last: {unled}");
    let record = scene.commits(0)[0].record.clone().unwrap();
    let told = record.spent.unwrap();
    assert_eq!((told.useful, told.no_leader), (useful, unled), "the next one goes on from here");
    let wall = told.told_at - (BEGAN.as_secs_f64() - 100.0);
    let Spent { start_up, data, save, restore, .. } = told;
    let sum = useful + wasted + unled + start_up + data + save + restore;
    assert!((sum - wall).abs() < 0.01 * wall, "{sum} of {wall} s since the first lead began");

    // Nobody is left of those who held steps 4 and 5, which are done again.
    let mut scene = after(&[(3, 40.0), (5, 60.0)], ago);
    scene.join(0);
    scene.pass(Duration::from_secs(5), &[0]);
    scene.done(0);
    let (useful, wasted, unled) = useful_wasted_and_unled(&scene).unwrap();
    assert!(useful > 40.5 && useful < 45.0 && (25.0..27.0).contains(&wasted), "{useful} {wasted}");
    assert!((unled - 35.0).abs() < 0.001, "{unled}");
}

#[test]
fn a_clock_that_is_ahead_takes_no_time_away() {
    let mut scene = after(&[(3, 40.0)], |_| -3600.0);
    scene.join(0);
    scene.pass(Duration::from_secs(5), &[0]);
    scene.done(0);
    let (useful, wasted, unled) = useful_wasted_and_unled(&scene).unwrap();
    assert!(useful > 40.0 && wasted >= 5.0 && unled == 0.0, "{useful} {wasted} {unled}");
}
