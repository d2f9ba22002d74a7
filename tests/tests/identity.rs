//! The parameters are the same bits for any number of workers, after a stop, and after a fault.

use std::sync::OnceLock;

use blip2_tests::process::{children, poll, signal};
use blip2_tests::run::{STEPS, SmallRun};

/// Digest of an uninterrupted run of one worker.
fn reference() -> &'static (String, u64) {
    static REFERENCE: OnceLock<(String, u64)> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let run = SmallRun::new();
        run.train(&["--workers", "1"]).expect(0);
        assert_eq!(run.committed() as u64, 2 * STEPS, "one line of metrics a step");
        run.digest()
    })
}

#[test]
fn two_and_four_workers_train_the_same_parameters() {
    assert_eq!(reference().1, 2 * STEPS);
    for workers in ["2", "4"] {
        let run = SmallRun::new();
        run.train(&["--workers", workers]).expect(0);
        assert_eq!(&run.digest(), reference(), "{workers} workers");
    }
}

#[test]
fn sigterm_saves_and_a_resumed_run_ends_with_the_same_parameters() {
    let run = SmallRun::new();
    let running = run.start(&["--workers", "2"]);
    run.wait_for_step(9);
    signal(running.id(), "TERM");
    running.wait().expect(5).says(&["--resume"]);
    let (_, step) = run.digest();
    assert!((9..2 * STEPS).contains(&step), "stopped at step {step}");

    run.train(&["--workers", "2"]).expect(4).says(&["--resume"]);
    run.train(&["--workers", "2", "--resume", "--set", "stage1.optimizer.learning_rate=0.5"])
        .expect(4)
        .says(&["stage1.optimizer.learning_rate"]);
    run.train(&["--workers", "1", "--resume"]).expect(0);
    assert_eq!(&run.digest(), reference());
    assert_eq!(run.committed() as u64, 2 * STEPS, "one line of metrics a step");
}

#[test]
fn a_killed_worker_does_not_change_the_parameters() {
    let run = SmallRun::new();
    let running = run.start(&["--workers", "2", "--set", "coordinator.min_workers=1"]);
    run.wait_for_step(5);
    let workers = children(running.id());
    assert_eq!(workers.len(), 2, "{workers:?}");
    signal(workers[1], "KILL");
    running.wait().expect(0);
    assert_eq!(&run.digest(), reference());
}

#[test]
fn a_killed_launcher_leaves_no_worker_and_the_run_continues() {
    let run = SmallRun::new();
    let running = run.start(&["--workers", "2"]);
    run.wait_for_step(8);
    let workers = children(running.id());
    signal(running.id(), "KILL");
    drop(running);
    let gone = |id: &u32| !std::path::Path::new(&format!("/proc/{id}")).is_dir();
    assert!(poll(|| workers.iter().all(gone).then_some(())).is_some(), "workers outlive the launcher");
    run.train(&["--workers", "2", "--resume"]).expect(0);
    assert_eq!(&run.digest(), reference());
}
