//! Running the `blip2` binary with a deadline.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// No single run of these tests takes longer on one slow core.
pub const DEADLINE: Duration = Duration::from_secs(240);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The repository's folder.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().map(Path::to_path_buf).expect("this crate lies in the repository's folder")
}

/// The binary of this build, which lies beside the folder of the test executables.
///
/// # Panics
/// Says how to build it when it is not there.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("the test executable has a path");
    let folder = test.parent().and_then(Path::parent).expect("it lies in target/release/deps");
    let path = folder.join("blip2");
    assert!(path.is_file(), "{} is not there: run `cargo test --release --workspace`", path.display());
    path
}

/// A `blip2` command in the repository's folder, with no configuration from outside.
pub fn blip2(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(repository());
    isolate(&mut command);
    command
}

/// Removes configuration variables and keeps the processes of a test to one thread each.
pub fn isolate(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BLIP2_") {
            command.env_remove(name);
        }
    }
    command.env("BLIP2_LAUNCH__THREADS_PER_WORKER", "1");
}

/// A process whose output goes to files; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    output: tempfile::TempDir,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Ended {
    /// Fails the test unless the code is this one, showing what the process said.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails the test unless standard error has all these parts.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "no `{part}` in:\n{}", self.stderr);
        }
        self
    }

    /// The JSON lines of standard output.
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// Starts a command that has nothing to read.
pub fn start(command: Command) -> Running {
    start_reading(command, Stdio::null())
}

/// Runs a command that reads `input`, to its end.
pub fn finish_with_input(command: Command, input: &str) -> Ended {
    use std::io::{Seek as _, Write as _};
    let mut file = tempfile::tempfile().expect("a file for the input");
    file.write_all(input.as_bytes()).and_then(|()| file.rewind()).expect("the input is written");
    start_reading(command, file.into()).wait()
}

fn start_reading(mut command: Command, input: Stdio) -> Running {
    let output = tempfile::tempdir().expect("a folder for the output");
    let file = |name: &str| File::create(output.path().join(name)).expect("a file for the output");
    command.stdin(input).stdout(file("stdout")).stderr(file("stderr"));
    let child = command.spawn().expect("the process starts");
    Running { child, output }
}

/// Runs a command to its end.
pub fn finish(command: Command) -> Ended {
    start(command).wait()
}

impl Running {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.output.path().join("stdout")).unwrap_or_default()
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.output.path().join("stderr")).unwrap_or_default()
    }

    /// The address that it prints in a JSON line.
    ///
    /// # Panics
    /// It does not come in time.
    pub fn listening(&self) -> String {
        self.address("listening")
    }

    /// The address of its metrics port, printed in the same way.
    ///
    /// # Panics
    /// It does not come in time.
    pub fn metrics(&self) -> String {
        self.address("metrics")
    }

    fn address(&self, key: &str) -> String {
        let address = poll(|| {
            let stdout = self.stdout();
            let lines = stdout.lines().map_while(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            lines.filter_map(|line| Some(line[key].as_str()?.to_owned())).next()
        });
        address.unwrap_or_else(|| panic!("it does not say where it is ({key}):\n{}", self.stderr()))
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("its state is known").is_some()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it does not come in time.
    pub fn wait(self) -> Ended {
        self.wait_within(DEADLINE).unwrap_or_else(|running| {
            let (stdout, stderr) = (running.stdout(), running.stderr());
            panic!("still running after {DEADLINE:?}; stdout:\n{stdout}\nstderr:\n{stderr}");
        })
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The process, when its end does not come in time.
    pub fn wait_within(mut self, time: Duration) -> Result<Ended, Self> {
        let status: Option<ExitStatus> =
            poll_for(time, || self.child.try_wait().expect("its state is known"));
        match status {
            Some(status) => Ok(Ended { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }),
            None => Err(self),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks until there is an answer or the deadline passes.
pub fn poll<T>(look: impl FnMut() -> Option<T>) -> Option<T> {
    poll_for(DEADLINE, look)
}

/// Looks until there is an answer or this time has passed.
pub fn poll_for<T>(time: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    while start.elapsed() < time {
        if let Some(answer) = look() {
            return Some(answer);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    None
}

/// Sends a signal, by its name without `SIG`.
pub fn signal(process: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &process.to_string()]).status();
    assert!(status.expect("kill runs").success(), "signal {name} to {process}");
}

/// The processes that `parent` started, oldest first.
pub fn children(parent: u32) -> Vec<u32> {
    let mut found: Vec<u32> = std::fs::read_dir("/proc")
        .expect("this system has /proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|id| parent_of(*id) == Some(parent))
        .collect();
    found.sort_unstable();
    found
}

fn parent_of(process: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in brackets, may hold anything; state and parent follow it.
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
