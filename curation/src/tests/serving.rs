//! A coordinator and its workers over gRPC, with models that compute nothing: whatever is lost, the same
//! objects are there in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use blip2_dataset::corpus::ingest::Share;
use blip2_dataset::quarantine::QuarantineRecord;
use blip2_leases::client::ClientOptions;
use blip2_leases::error::LeaseError;
use blip2_leases::server::{Admission, LeaseEnd};
use blip2_proto::transport::Transport;
use blip2_proto::v1::LeaseStatusReply;
use blip2_run::exit::ExitClass as _;
use blip2_telemetry::Telemetry;
use blip2_tensors::device::seat::DeviceChoice;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio_util::sync::CancellationToken;

use super::fakes::fake_models;
use super::{Scene, settings};
use crate::config::CurationConfig;
use crate::coordinator::{CurationOptions, coordinate_curation};
use crate::counted::Counted;
use crate::error::{CurationError, Result};
use crate::job::{CurationJob, CurationSettings};
use crate::scored::ScoredText;
use crate::scoring::{CuratedImage, CurationModels, ModelTimes, Scorer};
use crate::task_runner::TaskRunner;
use crate::worker::{CurationWorked, CurationWorkerOptions, work};

const TOKEN: &str = "of these tests";

/// A coordinator that runs, and where.
struct Coordinator {
    url: String,
    ended: JoinHandle<Result<LeaseEnd>>,
    status: watch::Receiver<LeaseStatusReply>,
    counted: Counted,
}

impl Coordinator {
    async fn start(job: &CurationJob, most_failures: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut config = CurationConfig { output: job.output().to_string(), ..CurationConfig::default() };
        config.models.captions = 0;
        let (sender, status) = watch::channel(LeaseStatusReply::default());
        let counted = Counted::default();
        let options = CurationOptions {
            job: job.clone(),
            config_toml: toml::to_string(&config).unwrap(),
            lease: Duration::from_millis(400),
            most_failures,
            admission: Admission {
                token: TOKEN.into(),
                binary: "this".into(),
                transport: Transport::default(),
                status: sender,
            },
            counted: counted.clone(),
        };
        #[expect(clippy::disallowed_methods, reason = "joined by the test")]
        let ended = tokio::spawn(coordinate_curation(listener, std::future::pending(), options));
        Self { url, ended, status, counted }
    }

    /// A worker with these models.
    fn worker(
        &self,
        name: &str,
        models: impl FnOnce() -> CurationModels + Send + 'static,
    ) -> JoinHandle<Result<CurationWorked>> {
        let leases = ClientOptions {
            coordinator: self.url.clone(),
            token: TOKEN.into(),
            binary: "this".into(),
            name: name.into(),
            transport: Transport::default(),
            patience: Duration::from_secs(20),
            telemetry: Telemetry::default(),
        };
        let options = CurationWorkerOptions { leases, device: DeviceChoice::default() };
        spawn_local(async move { work(options, &CancellationToken::new(), move |_, _| Ok(models())).await })
    }
}

/// The files of a job that one process does by itself.
async fn alone(scene: &Scene) -> std::collections::BTreeMap<String, Vec<u8>> {
    let job = scene.begin("alone").await;
    let mut runner = TaskRunner::new(job, fake_models());
    runner.run_share(Share::WHOLE, &CancellationToken::new(), None, |_| ()).await.unwrap();
    assert_eq!(runner.times().images, 38);
    scene.written("alone")
}

#[tokio::test]
async fn a_share_tells_of_its_own_tasks_those_that_were_done_before_among_them() {
    let scene = Scene::new();
    let settings = CurationSettings { task_row_groups: 1, ..settings() };
    let job = scene.try_begin("out", &settings).await.unwrap();
    let stop = CancellationToken::new();
    let mut runner = TaskRunner::new(job.clone(), fake_models());
    // One task of the second share, and then it is asked to go.
    let half = Share { index: 1, count: 2 };
    let goes_after_one = |status: &LeaseStatusReply| {
        if status.done == 1 {
            stop.cancel();
        }
    };
    runner.run_share(half, &stop, None, goes_after_one).await.unwrap();
    let (counted, mut told) = (Counted::default(), Vec::new());
    let mut runner = TaskRunner::new(job.clone(), fake_models());
    runner
        .run_share(half, &CancellationToken::new(), Some(&counted), |status| {
            told.push((status.tasks, status.done, status.leased, status.workers.len(), status.rows));
        })
        .await
        .unwrap();
    // Tasks 1, 3 and 5 of six, of 7 rows each but the last, which has 5.
    assert_eq!(told, [(3, 1, 0, 0, 0), (3, 1, 1, 1, 0), (3, 2, 0, 0, 7), (3, 2, 1, 1, 7), (3, 3, 0, 0, 12)]);
    let counts = counted.get();
    assert_eq!(
        (counts.summary.tasks_done, counts.summary.rows_read),
        (3, 19),
        "and none of the other share's"
    );
    assert_eq!((counts.summary.rejected, counts.newest.len()), (0, 0));

    let other = Counted::default();
    let mut runner = TaskRunner::new(job.clone(), fake_models());
    let first = Share { index: 0, count: 2 };
    runner.run_share(first, &CancellationToken::new(), Some(&other), |_| ()).await.unwrap();
    let newest = other.get().newest;
    // Row 5 has a picture that ends early, row 20 another one than its hash says.
    assert_eq!(newest.iter().map(|row| row.sample).collect::<Vec<_>>(), [20, 5]);
    let jpeg = job.row_thumbnail(&newest[0]).await.unwrap();
    assert!(jpeg.starts_with(&[0xff, 0xd8]), "what is there can be seen");
    assert!(job.row_thumbnail(&newest[1]).await.is_err());
    let elsewhere = QuarantineRecord { file: "/etc/passwd".into(), ..newest[0].clone() };
    assert_eq!(job.row_thumbnail(&elsewhere).await.unwrap_err(), "its file is not of the corpus");
}

#[tokio::test]
async fn workers_that_come_and_die_write_what_one_writes_alone() {
    let here = LocalSet::new();
    here.run_until(async {
        let scene = Scene::new();
        let whole = alone(&scene).await;
        let job = scene.begin("shared").await;
        let coordinator = Coordinator::start(&job, 3).await;
        // One that takes a task and is gone before it has done it.
        let (taken, mut is_taken) = tokio::sync::mpsc::unbounded_channel();
        let dies = coordinator
            .worker("dies", move || CurationModels { clip: Some(Box::new(Stuck(taken))), ..fake_models() });
        is_taken.recv().await.unwrap();
        dies.abort();
        let others = ["a", "b"].map(|name| coordinator.worker(name, fake_models));
        for worker in others {
            worker.await.unwrap().unwrap();
        }
        assert_eq!(coordinator.ended.await.unwrap().unwrap(), LeaseEnd::Done);
        let status = coordinator.status.borrow().clone();
        assert_eq!((status.tasks, status.done, status.leased), (3, 3, 0));
        assert_eq!(status.rows, 40, "every row counts once, however often its task was done");
        let summary = job.summary().await.unwrap();
        let counts = coordinator.counted.get();
        assert_eq!(counts.summary, summary, "each task counts once");
        assert_eq!(counts.rejected.values().sum::<u64>(), summary.rejected);
        assert_eq!(counts.newest.len() as u64, summary.rejected);
        // A coordinator that finds all of it done counts the same.
        let again = Counted::default();
        again.count_earlier(&job, job.tasks_done().await.unwrap()).await;
        assert_eq!((again.get().summary, again.get().rejected), (summary, counts.rejected));
        assert_eq!(scene.written("shared"), whole);
    })
    .await;
}

#[tokio::test]
async fn a_task_that_fails_again_and_again_ends_the_curation_and_is_named() {
    let here = LocalSet::new();
    here.run_until(async {
        let scene = Scene::new();
        let job = scene.begin("failing").await;
        let coordinator = Coordinator::start(&job, 2).await;
        let asked = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&asked);
        let worker = coordinator
            .worker("w", move || CurationModels { clip: Some(Box::new(Failing(counted))), ..fake_models() });
        let LeaseEnd::Failed { task, reason } = coordinator.ended.await.unwrap().unwrap() else {
            panic!("the task failed")
        };
        assert!(task == 0 && reason.contains("failed 2 times") && reason.contains("no score"), "{reason}");
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        worker.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn another_program_is_refused() {
    let scene = Scene::new();
    let job = scene.begin("refused").await;
    assert_eq!(job.settings(), &settings());
    let coordinator = Coordinator::start(&job, 1).await;
    let leases = ClientOptions {
        coordinator: coordinator.url.clone(),
        token: TOKEN.into(),
        binary: "another".into(),
        name: String::new(),
        transport: Transport::default(),
        patience: Duration::ZERO,
        telemetry: Telemetry::default(),
    };
    let options = CurationWorkerOptions { leases: leases.clone(), device: DeviceChoice::default() };
    let refused = work(options, &CancellationToken::new(), |_, _| Ok(fake_models())).await;
    let error = refused.unwrap_err();
    assert!(error.exit().code() == 4 && error.to_string().contains("start the same program"), "{error}");
    let leases = ClientOptions { token: "guessed".into(), ..leases };
    let stranger = CurationWorkerOptions { leases, device: DeviceChoice::default() };
    let refused = work(stranger, &CancellationToken::new(), |_, _| Ok(fake_models())).await;
    assert!(matches!(refused, Err(CurationError::Lease(LeaseError::Refused { .. }))), "{refused:?}");
    coordinator.ended.abort();
}

/// Says that it was asked, and never answers while anybody listens.
struct Stuck(tokio::sync::mpsc::UnboundedSender<()>);

impl Scorer for Stuck {
    fn scores(
        &self,
        _: &[CuratedImage],
        _: &[Vec<ScoredText>],
        _: &mut ModelTimes,
    ) -> Result<Vec<Option<f32>>> {
        self.0.send(()).unwrap();
        // Its worker is aborted, which the thread of the models does not see: it waits until nobody listens
        // any more.
        while !self.0.is_closed() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(CurationError::Panicked("a worker that died".into()))
    }
}

/// Counts how often it fails.
struct Failing(Arc<AtomicU64>);

impl Scorer for Failing {
    fn scores(
        &self,
        _: &[CuratedImage],
        _: &[Vec<ScoredText>],
        _: &mut ModelTimes,
    ) -> Result<Vec<Option<f32>>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Err(CurationError::Configuration("no score".into()))
    }
}
