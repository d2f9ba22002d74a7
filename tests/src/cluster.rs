//! A run of separate processes: coordinators and workers, started, signalled and started again one by one.

use std::time::Duration;

use crate::process::{DEADLINE, Ended, Running, blip2, finish, isolate, poll_for, repository, signal, start};
use crate::run::SmallRun;

/// A run with the token its processes share.
#[derive(Debug)]
pub struct Cluster<'a> {
    run: &'a SmallRun,
    token: String,
    /// What comes before the binary, for example a network namespace.
    inside: Vec<String>,
    /// Authority, certificate and key.
    tls: Option<[String; 3]>,
    /// Set for each process.
    environment: Vec<(String, String)>,
}

/// A coordinator and where it is reached.
#[derive(Debug)]
pub struct Coordinator {
    /// The process.
    pub process: Running,
    /// Its URL.
    pub url: String,
}

impl<'a> Cluster<'a> {
    /// The processes of this run on the loopback address.
    pub fn new(run: &'a SmallRun) -> Self {
        let token = token_file(run, "token", "a long secret");
        Self { run, token, inside: Vec::new(), tls: None, environment: Vec::new() }
    }

    /// The same, with this variable in the environment of each.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same, with processes started by `command` (which runs the rest of its arguments).
    #[must_use]
    pub fn inside(mut self, command: &[&str]) -> Self {
        self.inside = command.iter().map(|&part| part.to_owned()).collect();
        self
    }

    /// The same, with these PEM files: authority, certificate and key.
    #[must_use]
    pub fn secured(mut self, files: [String; 3]) -> Self {
        self.tls = Some(files);
        self
    }

    /// The same, with another token.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = token_file(self.run, "another-token", token);
        self
    }

    /// Starts a coordinator and waits until it listens; it rehearses `drill`.
    pub fn coordinator(&self, arguments: &[&str], drill: Option<&str>) -> Coordinator {
        let known = ["coordinator", "--config", self.run.config(), "--token-file", &self.token, "--json"];
        let listen: &[&str] =
            if arguments.contains(&"--listen") { &[] } else { &["--listen", "127.0.0.1:0"] };
        let secured = self.tls_arguments(["tls.ca=", "tls.cert=", "tls.key="], "--set");
        let secured: Vec<&str> = secured.iter().map(String::as_str).collect();
        let process = self.start(&[&known[..], listen, arguments, &secured].concat(), drill);
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", process.listening());
        Coordinator { process, url }
    }

    /// Starts a worker that knows these coordinators; it rehearses `drill`.
    pub fn worker(&self, name: &str, urls: &[&str], arguments: &[&str], drill: Option<&str>) -> Running {
        let known = ["worker", "--token-file", &self.token, "--name", name, "--threads", "1"];
        let coordinators: Vec<&str> = urls.iter().flat_map(|&url| ["--coordinator", url]).collect();
        let secured = self.tls_arguments(["--tls-ca=", "--tls-cert=", "--tls-key="], "");
        let secured: Vec<&str> = secured.iter().map(String::as_str).collect();
        self.start(&[&known[..], &coordinators, arguments, &secured].concat(), drill)
    }

    /// `blip2 status` of a coordinator, as a member of the run asks.
    pub fn status(&self, url: &str) -> Ended {
        let secured = self.tls_arguments(["--tls-ca=", "--tls-cert=", "--tls-key="], "");
        let secured: Vec<&str> = secured.iter().map(String::as_str).collect();
        self.start(&[&["status", url, "--token-file", &self.token][..], &secured].concat(), None).wait()
    }

    /// The files with their names before them, and before each of those a flag if there is one.
    fn tls_arguments(&self, names: [&str; 3], flag: &str) -> Vec<String> {
        let files = self.tls.iter().flatten().zip(names);
        files
            .flat_map(|(file, name)| [flag.to_owned(), format!("{name}{file}")])
            .filter(|argument| !argument.is_empty())
            .collect()
    }

    fn start(&self, arguments: &[&str], drill: Option<&str>) -> Running {
        let mut command = blip2(arguments);
        if let Some((program, before)) = self.inside.split_first() {
            let mut outer = std::process::Command::new(program);
            outer.args(before).arg(command.get_program()).args(command.get_args());
            outer.current_dir(repository());
            isolate(&mut outer);
            command = outer;
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(drill) = drill {
            command.env("BLIP2_DRILL", drill);
        }
        start(command)
    }

    /// The run to its end with one worker, though its leader is killed while that worker waits at `place`;
    /// another coordinator stands by. All coordinators have these arguments.
    pub fn lose_the_leader(&self, place: &str, arguments: &[&str]) {
        let leader = self.coordinator(arguments, None);
        let standby = self.coordinator(&[&["--standby"], arguments].concat(), None);
        let urls = [leader.url.as_str(), standby.url.as_str()];
        let mut worker = self.worker("only", &urls, &[], Some(&format!("{place}:4000")));
        wait_for_drill(&mut worker, place);
        signal(leader.process.id(), "KILL");
        standby.process.wait().expect(0);
        worker.wait().expect(0);
    }

    /// `blip2 audit` of the run.
    pub fn audit(&self) -> Ended {
        let root = self.run.root();
        finish(blip2(&["audit", root.to_str().expect("temporary folders have UTF-8 names")]))
    }
}

/// A file in the run's scratch folder with this token.
///
/// # Panics
/// It cannot be written.
pub fn token_file(run: &SmallRun, name: &str, token: &str) -> String {
    let path = run.scratch().join(name);
    std::fs::write(&path, token).expect("the token can be written");
    path.to_str().expect("temporary folders have UTF-8 names").to_owned()
}

/// Waits until a process is at the place of its drill.
///
/// # Panics
/// It does not come there, showing what it said.
#[track_caller]
pub fn wait_for_drill(process: &mut Running, place: &str) {
    let line = format!("drill {place}");
    let mut ended = false;
    let there = poll_for(DEADLINE, || {
        if process.stderr().contains(&line) {
            return Some(true);
        }
        // Once more after its end, for what it said last.
        std::mem::replace(&mut ended, process.has_ended()).then_some(false)
    });
    assert_eq!(
        there,
        Some(true),
        "not at {place}; stdout:\n{}\nstderr:\n{}",
        process.stdout(),
        process.stderr()
    );
}

/// Stops a process for some time and lets it go on.
pub fn pause(process: u32, time: Duration) {
    signal(process, "STOP");
    std::thread::sleep(time);
    signal(process, "CONT");
}
