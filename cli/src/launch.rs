//! Worker processes on this machine.

mod cores;
mod places;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use blip2_proto::transport::TlsFiles;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use self::cores::list;
pub(crate) use self::cores::node_of;
pub(crate) use self::places::{Machine, Place, default_workers, places};
use self::places::{TASKSET, as_far_as_possible};
use crate::environment::NOT_INHERITED;
use crate::error::CliError;
use crate::freed_pages::{NEVER, PURGE_DELAY};
use crate::logging;
use blip2_run::exit::Exit;

/// Lines of a failed worker's log that are shown.
const TAIL_LINES: usize = 20;
/// What a worker says last that ended because the run did: the reason is another's.
const ENDED_BY_OTHERS: &str = "error: the run stopped: ";
/// Logs of earlier starts that are kept of each worker.
const EARLIER_LOGS: u32 = 5;
/// How long a worker may take to end after the run did, and after it failed.
pub(crate) const LEAVE_WITHIN: Duration = Duration::from_secs(20);
pub(crate) const GIVE_UP_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks at the workers.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What workers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerCommand {
    /// Steps of a run.
    Train,
    /// Tasks of a curation.
    Curate,
    /// Units of an evaluation.
    Evaluate,
}

impl WorkerCommand {
    /// The launcher coordinates: when it is gone, so is what they do.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Train => &["worker", "--listen", "127.0.0.1:0", "--reconnect-timeout", "0"],
            Self::Curate => &["curate", "worker", "--patience", "2"],
            Self::Evaluate => &["eval", "worker", "--patience", "2"],
        }
    }
}

/// Where the work of the workers is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Going {
    /// Nothing has begun: a worker that fails now will fail again.
    NotYet,
    /// It goes on without a worker that fails.
    On,
    /// It has ended, and the workers end with it.
    Over,
}

impl Going {
    /// Of work that has not ended.
    pub(crate) fn since(begun: bool) -> Self {
        if begun { Self::On } else { Self::NotYet }
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
    pub(crate) tls: TlsFiles,
    /// How often each that was killed is started again.
    pub(crate) restarts: u32,
}

#[derive(Debug)]
struct WorkerProcess {
    name: String,
    child: Child,
    log: PathBuf,
    place: Place,
    ended: Option<ExitStatus>,
    /// Whether its end was told.
    told: bool,
    restarts_left: u32,
}

/// Running workers; those still there when this is dropped are killed.
#[derive(Debug)]
pub(crate) struct Workers {
    launch: WorkerLaunch,
    processes: Vec<WorkerProcess>,
}

impl Workers {
    /// Starts a worker for each place, each in a process group of its own: Ctrl-C reaches the launcher alone.
    pub(crate) fn start(launch: WorkerLaunch, places: Vec<Place>) -> Result<Self, CliError> {
        let places = as_far_as_possible(places).into_iter().enumerate();
        let processes =
            places.map(|(index, place)| start_one(&launch, index, place)).collect::<Result<_, _>>()?;
        Ok(Self { launch, processes })
    }

    /// Starts those again that are killed, until no worker is left, or one failed before anything has begun;
    /// says which and why. When `strike` ends, the first worker is killed.
    pub(crate) async fn watch(
        &mut self,
        going: impl Fn() -> Going,
        strike: impl Future<Output = ()>,
    ) -> CliError {
        let (mut strike, mut struck) = (std::pin::pin!(strike), false);
        loop {
            self.look();
            self.restart_killed();
            if going() == Going::On {
                self.tell_failed();
            }
            let failed_early = going() == Going::NotYet
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

    /// Waits until all have ended; those that take longer than that are killed.
    pub(crate) async fn finish(&mut self, within: Duration) {
        let all_ended = async {
            for process in &mut self.processes {
                if let Err(error) = process.child.wait().await {
                    tracing::warn!(worker = process.name, %error, "cannot wait for this worker");
                }
            }
        };
        if timeout(within, all_ended).await.is_err() {
            tracing::warn!("workers did not end in time and are killed");
            for process in &mut self.processes {
                // One that has ended meanwhile needs no signal.
                let _ = process.child.start_kill();
            }
        }
    }

    /// The last lines of the logs of those that failed and were not told yet, and where all logs are.
    pub(crate) fn last_words(&mut self) -> String {
        self.look();
        let untold = self.processes.iter().filter(|process| process.has_failed() && !process.told);
        let is_own =
            |tail: &String| tail.lines().next_back().is_none_or(|last| !last.starts_with(ENDED_BY_OTHERS));
        // Of those that say the same at last one is enough.
        let mut said = BTreeSet::new();
        let is_news = |tail: &String| said.insert(tail.lines().next_back().unwrap_or_default().to_owned());
        let tails: String = untold.map(log_tail).filter(is_own).filter(is_news).collect();
        format!("{tails}the workers' logs are in {}\n", self.launch.logs.display())
    }

    /// Says at once which worker failed while others go on.
    fn tell_failed(&mut self) {
        for process in &mut self.processes {
            if process.has_failed() && !std::mem::replace(&mut process.told, true) {
                let how = process.ended.map_or(String::new(), |status| status.to_string());
                eprintln!("{} ended ({how}); the end of its log:\n{}", process.name, log_tail(process));
            }
        }
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
            match spawn(&self.launch, &process.name, &process.log, &process.place) {
                Ok(child) => {
                    eprintln!("{} was killed and is started again", process.name);
                    (process.child, process.ended, process.told) = (child, None, false);
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

impl WorkerProcess {
    /// One that was asked to go has not.
    fn has_failed(&self) -> bool {
        let was_let_go = |status: ExitStatus| status.code() == Some(Exit::Interrupted as i32);
        self.ended.is_some_and(|status| !status.success() && !was_let_go(status))
    }
}

/// Starts a worker with an empty log; those of earlier starts are kept beside it.
fn start_one(launch: &WorkerLaunch, index: usize, place: Place) -> Result<WorkerProcess, CliError> {
    let name = format!("worker-{index}");
    let log = launch.logs.join(format!("{name}.log"));
    keep_earlier(&log)
        .and_then(|()| std::fs::File::create(&log))
        .map_err(|error| CliError::failed(format!("{}: cannot write this log: {error}", log.display())))?;
    let child = spawn(launch, &name, &log, &place)?;
    Ok(WorkerProcess { name, child, log, place, ended: None, told: false, restarts_left: launch.restarts })
}

/// Renames `worker-0.log` to `worker-0.log.1`, that one to `.2` and so on, if it says anything.
fn keep_earlier(log: &Path) -> std::io::Result<()> {
    if std::fs::metadata(log).map_or(0, |found| found.len()) == 0 {
        return Ok(());
    }
    let numbered = |number: u32| match number {
        0 => log.to_path_buf(),
        number => log.with_extension(format!("log.{number}")),
    };
    for number in (0..EARLIER_LOGS).rev() {
        match std::fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Starts a worker's process; its words are added to the log.
fn spawn(launch: &WorkerLaunch, name: &str, log: &Path, place: &Place) -> Result<Child, CliError> {
    let failed = |error: std::io::Error| CliError::failed(format!("cannot start {name}: {error}"));
    let output = std::fs::OpenOptions::new()
        .append(true)
        .open(log)
        .map_err(|error| CliError::failed(format!("{}: cannot write this log: {error}", log.display())))?;
    let program = std::env::current_exe().map_err(failed)?;
    let mut words = command_line(launch, name, place, program).into_iter();
    let mut command = Command::new(words.next().unwrap_or_default());
    command
        .args(words)
        .env("RAYON_NUM_THREADS", place.threads.to_string())
        // The address is this process's.
        .env_remove("BLIP2_METRICS_LISTEN")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output)
        .kill_on_drop(true);
    for variable in NOT_INHERITED {
        command.env_remove(variable);
    }
    if std::env::var_os(PURGE_DELAY).is_none() {
        command.env(PURGE_DELAY, NEVER);
    }
    #[cfg(unix)]
    command.process_group(0);
    command.spawn().map_err(failed)
}

/// A worker's command line: program and arguments. One that is kept to some cores is started by `taskset`,
/// which it takes the place of: so all its threads are kept to them.
fn command_line(launch: &WorkerLaunch, name: &str, place: &Place, program: PathBuf) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    if !place.cores.is_empty() {
        words.extend([TASKSET.into(), "-c".into(), list(&place.cores).into()]);
    }
    words.push(program.into());
    words.extend(launch.command.arguments().iter().chain(logging::handed_on()).map(OsString::from));
    let mut option = |name: &str, value: OsString| words.extend([name.into(), value]);
    option("--coordinator", launch.coordinator.as_str().into());
    option("--name", name.into());
    option("--threads", place.threads.to_string().into());
    option("--token-file", launch.token_file.as_os_str().into());
    if let Some(device) = place.device {
        option("--device", device.to_string().into());
    }
    if !launch.tls.is_empty() {
        let TlsFiles { ca, cert, key, server_name } = &launch.tls;
        for (name, file) in [("--tls-ca", ca), ("--tls-cert", cert), ("--tls-key", key)] {
            option(name, file.into());
        }
        option("--tls-server-name", server_name.into());
    }
    words
}

fn log_tail(process: &WorkerProcess) -> String {
    let text = std::fs::read_to_string(&process.log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail: Vec<String> =
        lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| logging::words_of(line)).collect();
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
            tls: TlsFiles::default(),
            restarts,
        };
        let name = "worker-0".to_owned();
        let place = Place { device: None, cores: Vec::new(), threads: 1 };
        let process =
            WorkerProcess { name, child, log, place, ended: None, told: false, restarts_left: restarts };
        Workers { launch, processes: vec![process] }
    }

    #[test]
    fn logs_of_earlier_starts_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("worker-0.log");
        keep_earlier(&log).unwrap();
        for round in 0..EARLIER_LOGS + 2 {
            std::fs::write(&log, format!("start {round}")).unwrap();
            keep_earlier(&log).unwrap();
            assert!(!log.exists());
        }
        let kept =
            |number: u32| std::fs::read_to_string(folder.path().join(format!("worker-0.log.{number}")));
        assert_eq!(kept(1).unwrap(), format!("start {}", EARLIER_LOGS + 1));
        assert_eq!(kept(EARLIER_LOGS).unwrap(), "start 2");
        assert!(kept(EARLIER_LOGS + 1).is_err());
    }

    #[tokio::test]
    async fn those_who_ended_because_another_did_are_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let mut workers = workers(folder.path(), "exit 1", 0);
        workers.finish(LEAVE_WITHIN).await;
        let message = "the run stopped: worker 1 (worker-1): a full disk";
        let json = format!("{{\"level\":\"ERROR\",\"fields\":{{\"message\":\"{message}\"}}}}\n");
        for follower in [format!("error: {message}\n"), json.clone()] {
            std::fs::write(folder.path().join("worker-0.log"), follower).unwrap();
            let words = workers.last_words();
            assert!(words.starts_with("the workers' logs are in "), "{words}");
        }
        std::fs::write(folder.path().join("worker-0.log"), json.replace("the run stopped: ", "")).unwrap();
        let words = workers.last_words();
        assert!(words.contains("\nerror: worker 1 (worker-1): a full disk\n"), "words, not JSON: {words}");
    }

    #[tokio::test]
    async fn each_worker_is_started_with_its_card_on_its_cores() {
        let folder = tempfile::tempdir().unwrap();
        let workers = workers(folder.path(), "exit 0", 0);
        let said = |place: &Place| -> String {
            let words = command_line(&workers.launch, "worker-3", place, "blip2".into());
            words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
        };
        let alone = Place { device: None, cores: Vec::new(), threads: 4 };
        let plain = said(&alone);
        assert!(plain.starts_with("blip2 worker --listen ") && plain.contains("--threads 4"), "{plain}");
        assert!(!plain.contains("--device") && !plain.contains("--tls"), "{plain}");
        let device = Some(blip2_tensors::device::DeviceName::Cuda(Some(3)));
        let near = said(&Place { device, cores: vec![4, 5, 12], threads: 3 });
        assert!(near.starts_with("taskset -c 4,5,12 blip2 worker "), "{near}");
        assert!(near.ends_with(" --device cuda:3"), "{near}");
    }

    #[tokio::test]
    async fn a_worker_that_fails_before_the_start_ends_the_wait() {
        let folder = tempfile::tempdir().unwrap();
        let mut workers = workers(folder.path(), "exit 78", 3);
        let error =
            timeout(Duration::from_secs(10), workers.watch(|| Going::NotYet, pending())).await.unwrap();
        assert_eq!(error.exit(), Exit::BadConfig, "{error}");
        let words = workers.last_words();
        assert!(words.contains("last words\n"), "{words}");
        assert!(words.contains(&format!("logs are in {}", folder.path().display())), "{words}");
    }

    #[tokio::test]
    async fn a_strike_kills_the_first_worker() {
        let folder = tempfile::tempdir().unwrap();
        let mut workers = workers(folder.path(), "exec sleep 600", 0);
        let error = timeout(Duration::from_secs(20), workers.watch(|| Going::On, ready(()))).await.unwrap();
        assert!(error.to_string().contains("worker-0 was killed"), "{error}");
    }

    #[tokio::test]
    async fn a_killed_worker_is_started_again_as_often_as_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let mut none = workers(folder.path(), "kill -KILL $$", 0);
        let error = timeout(Duration::from_secs(10), none.watch(|| Going::On, pending())).await.unwrap();
        assert!(error.to_string().contains("worker-0 was killed"), "{error}");
        // The test's own executable, which is started in its place, refuses the arguments of a worker.
        let mut once = workers(folder.path(), "kill -KILL $$", 1);
        let error = timeout(Duration::from_secs(20), once.watch(|| Going::On, pending())).await.unwrap();
        assert!(error.to_string().contains("ended with exit code"), "{error}");
        assert_eq!(once.processes[0].restarts_left, 0);
        assert!(std::fs::read_to_string(&once.processes[0].log).unwrap().starts_with("first\nlast words\n"));
    }
}
