//! Units of an evaluation on leases: their records, and a worker that does them.

use std::cell::RefCell;
use std::time::Duration;

use blip2_dataset::error::DatasetError;
use blip2_evaluation::job::{EvaluationJob, Phase, Unit};
use blip2_evaluation::job_error::{JobError, Result as JobResult};
use blip2_leases::client::LeaseClient;
use blip2_leases::server::LeasedWork;
use blip2_proto::text::{MAX_TEXT, visible};
use blip2_proto::v1::report_request::Outcome;
use blip2_proto::v1::{LeasedTask, lease_reply};
use blip2_run::exit::Exit;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::async_trait;

use crate::error::CliError;

/// What workers are told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EvaluationWork {
    /// `caption`, `vqa`, `retrieval` or `itm`.
    pub(super) task: String,
    /// Where the evaluation was to be computed.
    pub(super) device: String,
    /// The command's arguments.
    pub(super) evaluation: Value,
}

/// The units of all phases as tasks: those of the first phase come first.
#[derive(Debug, Clone)]
pub(super) struct UnitTasks {
    pub(super) job: EvaluationJob,
    pub(super) phases: &'static [Phase],
}

impl UnitTasks {
    pub(super) fn count(&self) -> u64 {
        self.job.units() * self.phases.len() as u64
    }

    /// The phase's place, and the unit.
    fn of(&self, task: u64) -> Option<(usize, u64)> {
        let units = self.job.units().max(1);
        let phase = usize::try_from(task / units).ok().filter(|phase| *phase < self.phases.len())?;
        Some((phase, task % units))
    }

    /// First tasks of the phases, each of which needs all results of those before.
    pub(super) fn barriers(&self) -> Vec<u64> {
        (1..self.phases.len() as u64).map(|phase| phase * self.job.units()).collect()
    }

    /// Tasks whose results are there.
    pub(super) async fn done(&self) -> JobResult<std::collections::BTreeSet<u64>> {
        let mut done = std::collections::BTreeSet::new();
        for (first, phase) in (0..).map(|phase| phase * self.job.units()).zip(self.phases) {
            done.extend(self.job.done(*phase).await?.into_iter().map(|unit| first + unit));
        }
        Ok(done)
    }
}

#[async_trait]
impl LeasedWork for UnitTasks {
    async fn rows_done(&self, task: u64) -> Result<Option<u64>, String> {
        let Some((phase, unit)) = self.of(task) else { return Ok(None) };
        let is_done = self.job.is_done(self.phases[phase], unit).await.map_err(|error| error.to_string())?;
        Ok(is_done.then(|| self.job.items(unit).len() as u64))
    }
}

/// What asking for a unit came to.
enum Leased {
    Unit(Held),
    /// All are done, or the evaluation was interrupted.
    NoMore(Exit),
}

/// A unit that this worker has, kept until it is dropped.
struct Held {
    task: LeasedTask,
    _renewing: JoinSet<()>,
}

/// The units that a coordinator gives this process.
pub(super) struct LeasedUnits {
    client: LeaseClient,
    /// One of a later phase than that which is computed.
    next: RefCell<Option<Held>>,
}

impl LeasedUnits {
    pub(super) fn new(client: LeaseClient) -> Self {
        Self { client, next: RefCell::new(None) }
    }

    /// Computes units of a phase as long as there are some. `None` when units of a later phase are handed
    /// out, which is when all of this one are done; else how the worker ends.
    pub(super) async fn work(
        &self,
        tasks: &UnitTasks,
        phase: usize,
        stop: &CancellationToken,
        mut compute: impl AsyncFnMut(Unit) -> JobResult<Vec<u8>>,
    ) -> Result<Option<Exit>, CliError> {
        loop {
            let held = match self.lease(stop).await? {
                Leased::Unit(held) => held,
                Leased::NoMore(exit) => return Ok(Some(exit)),
            };
            let Some((of, unit)) = tasks.of(held.task.task) else {
                let reason = format!("task {} is none of this evaluation", held.task.task);
                return Err(CliError::failed(reason));
            };
            if of > phase {
                self.next.replace(Some(held));
                return Ok(None);
            }
            if stop.is_cancelled() {
                self.client.report(held.task, Outcome::GivenBack(true)).await?;
                return Ok(Some(Exit::Interrupted));
            }
            let (outcome, end) = if of == phase {
                let result = do_unit(tasks, tasks.phases[of], unit, &mut compute).await;
                outcome(result, tasks.job.items(unit).len() as u64)
            } else {
                // Somebody took away results that were there.
                let reason =
                    format!("results of {} are gone: start the workers again", tasks.phases[of].folder);
                (Outcome::Failed(reason.clone()), Err(CliError::failed(reason)))
            };
            self.client.report(held.task, outcome).await?;
            end?;
        }
    }

    /// The unit that was put aside, or another, as long as there are some and `stop` has not come.
    async fn lease(&self, stop: &CancellationToken) -> Result<Leased, CliError> {
        if let Some(held) = self.next.take() {
            return Ok(Leased::Unit(held));
        }
        while !stop.is_cancelled() {
            match self.client.lease().await? {
                Some(lease_reply::Kind::Task(task)) => {
                    return Ok(Leased::Unit(Held { task, _renewing: self.client.renewing(task) }));
                }
                Some(lease_reply::Kind::WaitMs(millis)) => {
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_millis(u64::from(millis))) => {}
                        () = stop.cancelled() => {}
                    }
                }
                Some(lease_reply::Kind::Finished(true)) => return Ok(Leased::NoMore(Exit::Done)),
                // The coordinator was asked to go.
                Some(lease_reply::Kind::Finished(false)) | None => break,
            }
        }
        Ok(Leased::NoMore(Exit::Interrupted))
    }
}

/// Computes a unit unless its results are there.
async fn do_unit(
    tasks: &UnitTasks,
    phase: Phase,
    unit: u64,
    compute: &mut impl AsyncFnMut(Unit) -> JobResult<Vec<u8>>,
) -> JobResult<()> {
    if tasks.job.is_done(phase, unit).await? {
        return Ok(());
    }
    let result = compute(Unit { items: tasks.job.items(unit), next: None }).await?;
    tasks.job.store(phase, unit, result).await
}

/// What the coordinator is told of a unit, and whether the worker goes on.
fn outcome(result: JobResult<()>, rows: u64) -> (Outcome, Result<(), CliError>) {
    match result {
        Ok(()) => (Outcome::DoneRows(rows), Ok(())),
        Err(error) => {
            tracing::warn!(%error, "a unit failed");
            let outcome = Outcome::Failed(visible(&error.to_string(), MAX_TEXT));
            // A model that panicked is gone; after anything else the next unit may do better.
            let is_over = matches!(error, JobError::Data(DatasetError::Thread { .. }));
            (outcome, if is_over { Err(error.into()) } else { Ok(()) })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;
    use std::ops::Range;
    use std::path::Path;

    use blip2_dataset::corpus::ingest::Share;
    use blip2_evaluation::job::EvaluationRecord;
    use blip2_leases::client::ClientOptions;
    use blip2_leases::server::{Admission, LeaseEnd, LeaseOptions, hand_out};
    use blip2_proto::transport::Transport;
    use blip2_proto::v1::LeaseStatusReply;
    use blip2_store::Location;
    use blip2_telemetry::Telemetry;
    use tokio::net::TcpListener;
    use tokio::sync::{mpsc, watch};
    use tokio::task::{JoinHandle, LocalSet, spawn_local};

    use super::*;

    const TOKEN: &str = "of these tests";
    const PHASES: &[Phase] =
        &[Phase { folder: "first", ending: "json" }, Phase { folder: "second", ending: "json" }];

    async fn tasks(folder: &Path) -> UnitTasks {
        let out = Location::parse(folder.to_str().unwrap()).unwrap();
        let record = EvaluationRecord {
            task: "caption".into(),
            model: "m".into(),
            set: "s".into(),
            items: 11,
            unit_items: 2,
            settings: Value::Null,
        };
        UnitTasks { job: EvaluationJob::begin(&out, record).await.unwrap(), phases: PHASES }
    }

    fn json(values: impl Iterator<Item = usize>) -> Vec<u8> {
        serde_json::to_vec(&values.collect::<Vec<_>>()).unwrap()
    }

    fn squares(items: Range<usize>) -> Vec<u8> {
        json(items.map(|item| item * item))
    }

    /// What the second phase starts with: a number of all results of the first.
    async fn sum_of_first(tasks: &UnitTasks) -> usize {
        let read =
            |_, content: &[u8]| serde_json::from_slice::<Vec<usize>>(content).map_err(|e| e.to_string());
        tasks.job.results(PHASES[0], read).await.unwrap().into_iter().sum()
    }

    /// The files of an evaluation that one process does by itself.
    async fn alone(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let tasks = tasks(folder).await;
        let first = async |unit: Unit| Ok(squares(unit.items));
        tasks.job.work(PHASES[0], Share::WHOLE, || false, first, |_| {}).await.unwrap();
        let sum = sum_of_first(&tasks).await;
        let second = async |unit: Unit| Ok(json(unit.items.map(|item| item + sum)));
        tasks.job.work(PHASES[1], Share::WHOLE, || false, second, |_| {}).await.unwrap();
        written(folder)
    }

    fn written(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let of_phase = |phase: &Phase| {
            let files = std::fs::read_dir(folder.join(phase.folder)).unwrap();
            files.map(|file| file.unwrap().path()).collect::<Vec<_>>()
        };
        let name = |path: &Path| path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
        let files = PHASES.iter().flat_map(of_phase);
        files.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect()
    }

    /// A coordinator on `address` as soon as that is free, and where it listens.
    async fn coordinator(tasks: &UnitTasks, address: SocketAddr) -> (SocketAddr, JoinHandle<LeaseEnd>) {
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let address = listener.local_addr().unwrap();
        let options = LeaseOptions {
            called: "evaluation",
            work: String::new(),
            tasks: tasks.count(),
            done: tasks.done().await.unwrap(),
            barriers: tasks.barriers(),
            lease: Duration::from_millis(300),
            most_failures: 2,
            admission: Admission {
                token: TOKEN.into(),
                binary: "this".into(),
                transport: Transport::default(),
                status: watch::channel(LeaseStatusReply::default()).0,
            },
        };
        let tasks = tasks.clone();
        let ended =
            spawn_local(
                async move { hand_out(listener, std::future::pending(), tasks, options).await.unwrap() },
            );
        (address, ended)
    }

    async fn client(address: SocketAddr, name: &str) -> LeasedUnits {
        let options = ClientOptions {
            coordinator: format!("http://{address}"),
            token: TOKEN.into(),
            binary: "this".into(),
            name: name.into(),
            transport: Transport::default(),
            patience: Duration::from_secs(20),
            telemetry: Telemetry::default(),
        };
        LeasedUnits::new(LeaseClient::connect(&options).await.unwrap())
    }

    /// A worker's life.
    async fn life(units: LeasedUnits, tasks: UnitTasks) -> Exit {
        let stop = CancellationToken::new();
        let first = async |unit: Unit| {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(squares(unit.items))
        };
        if let Some(exit) = units.work(&tasks, 0, &stop, first).await.unwrap() {
            return exit;
        }
        let sum = sum_of_first(&tasks).await;
        let second = async |unit: Unit| Ok(json(unit.items.map(|item| item + sum)));
        units.work(&tasks, 1, &stop, second).await.unwrap().expect("there is no third phase")
    }

    #[tokio::test]
    async fn whoever_is_lost_the_results_are_those_of_one_process() {
        let (own, shared) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let whole = alone(own.path()).await;
        assert_eq!(whole.len(), 12);
        let tasks = tasks(shared.path()).await;
        let here = LocalSet::new();
        here.run_until(async {
            let (address, first) = coordinator(&tasks, "127.0.0.1:0".parse().unwrap()).await;
            // A worker that takes a unit and is gone before it has done it.
            let (taken, mut is_taken) = mpsc::unbounded_channel();
            let (doomed, of) = (client(address, "dies").await, tasks.clone());
            let dies = spawn_local(async move {
                let stuck = async |_| {
                    taken.send(()).unwrap();
                    std::future::pending().await
                };
                doomed.work(&of, 0, &CancellationToken::new(), stuck).await.unwrap()
            });
            is_taken.recv().await.unwrap();
            dies.abort();
            let mut workers = Vec::new();
            for name in ["a", "b"] {
                workers.push(spawn_local(life(client(address, name).await, tasks.clone())));
            }
            while tasks.done().await.unwrap().len() < 2 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            // The coordinator is lost, and another one comes in its place.
            first.abort();
            assert!(first.await.unwrap_err().is_cancelled(), "there was still something to do");
            let (_, second) = coordinator(&tasks, address).await;
            for worker in workers {
                assert_eq!(worker.await.unwrap(), Exit::Done);
            }
            assert_eq!(second.await.unwrap(), LeaseEnd::Done);
        })
        .await;
        assert_eq!(written(shared.path()), whole);
    }

    #[tokio::test]
    async fn a_unit_that_fails_again_and_again_ends_the_evaluation_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let tasks = tasks(folder.path()).await;
        let here = LocalSet::new();
        here.run_until(async {
            let (address, ended) = coordinator(&tasks, "127.0.0.1:0".parse().unwrap()).await;
            let (units, stop, mut failures) = (client(address, "w").await, CancellationToken::new(), 0);
            let failing = async |_: Unit| {
                failures += 1;
                Err(JobError::Image { name: "x.jpg".into(), reason: "is not there".into() })
            };
            let end = units.work(&tasks, 0, &stop, failing).await.unwrap();
            assert_eq!((end, failures), (Some(Exit::Done), 2));
            let LeaseEnd::Failed { task, reason } = ended.await.unwrap() else { panic!("a unit failed") };
            assert!(task == 0 && reason.contains("image `x.jpg`: is not there"), "{reason}");
        })
        .await;
        assert_eq!(tasks.done().await.unwrap().len(), 0);
    }

    #[tokio::test]
    async fn a_worker_that_is_told_to_stop_gives_its_unit_back() {
        let folder = tempfile::tempdir().unwrap();
        let tasks = tasks(folder.path()).await;
        let here = LocalSet::new();
        here.run_until(async {
            let (address, ended) = coordinator(&tasks, "127.0.0.1:0".parse().unwrap()).await;
            let (units, stop) = (client(address, "w").await, CancellationToken::new());
            let once = async |unit: Unit| {
                stop.cancel();
                Ok(squares(unit.items))
            };
            assert_eq!(units.work(&tasks, 0, &stop, once).await.unwrap(), Some(Exit::Interrupted));
            assert_eq!(tasks.done().await.unwrap().len(), 1, "the unit in hand was done");
            assert_eq!(life(client(address, "x").await, tasks.clone()).await, Exit::Done);
            assert_eq!(ended.await.unwrap(), LeaseEnd::Done);
        })
        .await;
    }
}
