//! The coordinator's server with model workers over loopback and a run's folder on disk or in memory.

#![expect(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

mod model;
mod standby;
mod strangers;

use std::time::Duration;

use blip2_coordinator::{Outcome, RunSpec};
use blip2_dataset::quarantine::QuarantineList;
use blip2_proto::v1::coordinator_client::CoordinatorClient;
use blip2_proto::v1::coordinator_message::Kind as ToWorker;
use blip2_proto::v1::{Hello, RefusalCode, StatusRequest, StopKind};
use blip2_run::catalogue::Catalogue;
use blip2_run::epoch::Epochs;
use blip2_run::layout::QUARANTINE;

use self::model::{Habit, folder, hello, spec, start, stop_kind, work};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_survives_the_loss_of_a_worker_and_ends_with_its_checkpoints() {
    let (_folder, root) = folder();
    let mut run = start(spec(&root), 2).await;
    let stranger = Hello { token: "guess!".into(), ..hello("stranger") };
    let refused = work(run.address.clone(), root.clone(), stranger, Habit::None).await;
    assert!(
        matches!(refused, Some(ToWorker::Refused(refused)) if refused.code() == RefusalCode::RefusalToken)
    );
    let workers = [Habit::None, Habit::DiesAt(2)]
        .into_iter()
        .zip(["a", "b"])
        .map(|(habit, name)| tokio::spawn(work(run.address.clone(), root.clone(), hello(name), habit)));
    let workers: Vec<_> = workers.collect();
    let mut ends = Vec::new();
    for worker in workers {
        ends.push(worker.await.expect("no panic"));
    }
    assert_eq!(ends.pop(), Some(None));
    assert_eq!(stop_kind(ends.pop().flatten()), Some(StopKind::StopDone));
    let outcome = run.coordinator.await.expect("no panic").expect("it ran");
    let Outcome::Done { checkpoint } = outcome else { panic!("{outcome:?}") };

    let mut steps = Vec::new();
    while let Some(step) = run.commits.recv().await {
        steps.push((step.step, step.stage, step.samples));
    }
    assert_eq!(steps, [(0, 1, 64), (1, 1, 64), (2, 1, 64), (3, 1, 64), (4, 2, 64), (5, 2, 64)]);
    let catalogue = Catalogue::new(&run.root);
    assert_eq!(catalogue.verify(&checkpoint).await.expect("intact").step, 6);
    let listed = catalogue.list().await.expect("listed");
    let kept: Vec<u64> = listed.valid.iter().map(|record| record.step).collect();
    assert_eq!(kept, [4, 6], "the end of stage 1 is kept, step 3 is retired");
    let rows = root.join(QUARANTINE).read().await.expect("read").expect("written");
    assert_eq!(QuarantineList::from_parquet(rows).expect("a list").len(), 1);
    let epochs = Epochs::new(&root, "test".into(), String::new());
    let last = epochs.newest_record().await.expect("read").expect("there");
    assert_eq!((last.epoch, last.step, last.end.as_deref()), (4, 6, Some("done")));
    assert_eq!(last.address, run.address);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_run_is_saved_and_continued() {
    let (_folder, root) = folder();
    let mut run = start(spec(&root), 1).await;
    let slow = Habit::Slow(Duration::from_millis(30));
    let worker = tokio::spawn(work(run.address.clone(), root.clone(), hello("a"), slow));
    run.commits.recv().await.expect("a first step");
    let status = CoordinatorClient::connect(run.address.clone())
        .await
        .expect("it listens")
        .status(StatusRequest { token: "secret".into(), ..StatusRequest::default() })
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!((status.state.as_str(), status.total_steps, status.members.len()), ("running", 6, 1));
    run.stop.send(()).expect("it runs");
    assert_eq!(stop_kind(worker.await.expect("no panic")), Some(StopKind::StopInterrupted));
    let outcome = run.coordinator.await.expect("no panic").expect("it ran");
    let Outcome::Interrupted { checkpoint: Some(name) } = outcome else { panic!("{outcome:?}") };

    let (resume, damaged) = Catalogue::new(&root).latest_valid().await.expect("one");
    let resume = resume.expect("one");
    assert_eq!((&resume.name, damaged.len()), (&name, 0));
    let start_step = resume.step;
    let mut again = start(RunSpec { resume: Some(resume), ..spec(&root) }, 1).await;
    let worker = tokio::spawn(work(again.address.clone(), root.clone(), hello("a"), Habit::None));
    assert_eq!(again.commits.recv().await.expect("a step").step, start_step);
    assert_eq!(stop_kind(worker.await.expect("no panic")), Some(StopKind::StopDone));
    assert!(matches!(again.coordinator.await.expect("no panic"), Ok(Outcome::Done { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_coordinator_fences_off_the_first() {
    let (_folder, root) = folder();
    let mut run = start(spec(&root), 1).await;
    let slow = Habit::Slow(Duration::from_millis(30));
    let worker = tokio::spawn(work(run.address.clone(), root.clone(), hello("a"), slow));
    run.commits.recv().await.expect("a first step");
    Epochs::new(&root, "second".into(), String::new()).begin(1).await.expect("free");
    // No word of farewell: the worker shall look for the new coordinator.
    assert_eq!(worker.await.expect("no panic"), None);
    let outcome = run.coordinator.await.expect("no panic").expect("it ran");
    assert!(
        matches!(&outcome, Outcome::Failed { exit_code: 4, message } if message.contains("fenced")),
        "{outcome:?}"
    );
    assert!(Catalogue::new(&root).list().await.expect("listed").valid.is_empty());
}
