//! Who computes the units of an evaluation: this process, its share of them, workers beside it or elsewhere.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use blip2_dataset::corpus::ingest::Share;
use blip2_evaluation::job::{EvaluationJob, Phase, Progress, Unit};
use blip2_evaluation::job_error::Result as JobResult;
use blip2_leases::server::{LeaseEnd, LeaseOptions, hand_out};
use blip2_proto::transport::{TlsFiles, listening};
use blip2_proto::v1::LeaseStatusReply;
use blip2_run::exit::Exit;
use blip2_tensors::device::DeviceName;
use bytes::Bytes;
use clap::Args;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::leased::{EvaluationWork, LeasedUnits, UnitTasks};
use crate::again::same_command;
use crate::commands::endpoint::MetricsArguments;
use crate::commands::leasing::Leasing;
use crate::commands::share::share;
use crate::config::{ConfigArguments, MetricsSection, load};
use crate::error::CliError;
use crate::launch::{Machine, Place, WorkerCommand, places};
use crate::signals::Signals;
use crate::tls::TlsArguments;
use crate::typed_numbers;

/// Between two lines of progress, at least.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// A unit that fails so often ends the evaluation.
const MOST_FAILURES: u32 = 3;

/// How the work is cut, who does it, and where its results are.
#[derive(Debug, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Units")]
pub(super) struct UnitArguments {
    /// Folder or URL for results; the same command goes on where it was stopped. Without it, nothing is kept.
    #[arg(long, value_name = "FOLDER_OR_URL")]
    pub(super) out: Option<String>,
    /// Items of a unit, which are computed and stored together.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = typed_numbers::some)]
    pub(super) unit_items: usize,
    /// Do the I-th of N shares of the units, from 0; whoever finishes last puts the results together.
    #[arg(long, value_name = "I/N", value_parser = share, requires = "out")]
    #[serde(skip)]
    shard: Option<Share>,
    #[command(flatten)]
    #[serde(skip)]
    hands: HandArguments,
}

/// Workers.
#[derive(Debug, Default, Args)]
struct HandArguments {
    /// Worker processes on this machine; 0 leaves all units to workers that join (`eval worker`). Without it,
    /// this process computes.
    #[arg(long, value_name = "N", conflicts_with = "shard", value_parser = clap::value_parser!(u32).range(..=1024))]
    workers: Option<u32>,
    /// Address for workers of other machines, which must see the set and --out under the same names; needs
    /// --token-file.
    #[arg(long, value_name = "ADDR", conflicts_with = "shard", requires = "out", value_parser = listening)]
    listen: Option<SocketAddr>,
    /// File with the token that workers of other machines must have.
    #[arg(long, value_name = "FILE", conflicts_with = "shard")]
    token_file: Option<PathBuf>,
    /// A worker that is not heard of for so long has lost its unit to another.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = typed_numbers::seconds)]
    lease_seconds: f64,
    /// Compute threads of each worker; 0 divides the cores.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = typed_numbers::threads)]
    threads: usize,
    #[command(flatten)]
    metrics: MetricsArguments,
    #[command(flatten)]
    tls: TlsArguments,
}

impl UnitArguments {
    /// Whether units are handed out.
    pub(super) fn are_handed_out(&self) -> bool {
        self.hands.workers.is_some() || self.hands.listen.is_some()
    }
}

/// A process that evaluates.
pub(super) struct Session {
    pub(super) signals: Signals,
    /// Where a coordinator says what is to be computed.
    pub(super) leased: Option<LeasedUnits>,
}

impl Session {
    /// One that was started to evaluate.
    pub(super) fn own() -> Result<Self, CliError> {
        Ok(Self { signals: Signals::listen()?, leased: None })
    }
}

/// An evaluation that was begun.
pub(super) struct Begun {
    pub(super) tasks: UnitTasks,
    hands: Hands,
    stop: CancellationToken,
    // Goes away with the evaluation, where nothing is kept.
    _scratch: Option<TempDir>,
    signals: Signals,
}

/// Who computes.
enum Hands {
    /// This process.
    Own(Share),
    /// Others, until all phases are done.
    Others(RefCell<Option<Box<Coordination>>>),
    /// This process, what it is told.
    Leased(Box<LeasedUnits>),
}

/// A coordinator of an evaluation.
struct Coordination {
    work: String,
    lease: Duration,
    listen: Option<SocketAddr>,
    token_file: Option<PathBuf>,
    tls: TlsFiles,
    metrics: (MetricsArguments, MetricsSection),
    restarts: u32,
    places: Vec<Place>,
}

impl UnitArguments {
    /// What hands out the units, if it is not this process that computes.
    fn coordination(
        &self,
        work: &EvaluationWork,
        device: DeviceName,
    ) -> Result<Option<Coordination>, CliError> {
        if !self.are_handed_out() {
            return Ok(None);
        }
        let HandArguments { workers, listen, token_file, lease_seconds, threads, metrics, tls } = &self.hands;
        let mut config = load(&ConfigArguments::default())?.config;
        if *threads > 0 {
            config.launch.threads_per_worker = *threads;
        }
        let machine = Machine::look(device);
        let places = places("--device", device, workers.unwrap_or(0), &config.launch, &machine)?;
        let work = serde_json::to_string(work)
            .map_err(|error| CliError::failed(format!("the evaluation does not serialise: {error}")))?;
        Ok(Some(Coordination {
            work,
            lease: Duration::from_secs_f64(*lease_seconds),
            listen: *listen,
            token_file: token_file.clone(),
            tls: tls.clone().over(config.tls),
            metrics: (metrics.clone(), config.metrics),
            restarts: config.launch.restarts,
            places,
        }))
    }

    /// An evaluation that was begun, with whoever computes it.
    pub(super) fn begun(
        &self,
        session: Session,
        tasks: UnitTasks,
        work: &EvaluationWork,
        device: DeviceName,
        scratch: Option<TempDir>,
    ) -> Result<Begun, CliError> {
        let Session { signals, leased } = session;
        let hands = match (leased, self.coordination(work, device)?) {
            (Some(leased), _) => Hands::Leased(Box::new(leased)),
            (None, Some(coordination)) => Hands::Others(RefCell::new(Some(Box::new(coordination)))),
            (None, None) => Hands::Own(self.shard.unwrap_or(Share::WHOLE)),
        };
        Ok(Begun { tasks, hands, stop: signals.graceful(), _scratch: scratch, signals })
    }
}

impl Begun {
    /// The job.
    pub(super) fn job(&self) -> &EvaluationJob {
        &self.tasks.job
    }

    /// Whether this process computes units itself, and so needs the model.
    pub(super) fn computes(&self) -> bool {
        !matches!(self.hands, Hands::Others(_))
    }

    /// Has the units of the phase of this place done, as far as they are this process's to do. `None` if all
    /// units are done, else how the command ends.
    pub(super) async fn work(
        &self,
        phase: usize,
        compute: impl AsyncFnMut(Unit) -> JobResult<Vec<u8>>,
    ) -> Result<Option<Exit>, CliError> {
        let worked = async {
            match &self.hands {
                Hands::Own(share) => self.own(self.tasks.phases[phase], *share, compute).await,
                Hands::Leased(leased) => leased.work(&self.tasks, phase, &self.stop, compute).await,
                Hands::Others(coordination) => match coordination.take() {
                    Some(coordination) => self.hand_out(*coordination).await,
                    // All phases were done at once.
                    None => Ok(None),
                },
            }
        };
        let forced = self.signals.forced();
        tokio::select! {
            worked = worked => worked,
            () = forced.cancelled() => Err(CliError::failed(format!(
                "ended at once by a second signal; what is written holds: continue with {}",
                same_command(None)
            ))),
        }
    }

    async fn own(
        &self,
        phase: Phase,
        share: Share,
        compute: impl AsyncFnMut(Unit) -> JobResult<Vec<u8>>,
    ) -> Result<Option<Exit>, CliError> {
        let told = Cell::new(Instant::now());
        let progress = |Progress { done, units }: Progress| {
            if told.get().elapsed() >= PROGRESS_EVERY || done == units {
                eprintln!("{}: {done} of {units} units", phase.folder);
                told.set(Instant::now());
            }
        };
        let is_stopped = || self.stop.is_cancelled();
        let reached = self.job().work(phase, share, is_stopped, compute, progress).await?;
        if reached.is_finished() {
            return Ok(None);
        }
        let Progress { done, units } = reached;
        if is_stopped() {
            return Ok(Some(stopped(done, units, phase.folder)));
        }
        let again = same_command(None);
        eprintln!(
            "{done} of {units} units of {} are done; when the other shares are, finish with {again}",
            phase.folder
        );
        Ok(Some(Exit::Done))
    }

    async fn hand_out(&self, coordination: Coordination) -> Result<Option<Exit>, CliError> {
        let Coordination { work, lease, listen, token_file, tls, metrics, restarts, places } = coordination;
        let (tasks, done) = (self.tasks.count(), self.tasks.done().await?);
        let leasing = Leasing {
            called: "evaluation",
            command: WorkerCommand::Evaluate,
            listen,
            token_file: token_file.as_deref(),
            tls,
            restarts,
            places,
            all_done: done.len() as u64 == tasks,
            metrics,
            details: None,
        };
        let (end, _) = leasing
            .run(
                async |listener, admission| {
                    let options = LeaseOptions {
                        called: "evaluation",
                        work,
                        tasks,
                        done,
                        barriers: self.tasks.barriers(),
                        lease,
                        most_failures: MOST_FAILURES,
                        admission,
                    };
                    Ok(hand_out(listener, self.stop.cancelled(), self.tasks.clone(), options).await?)
                },
                |LeaseStatusReply { done, tasks, .. }| eprintln!("{done} of {tasks} units"),
            )
            .await?;
        match end {
            LeaseEnd::Stopped => {
                let done = self.tasks.done().await?.len() as u64;
                Ok(Some(stopped(done, tasks, "the evaluation")))
            }
            _ => Ok(None),
        }
    }

    /// Writes an object beside the units' results.
    pub(super) async fn keep(&self, name: &str, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(value)
            .map_err(|error| CliError::failed(format!("{name} does not serialise: {error}")))?;
        self.keep_bytes(name, (text + "\n").into()).await
    }

    /// The same, of bytes.
    pub(super) async fn keep_bytes(&self, name: &str, content: Bytes) -> Result<(), CliError> {
        Ok(self.job().out().join(name).put(content).await?)
    }
}

fn stopped(done: u64, units: u64, of: &str) -> Exit {
    eprintln!("stopped after {done} of {units} units of {of}; continue with {}", same_command(None));
    Exit::Interrupted
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use blip2_evaluation::job::EvaluationRecord;
    use blip2_run::exit::ExitClass as _;
    use blip2_store::Location;
    use serde_json::json;

    use super::*;

    const PHASE: Phase = Phase { folder: "texts", ending: "jsonl" };

    fn record(items: u64) -> EvaluationRecord {
        EvaluationRecord {
            task: "caption".into(),
            model: "m".into(),
            set: "s".into(),
            items,
            unit_items: 4,
            settings: json!({"beams": 5}),
        }
    }

    fn read(items: Range<usize>, content: &[u8]) -> Result<Vec<usize>, String> {
        let read: Vec<usize> = serde_json::from_slice(content).map_err(|error| error.to_string())?;
        if read.len() == items.len() { Ok(read) } else { Err(format!("{} items", read.len())) }
    }

    #[tokio::test]
    async fn shares_and_restarts_give_what_one_process_gives() {
        let folder = tempfile::tempdir().unwrap();
        let out = Location::parse(folder.path().to_str().unwrap()).unwrap();
        let job = EvaluationJob::begin(&out, record(10)).await.unwrap();
        assert_eq!((job.units(), job.items(2)), (3, 8..10));
        let computed = RefCell::new(Vec::new());
        let compute = async |Unit { items, next }: Unit| {
            computed.borrow_mut().push((items.start, next.map(|next| next.start)));
            Ok(serde_json::to_vec(&items.collect::<Vec<_>>()).unwrap())
        };
        let share = |index| Share { index, count: 2 };
        let progress = job.work(PHASE, share(1), || false, compute, |_| {}).await.unwrap();
        assert_eq!(progress, Progress { done: 1, units: 3 });
        assert!(job.results(PHASE, read).await.unwrap_err().to_string().contains("000000.jsonl"));
        // Another process goes on with it; what is there is not computed again.
        let job = EvaluationJob::begin(&out, record(10)).await.unwrap();
        let stopped = job.work(PHASE, Share::WHOLE, || true, compute, |_| {}).await.unwrap();
        assert_eq!(stopped.done, 1);
        assert!(job.work(PHASE, share(0), || false, compute, |_| {}).await.unwrap().is_finished());
        assert_eq!(*computed.borrow(), [(4, None), (0, Some(8)), (8, None)]);
        assert_eq!(job.results(PHASE, read).await.unwrap(), (0..10).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn another_jobs_folder_and_a_torn_unit_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let out = Location::parse(folder.path().to_str().unwrap()).unwrap();
        let job = EvaluationJob::begin(&out, record(10)).await.unwrap();
        for (other, word) in [
            (EvaluationRecord { model: "n".into(), ..record(10) }, "another model"),
            (record(11), "another set"),
            (EvaluationRecord { settings: json!({}), ..record(10) }, "prompt"),
        ] {
            let error = EvaluationJob::begin(&out, other).await.unwrap_err();
            assert!(error.to_string().contains(word) && error.exit() == Exit::Refused, "{error}");
        }
        job.work(PHASE, Share::WHOLE, || false, async |_| Ok(b"[1".to_vec()), |_| {}).await.unwrap();
        let error = job.results(PHASE, read).await.unwrap_err();
        assert!(error.to_string().contains("remove it") && error.exit() == Exit::BadInput, "{error}");
    }
}
