//! Worker processes on this machine.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use blip2_collective::TlsFiles;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::error::CliError;
use crate::exit::Exit;
use crate::freed_pages::{NEVER, PURGE_DELAY};

/// Lines of a failed worker's log that are shown.
const TAIL_LINES: usize = 20;
/// How long a worker may take to end after the run did.
const LEAVE_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks at the workers.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What workers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerCommand {
    /// Steps of a run.
    Train,
    /// Tasks of a curation.
    Curate,
}

impl WorkerCommand {
    /// The launcher coordinates: when it is gone, so is what they do.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Train => &["worker", "--listen", "127.0.0.1:0", "--reconnect-timeout", "0"],
            Self::Curate => &["curate", "worker", "--patience", "2"],
        }
    }
}

/// What all workers are started with.
#[derive(Debug, Clone)]
pub(crate) struct WorkerLaunch {
    pub(crate) command: WorkerCommand,
    /// URL of the coordinator.
    pub(crate) coordinator: String,
    pub(crate) token_file: PathBuf,
    /// Folder of `worker-N.log`.
    pub(crate) logs: PathBuf,
    /// Compute threads of each.
    pub(crate) threads: usize,
    pub(crate) tls: TlsFiles,
    /// How often each that was killed is started again.
    pub(crate) restarts: u32,
}

#[derive(Debug)]
struct WorkerProcess {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
    restarts_left: u32,
}

/// Running workers; those still there when this is dropped are killed.
#[derive(Debug)]
pub(crate) struct Workers {
    launch: WorkerLaunch,
    processes: Vec<WorkerProcess>,
}

impl Workers {
    /// Starts `count` workers, each in a process group of its own: Ctrl-C reaches the launcher alone.
    pub(crate) fn start(launch: WorkerLaunch, count: u32) -> Result<Self, CliError> {
        let processes = (0..count).map(|index| start_one(&launch, index)).collect::<Result<_, _>>()?;
        Ok(Self { launch, processes })
    }

    /// Starts those again that are killed, until no worker is left, or one failed before the run `started`; says which
    /// and why. When `strike` ends, the first worker is killed.
    pub(crate) async fn watch(
        &mut self,
        started: impl Fn() -> bool,
        strike: impl Future<Output = ()>,
    ) -> CliError {
        let (mut strike, mut struck) = (std::pin::pin!(strike), false);
        loop {
            self.look();
            self.restart_killed();
            let failed_early = !started()
                && self.processes.iter().any(|process| process.ended.is_some_and(|status| !status.success()));
            if failed_early || self.processes.iter().all(|process| process.ended.is_some()) {
                return self.failure();
            }
            tokio::select! {
                () = &mut strike, if !struck => {
                    self.kill_first();
                    struck = true;
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Waits until all have ended; those that take too long are killed.
    pub(crate) async fn finish(mut self) {
        let all_ended = async {
            for process in &mut self.processes {
                if let Err(error) = process.child.wait().await {
                    tracing::warn!(worker = process.name, %error, "cannot wait for this worker");
                }
            }
        };
        if timeout(LEAVE_WITHIN, all_ended).await.is_err() {
            tracing::warn!("workers did not end in time and are killed");
        }
    }

    /// The last lines of the logs of those that failed; empty if none did.
    pub(crate) fn failed_logs(&mut self) -> String {
        self.look();
        let failed = |process: &&WorkerProcess| process.ended.is_some_and(|status| !status.success());
        self.processes.iter().filter(failed).map(log_tail).collect()
    }

    fn kill_first(&mut self) {
        if let Some(process) = self.processes.first_mut()
            && let Err(error) = process.child.start_kill()
        {
            tracing::warn!(worker = process.name, %error, "cannot kill this worker");
        }
    }

    fn look(&mut self) {
        for process in &mut self.processes {
            if process.ended.is_none() {
                process.ended = process.child.try_wait().ok().flatten();
            }
        }
    }

    /// A worker that ended by itself said why; one that a signal ended may do better the next time.
    fn restart_killed(&mut self) {
        for process in &mut self.processes {
            let was_killed = process.ended.is_some_and(|status| status.code().is_none());
            if !was_killed || process.restarts_left == 0 {
                continue;
            }
            match spawn(&self.launch, &process.name, &process.log) {
                Ok(child) => {
                    eprintln!("{} was killed and is started again", process.name);
                    (process.child, process.ended) = (child, None);
                    process.restarts_left -= 1;
                }
                Err(error) => {
                    eprintln!("warning: {error}");
                    process.restarts_left = 0;
                }
            }
        }
    }

    /// The first worker that failed, as an error with its exit code.
    fn failure(&self) -> CliError {
        let failed =
            self.processes.iter().find(|process| process.ended.is_some_and(|status| !status.success()));
        let Some(process) = failed else {
            return CliError::failed("all workers ended before the run did");
        };
        let code = process.ended.and_then(|status| status.code());
        CliError::Reported {
            exit: code.map_or(Exit::Failed, Exit::from_code),
            message: match code {
                Some(code) => {
                    format!("{} ended with exit code {code}; see {}", process.name, process.log.display())
                }
                None => format!("{} was killed; see {}", process.name, process.log.display()),
            },
        }
    }
}

/// Threads for each of `workers` processes that share this machine.
pub(crate) fn threads_per_worker(configured: usize, workers: u32) -> usize {
    if configured > 0 {
        return configured;
    }
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    (cores / workers.max(1) as usize).max(1)
}

/// Starts a worker with an empty log.
fn start_one(launch: &WorkerLaunch, index: u32) -> Result<WorkerProcess, CliError> {
    let name = format!("worker-{index}");
    let log = launch.logs.join(format!("{name}.log"));
    std::fs::File::create(&log)
        .map_err(|error| CliError::failed(format!("{}: cannot write this log: {error}", log.display())))?;
    let child = spawn(launch, &name, &log)?;
    Ok(WorkerProcess { name, child, log, ended: None, restarts_left: launch.restarts })
}

/// Starts a worker's process; its words are added to the log.
fn spawn(launch: &WorkerLaunch, name: &str, log: &Path) -> Result<Child, CliError> {
    let failed = |error: std::io::Error| CliError::failed(format!("cannot start {name}: {error}"));
    let output = std::fs::OpenOptions::new()
        .append(true)
        .open(log)
        .map_err(|error| CliError::failed(format!("{}: cannot write this log: {error}", log.display())))?;
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command
        .args(launch.command.arguments())
        .args(["--coordinator", &launch.coordinator, "--name", name])
        .args(["--threads", &launch.threads.to_string(), "--token-file"])
        .arg(&launch.token_file)
        .env("RAYON_NUM_THREADS", launch.threads.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output)
        .kill_on_drop(true);
    if !launch.tls.is_empty() {
        command.arg("--tls-ca").arg(&launch.tls.ca).arg("--tls-cert").arg(&launch.tls.cert);
        command.arg("--tls-key").arg(&launch.tls.key);
        command.args(["--tls-server-name", &launch.tls.server_name]);
    }
    if std::env::var_os(PURGE_DELAY).is_none() {
        command.env(PURGE_DELAY, NEVER);
    }
    #[cfg(unix)]
    command.process_group(0);
    command.spawn().map_err(failed)
}

fn log_tail(process: &WorkerProcess) -> String {
    let text = std::fs::read_to_string(&process.log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    if tail.is_empty() {
        return String::new();
    }
    format!("--- end of {}\n{}\n", process.log.display(), tail.join("\n"))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    /// A "worker" that is a line of shell.
    fn workers(folder: &Path, script: &str, restarts: u32) -> Workers {
        let log = folder.join("worker-0.log");
        std::fs::write(&log, "first\nlast words\n").unwrap();
        let child = Command::new("sh").args(["-c", script]).kill_on_drop(true).spawn().unwrap();
        let launch = WorkerLaunch {
            command: WorkerCommand::Train,
            coordinator: "http://127.0.0.1:1".into(),
            token_file: folder.join("token"),
            logs: folder.to_path_buf(),
            threads: 1,
            tls: TlsFiles::default(),
            restarts,
        };
        let name = "worker-0".to_owned();
        let process = WorkerProcess { name, child, log, ended: None, restarts_left: restarts };
        Workers { launch, processes: vec![process] }
    }

    #[test]
    fn workers_share_the_cores() {
        assert_eq!(threads_per_worker(3, 2), 3);
        let cores = std::thread::available_parallelism().unwrap().get();
        assert_eq!(threads_per_worker(0, 1), cores);
        assert_eq!(threads_per_worker(0, u32::MAX), 1);
    }

    #[tokio::test]
    async fn a_worker_that_fails_before_the_start_ends_the_wait() {
        let folder = tempfile::tempdir().unwrap();
        let mut workers = workers(folder.path(), "exit 78", 3);
        let error = timeout(Duration::from_secs(10), workers.watch(|| false, pending())).await.unwrap();
        assert_eq!(error.exit(), Exit::BadConfig, "{error}");
        assert!(workers.failed_logs().ends_with("last words\n"));
    }

    #[tokio::test]
    async fn a_strike_kills_the_first_worker() {
        let folder = tempfile::tempdir().unwrap();
        let mut workers = workers(folder.path(), "exec sleep 600", 0);
        let error = timeout(Duration::from_secs(20), workers.watch(|| true, ready(()))).await.unwrap();
        assert!(error.to_string().contains("worker-0 was killed"), "{error}");
    }

    #[tokio::test]
    async fn a_killed_worker_is_started_again_as_often_as_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let mut none = workers(folder.path(), "kill -KILL $$", 0);
        let error = timeout(Duration::from_secs(10), none.watch(|| true, pending())).await.unwrap();
        assert!(error.to_string().contains("worker-0 was killed"), "{error}");
        // The test's own executable, which is started in its place, refuses the arguments of a worker.
        let mut once = workers(folder.path(), "kill -KILL $$", 1);
        let error = timeout(Duration::from_secs(20), once.watch(|| true, pending())).await.unwrap();
        assert!(error.to_string().contains("ended with exit code"), "{error}");
        assert_eq!(once.processes[0].restarts_left, 0);
        assert!(std::fs::read_to_string(&once.processes[0].log).unwrap().starts_with("first\nlast words\n"));
    }
}
