//! One run's coordinator in this process, with its progress and metrics.

use std::collections::BTreeMap;
use std::time::Instant;

use blip2_coordinator::{
    CoordinatorError, CoordinatorOptions, Figures, Keeping, LossRise, NonFinitePolicy, Outcome, RunSpec,
};
use blip2_proto::transport::Transport;
use blip2_proto::v1::{Spent, StatusReply};
use blip2_records::{FaultLog, MetricsLog, spent_before};
use blip2_run::RunError;
use blip2_run::catalogue::Catalogue;
use blip2_run::commit::CheckpointRecord;
use blip2_run::epoch::Epochs;
use blip2_run::exit::Exit;
use blip2_telemetry::Telemetry;
use blip2_worker::settings::train::NonFiniteSteps;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::again::same_command;
use crate::error::CliError;
use crate::figures::duration;
use crate::gone::gone;
use crate::identity::binary_identity;
use crate::kubeflow::{TrainerServer, push_progress};
use crate::live_page::LivePage;
use crate::logging::standing::is_of_run;
use crate::measured::{StepNumbers, show_lead};
use crate::progress::{Audience, show};
use crate::row_looks::{RowsOfRun, look_at_left_out};
use crate::run_folder::{RunFolder, metrics_folder};

/// Committed steps that may wait for the disk.
const METRICS_QUEUE: usize = 1024;
/// Checkpoints without COMMIT that a run may leave which was killed before its first one was complete: the
/// two that are written at a time, and one abandoned before.
const MOST_UNFINISHED: usize = 3;

/// How a coordinator is reached and begins to lead.
#[derive(Debug, Clone)]
pub(crate) struct Lead {
    /// The run token.
    pub(crate) token: String,
    pub(crate) transport: Transport,
    /// URL under which workers and other coordinators reach it.
    pub(crate) advertise: String,
    /// Take over from the coordinator of this epoch alone; `None`: from whoever leads.
    pub(crate) after: Option<u64>,
    /// A checkpoint that was read back whole.
    pub(crate) whole: Option<String>,
    /// All workers are processes of this machine, started in the same way.
    pub(crate) on_one_machine: bool,
    /// Where it shows what it does.
    pub(crate) telemetry: Telemetry,
    /// The page that shows the run to people.
    pub(crate) page: LivePage,
}

/// A run about to be coordinated.
#[derive(Debug)]
pub(crate) struct Session {
    folder: RunFolder,
    spec: RunSpec,
    metrics: MetricsLog,
    faults: FaultLog,
    lead: Lead,
    status: watch::Sender<StatusReply>,
}

/// A run that came to its end.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    pub(crate) checkpoint: String,
    pub(crate) seconds: f64,
    /// The last status.
    pub(crate) status: StatusReply,
    /// Whether there was nothing left to do.
    pub(crate) was_done: bool,
}

impl Finished {
    /// The last words of a command, for a person.
    pub(crate) fn tell(&self, root: &str) {
        let Self { checkpoint, seconds, was_done, .. } = self;
        match was_done {
            true => eprintln!("{root} is done already: checkpoint {checkpoint}"),
            false => eprintln!("done in {}: checkpoint {checkpoint} of {root}", duration(*seconds)),
        }
    }
}

impl Session {
    /// Finds what to continue from and opens the metrics.
    pub(crate) async fn prepare(folder: RunFolder, lead: Lead) -> Result<Self, CliError> {
        let config = &folder.config;
        is_of_run(&config.run.id);
        let resume = if folder.continued {
            checkpoint_to_continue(&folder, lead.whole.as_deref(), lead.after.is_some()).await?
        } else {
            None
        };
        // The logs' folder, which may be the metrics' too, is made here.
        folder.logs()?;
        let records = metrics_folder(config);
        let status = watch::Sender::new(StatusReply::default());
        let (root, follower) = (folder.root.clone(), status.subscribe());
        let (metrics, faults) = match root.is_local() {
            true => (MetricsLog::file(&records, follower)?, FaultLog::file(&records)),
            false => {
                let faults = FaultLog::segments(root.clone());
                (MetricsLog::segments(root, lead.advertise.clone(), follower), faults)
            }
        };
        let earlier = time_before(&folder, resume.as_ref()).await;
        let worker_toml = toml::to_string(config.worker())
            .map_err(|error| CliError::failed(format!("the configuration does not serialise: {error}")))?;
        let spec = RunSpec {
            run_id: config.run.id.clone(),
            run_root: folder.root.clone(),
            config_toml: worker_toml,
            config_hash: folder.config_hash.clone(),
            manifest_hash: folder.manifest_hash.clone(),
            binary: binary_identity()?,
            token: lead.token.clone(),
            slots: config.train.slots,
            schedule: config.schedule(),
            resume,
            max_quarantined_share: config.data.max_quarantined_share,
            not_downloaded: folder.not_downloaded,
            non_finite: match config.train.non_finite {
                NonFiniteSteps::Stop => NonFinitePolicy::Stop,
                NonFiniteSteps::Skip => NonFinitePolicy::Skip { at_most: config.train.max_skipped_steps },
            },
            loss_rise: LossRise {
                window: config.train.loss_rise_window,
                factor: config.train.loss_rise_factor,
            },
            earlier,
        };
        Ok(Self { spec, metrics, faults, folder, lead, status })
    }

    /// Follows the run from beside it.
    pub(crate) fn status(&self) -> watch::Receiver<StatusReply> {
        self.status.subscribe()
    }

    /// The run's end, if its newest checkpoint is that.
    pub(crate) fn finished(&self) -> Option<Finished> {
        let (total, record) = (self.spec.schedule.total(), self.spec.resume.as_ref()?);
        let status = StatusReply {
            run_id: self.spec.run_id.clone(),
            state: "done".into(),
            step: total,
            total_steps: total,
            last_checkpoint: record.name.clone(),
            ..StatusReply::default()
        };
        let checkpoint = record.name.clone();
        (record.step == total).then_some(Finished { checkpoint, seconds: 0.0, status, was_done: true })
    }

    /// Coordinates the run to its end.
    ///
    /// # Errors
    /// Interrupted after a saved stop or when another coordinator was handed the lead, else the failure with
    /// its exit code.
    pub(crate) async fn run(
        self,
        listener: TcpListener,
        stop: CancellationToken,
        audience: Audience,
    ) -> Result<Finished, CliError> {
        let outrun = || CliError::refused("another coordinator has taken over this run just now");
        self.attempt(listener, stop, audience).await?.ok_or_else(outrun)
    }

    /// The same; `None` when another coordinator was faster to take over, and nothing was done.
    pub(crate) async fn attempt(
        self,
        listener: TcpListener,
        stop: CancellationToken,
        audience: Audience,
    ) -> Result<Option<Finished>, CliError> {
        let started = Instant::now();
        let config = &self.folder.config;
        let (root, columns, max_pixels) =
            (self.folder.root.clone(), config.columns(), config.data.max_pixels);
        let (commits, committed) = mpsc::channel(METRICS_QUEUE);
        let last_status = self.status.subscribe();
        let shown = show(self.status.subscribe(), audience);
        let telemetry = self.lead.telemetry;
        self.lead.page.follow(self.status.subscribe());
        let mut numbers = StepNumbers::new(telemetry.clone(), self.lead.page.clone());
        let (keeping, keeper) = Keeping::new();
        let written = self.metrics.keep(committed, keeper, move |step| numbers.record(step));
        let figures = watch::Sender::new(Figures::default());
        let measured = show_lead(&telemetry, self.status.subscribe(), figures.subscribe());
        let recorded = self.faults.keep(self.status.subscribe());
        let pushed = push_progress(TrainerServer::of_process(), self.status.subscribe());
        let rows = RowsOfRun::new(figures.subscribe(), root, columns, max_pixels);
        let looked = look_at_left_out(self.lead.page.left_out(), &rows, gone(figures.subscribe()));
        let options = CoordinatorOptions {
            spec: self.spec,
            settings: self.folder.config.coordinator.clone(),
            checkpoints: self.folder.config.checkpoint.clone(),
            advertise: self.lead.advertise,
            transport: self.lead.transport,
            after: self.lead.after,
            status: self.status,
            figures,
            commits,
            keeping,
            on_one_machine: self.lead.on_one_machine,
        };
        let coordinated = blip2_coordinator::run(listener, stop.cancelled_owned(), options);
        let (outcome, (), written, (), (), (), ()) =
            tokio::join!(coordinated, shown, written, recorded, measured, looked, pushed);
        written?;
        let status = last_status.borrow().clone();
        let outcome = match outcome {
            Err(CoordinatorError::Run(RunError::Fenced { .. })) if self.lead.after.is_some() => {
                return Ok(None);
            }
            outcome => outcome?,
        };
        match outcome {
            Outcome::Done { checkpoint } => {
                let seconds = started.elapsed().as_secs_f64();
                Ok(Some(Finished { checkpoint, seconds, status, was_done: false }))
            }
            Outcome::Interrupted { checkpoint: Some(checkpoint) } => Err(CliError::Interrupted(format!(
                "stopped after checkpoint {checkpoint}; continue with {}",
                same_command(Some("--resume"))
            ))),
            Outcome::Interrupted { checkpoint: None } => Err(CliError::failed(format!(
                "stopped before anything could be saved; start again with {}",
                same_command(None)
            ))),
            Outcome::HandedOver => Err(CliError::interrupted(
                "handed over to the coordinator that stood by, which goes on with the run; `blip2 stop` would end it",
            )),
            Outcome::Failed { exit_code, message } => {
                Err(CliError::Reported { exit: Exit::from_code(exit_code as i32), message })
            }
        }
    }
}

/// The newest checkpoint that reads back whole, as the one named `whole` is known to; those passed over
/// because they are damaged are reported.
async fn checkpoint_to_continue(
    folder: &RunFolder,
    whole: Option<&str>,
    takes_over: bool,
) -> Result<Option<CheckpointRecord>, CliError> {
    let catalogue = Catalogue::new(&folder.root);
    let (mut newest, mut damaged) = match whole {
        Some(_) => catalogue.latest_valid().await?,
        None => (None, Vec::new()),
    };
    if whole.is_none() || newest.as_ref().map(|record| record.name.as_str()) != whole {
        (newest, damaged) = catalogue.latest_verified().await?;
    }
    for checkpoint in damaged {
        eprintln!("warning: checkpoint {} is passed over: {}", checkpoint.name, checkpoint.reason);
    }
    match &newest {
        Some(record) => eprintln!("continuing from checkpoint {}", record.name),
        None => start_over(folder, &catalogue, takes_over).await?,
    }
    Ok(newest)
}

/// What coordinators before have spent. It is shown and decides nothing: without it the count begins anew.
async fn time_before(folder: &RunFolder, resume: Option<&CheckpointRecord>) -> BTreeMap<u64, Spent> {
    if !folder.continued {
        return BTreeMap::new();
    }
    let committed = resume.map_or(0, |record| record.step);
    let before = spent_before(&folder.root, &metrics_folder(&folder.config), committed).await;
    before.unwrap_or_else(|error| {
        tracing::warn!(%error, "what the run's time was spent on so far is not known");
        BTreeMap::new()
    })
}

/// Tells that the run begins with step 0 though it was begun before, unless a member brings its state
/// (`takes_over`).
///
/// # Errors
/// It had checkpoints: COMMIT objects were deleted, and starting over would throw away what can still be
/// restored.
async fn start_over(folder: &RunFolder, catalogue: &Catalogue, takes_over: bool) -> Result<(), CliError> {
    let root = &folder.root;
    let newest = Epochs::new(root, String::new(), String::new()).newest_record().await?;
    let step = newest.as_ref().map_or(0, |record| record.step);
    let was_saved = newest.is_some_and(|record| {
        record.step > 0 && record.end.is_some_and(|how| how == "done" || how == "interrupted")
    });
    let unfinished = catalogue.list().await?.unfinished;
    if was_saved || !takes_over && unfinished.len() > MOST_UNFINISHED {
        return Err(CliError::failed(format!(
            "{root} has come to step {step} and saved it, but none of its checkpoints has a COMMIT any more ({} are \
             without); restore these objects, or remove the run's folder to start over at step 0",
            unfinished.len()
        )));
    }
    match (step, unfinished.as_slice()) {
        (0, []) => eprintln!("continuing from the beginning: {root} has no checkpoint yet"),
        (_, unfinished) => eprintln!(
            "warning: starting over at step 0: {root} has come to step {step} or further, and no checkpoint of it is \
             complete ({} have no COMMIT)",
            unfinished.len()
        ),
    }
    Ok(())
}
