//! A Slurm of this test's own: munged, slurmctld, and two slurmd on this machine, which are its hosts.

use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use blip2_tests::process::{isolate, poll, poll_for, repository};

/// The hosts, by names that all of them resolve.
pub(crate) const NODES: [&str; 2] = ["127.0.0.1", "127.0.0.2"];
/// The one of them that has cards, and how many.
pub(crate) const CARDS: (&str, usize) = (NODES[0], 2);
/// The partition whose jobs go first.
pub(crate) const URGENT: &str = "urgent";
/// What must be there.
const PROGRAMS: [&str; 8] =
    ["munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol"];
/// The daemons answer within this, or not at all; also how long they may take to end.
const PATIENCE: Duration = Duration::from_secs(90);

/// The daemons; ended, with all that runs under them, when dropped.
pub(crate) struct Slurm {
    folder: tempfile::TempDir,
}

/// Set by `tests/slurm-cluster`.
const ASKED: &str = "BLIP2_SLURM";

impl Slurm {
    /// Starts the daemons, if `tests/slurm-cluster` asks for them, this machine has them and they may be
    /// started: the test takes minutes, most of them waits.
    pub(crate) fn start() -> Option<Self> {
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| {
            use std::os::unix::fs::MetadataExt as _;
            own.uid() == 0
        });
        if std::env::var_os(ASKED).is_none() || !is_root || !PROGRAMS.iter().all(|program| found(program)) {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let slurm = Self { folder };
        slurm.start_munge();
        std::fs::write(slurm.path("slurm.conf"), slurm.configuration()).expect("the configuration");
        slurm.make_up_cards();
        std::fs::create_dir(slurm.path("state")).expect("a folder");
        slurm.must(&["slurmctld"]);
        NODES.iter().for_each(|node| slurm.start_node(node));
        Some(slurm)
    }

    /// A file of the cluster.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start_munge(&self) {
        let folder = self.path("munge");
        std::fs::DirBuilder::new().mode(0o711).create(&folder).expect("a folder");
        let key = folder.join("key");
        let mut random = std::fs::File::open("/dev/urandom").expect("random numbers");
        let mut bytes = [0; 1024];
        std::io::Read::read_exact(&mut random, &mut bytes).expect("random numbers");
        std::fs::write(&key, bytes).expect("a key");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o400)).expect("for its owner alone");
        let place = |option: &str, name: &str| format!("--{option}={}", folder.join(name).display());
        let [socket, key] = [place("socket", "socket"), place("key-file", "key")];
        let [log, pid] = [place("log-file", "log"), place("pid-file", "pid")];
        self.must(&["munged", "--force", &socket, &key, &log, &pid, &place("seed-file", "seed")]);
    }

    /// Devices that swallow what is written to them, by names as cards have them: Slurm counts and deals
    /// them.
    fn make_up_cards(&self) {
        let (node, count) = CARDS;
        let name = self.path("card");
        for card in 0..count {
            let made =
                Command::new("mknod").arg(format!("{}{card}", name.display())).args(["c", "1", "3"]).output();
            let made = made.expect("a program of every system");
            assert!(made.status.success(), "no device: {}", String::from_utf8_lossy(&made.stderr));
        }
        let cards = format!("NodeName={node} Name=gpu File={}[0-{}]\n", name.display(), count - 1);
        std::fs::write(self.path("gres.conf"), cards).expect("the configuration");
    }

    /// As small as Slurm gets. A host that does not answer is given up after 10 s, a job that goes back to
    /// the queue starts after 5 s, and what is asked to go has time also where this machine is busy.
    fn configuration(&self) -> String {
        let folder = self.folder.path().display();
        let host = said_by("hostname", &["-s"]);
        let ports: Vec<u16> = free_ports(1 + NODES.len());
        let node = |(name, port): (&&str, &u16)| {
            let cards = if *name == CARDS.0 { format!("Gres=gpu:{} ", CARDS.1) } else { String::new() };
            format!(
                "NodeName={name} NodeHostname={host} NodeAddr={name} Port={port} CPUs=8 {cards}State=UNKNOWN\n"
            )
        };
        let nodes: String = NODES.iter().zip(&ports[1..]).map(node).collect();
        format!(
            "ClusterName=test\n\
             SlurmctldHost={host}(127.0.0.1)\n\
             SlurmctldPort={}\n\
             SlurmUser=root\n\
             SlurmdUser=root\n\
             AuthType=auth/munge\n\
             AuthInfo=socket={folder}/munge/socket,cred_expire=5\n\
             CredType=cred/munge\n\
             ProctrackType=proctrack/linuxproc\n\
             TaskPlugin=task/none\n\
             MpiDefault=none\n\
             JobAcctGatherType=jobacct_gather/none\n\
             SelectType=select/cons_tres\n\
             SelectTypeParameters=CR_Core\n\
             SlurmdParameters=config_overrides\n\
             GresTypes=gpu\n\
             SchedulerParameters=batch_sched_delay=0,sched_interval=2\n\
             ReturnToService=2\n\
             SlurmdTimeout=10\n\
             KillWait=120\n\
             MinJobAge=3600\n\
             StateSaveLocation={folder}/state\n\
             SlurmdSpoolDir={folder}/spool-%n\n\
             SlurmctldLogFile={folder}/slurmctld.log\n\
             SlurmdLogFile={folder}/slurmd-%n.log\n\
             SlurmctldPidFile={folder}/slurmctld.pid\n\
             SlurmdPidFile={folder}/slurmd-%n.pid\n\
             PreemptType=preempt/partition_prio\n\
             PreemptMode=REQUEUE\n\
             {}\n\
             {nodes}\
             PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE State=UP\n\
             PartitionName=main Default=YES OverSubscribe=FORCE:4 PriorityTier=1 GraceTime=120\n\
             PartitionName={URGENT} OverSubscribe=NO PriorityTier=10 PreemptMode=OFF\n",
            ports[0],
            told_of_preemption(),
        )
    }

    /// Starts a host's daemon and waits until work can be sent there.
    pub(crate) fn start_node(&self, node: &str) {
        self.must(&["slurmd", "-N", node]);
        let is_up = || {
            let (_, state) = self.said(&["sinfo", "--noheader", "--nodes", node, "--format=%T"]);
            ["idle", "mixed", "allocated"].contains(&state.as_str()).then_some(())
        };
        assert!(poll_for(PATIENCE, is_up).is_some(), "{node} does not come up:\n{}", self.last_words());
    }

    /// Ends a host as a cut of its power does: daemon, steps and tasks at once.
    pub(crate) fn cut_power(&self, node: &str, job: &str) {
        let tasks = processes(&[("SLURMD_NODENAME", node), ("SLURM_JOB_ID", job)]);
        let steps: Vec<u32> = tasks
            .iter()
            .filter_map(|task| parent(*task))
            .filter(|parent| command_line(*parent).starts_with("slurmstepd"))
            .collect();
        assert!(!steps.is_empty(), "{node} has no task of job {job}");
        let daemon = self.process(&format!("slurmd-{node}.pid")).expect("the host's daemon");
        // A cut is for all at once. `srun` has a child that ends the step on the other hosts too when `srun`
        // is gone: the child goes first, then `srun`, then whoever both could tell.
        let (mut sruns, others): (Vec<u32>, Vec<u32>) =
            tasks.iter().partition(|task| command_line(**task).starts_with("srun "));
        sruns.sort_unstable_by_key(|process| std::cmp::Reverse(*process));
        let all = sruns.iter().chain([&daemon]).chain(&steps).chain(&others).map(ToString::to_string);
        // Some end with those before them.
        let _ = Command::new("kill").arg("-KILL").args(all).output();
    }

    /// Submits a batch script with these options, arguments and variables; the job's number.
    pub(crate) fn submit(
        &self,
        options: &[&str],
        script: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> String {
        let mut command = self.command(&[&["sbatch", "--parsable"], options, &[script], arguments].concat());
        command.envs(variables.iter().copied());
        let ended = command.output().expect("sbatch runs");
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(ended.status.success(), "{script}: {}\n{}", said(&ended.stderr), self.last_words());
        said(&ended.stdout)
    }

    /// Does what must be possible.
    #[track_caller]
    pub(crate) fn must(&self, words: &[&str]) -> String {
        let (done, said) = self.said(words);
        assert!(done, "{words:?}: {said}\n{}", self.last_words());
        said
    }

    fn said(&self, words: &[&str]) -> (bool, String) {
        let ended = self.command(words).output().unwrap_or_else(|error| panic!("{words:?}: {error}"));
        let text = [&ended.stdout[..], &ended.stderr[..]].concat();
        (ended.status.success(), String::from_utf8_lossy(&text).trim().to_owned())
    }

    /// A command that asks this cluster, with nothing in its environment of another one.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program(words[0]).unwrap_or_else(|| words[0].into()));
        command.args(&words[1..]).current_dir(repository());
        isolate(&mut command);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SLURM") {
                command.env_remove(name);
            }
        }
        command.env("SLURM_CONF", self.path("slurm.conf"));
        command
    }

    /// A fact on a job, such as `JobState`.
    pub(crate) fn of_job(&self, job: &str, fact: &str) -> String {
        let told = self.must(&["scontrol", "show", "--oneliner", "job", job]);
        let word = told.split_whitespace().find_map(|word| word.strip_prefix(&format!("{fact}=")));
        word.unwrap_or_else(|| panic!("no {fact} in {told}")).to_owned()
    }

    /// Waits until a job is in a state.
    #[track_caller]
    pub(crate) fn wait_for_state(&self, job: &str, state: &str, log: &Path) {
        let reached = poll(|| {
            let now = self.of_job(job, "JobState");
            std::thread::sleep(Duration::from_millis(200));
            (now == state).then_some(())
        });
        let now = || self.of_job(job, "JobState");
        assert!(reached.is_some(), "{job} is {}, not {state}:\n{}\n{}", now(), read(log), self.last_words());
    }

    /// The process that a daemon wrote down.
    fn process(&self, file: &str) -> Option<u32> {
        std::fs::read_to_string(self.path(file)).ok()?.trim().parse().ok()
    }

    /// The ends of the daemons' logs.
    pub(crate) fn last_words(&self) -> String {
        let logs = NODES.map(|node| format!("slurmd-{node}.log"));
        let logs = logs.iter().map(String::as_str).chain(["slurmctld.log", "munge/log"]);
        let last = |name: &str| {
            let text = read(&self.path(name));
            let lines: Vec<&str> = text.lines().collect();
            format!("{name}:\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        logs.map(last).collect()
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        // Jobs first, which the daemons would leave alone.
        let _ = self.command(&["scancel", "--quiet", "--full", "--signal=KILL", "--user=root"]).output();
        let _ = self.command(&["scancel", "--quiet", "--user=root"]).output();
        let is_empty = || {
            let (done, jobs) = self.said(&["squeue", "--noheader"]);
            (!done || jobs.is_empty()).then_some(())
        };
        let _ = poll_for(Duration::from_secs(20), is_empty);
        let files = NODES.map(|node| format!("slurmd-{node}.pid"));
        for file in files.iter().map(String::as_str).chain(["slurmctld.pid", "munge/pid"]) {
            let Some(process) = self.process(file) else { continue };
            let _ = Command::new("kill").arg(process.to_string()).output();
            let is_gone = || (!Path::new(&format!("/proc/{process}")).exists()).then_some(());
            if poll_for(Duration::from_secs(10), is_gone).is_none() {
                let _ = Command::new("kill").args(["-KILL", &process.to_string()]).output();
            }
        }
    }
}

/// The processes with these variables in their environment, oldest first.
pub(crate) fn processes(variables: &[(&str, &str)]) -> Vec<u32> {
    let wanted: Vec<Vec<u8>> =
        variables.iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect();
    let has_all = |process: &u32| {
        let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        let given: Vec<&[u8]> = environment.split(|byte| *byte == 0).collect();
        wanted.iter().all(|variable| given.contains(&&variable[..]))
    };
    let mut found: Vec<u32> = all_processes().into_iter().filter(has_all).collect();
    found.sort_unstable();
    found
}

/// All processes of this machine.
pub(crate) fn all_processes() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("this system has /proc");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// How a process was started, its words with spaces between them.
pub(crate) fn command_line(process: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// A variable of a process, as it was started with it.
pub(crate) fn variable(process: u32, name: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{process}/environ")).ok()?;
    let text = String::from_utf8_lossy(&environment).into_owned();
    text.split('\0').find_map(|variable| Some(variable.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

fn parent(process: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// A text, empty where there is none.
pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn found(name: &str) -> bool {
    program(name).is_some()
}

/// Where a program is; those of daemons are not in everybody's path.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// What has the script told of a preemption as it is told of the limit of time.
fn told_of_preemption() -> &'static str {
    // `slurm-wlm 22.05.8`.
    let version = said_by("slurmctld", &["-V"]);
    let year = version.rsplit(' ').next().and_then(|number| number.split('.').next()?.parse::<u32>().ok());
    match year {
        Some(..=22) => "SlurmctldParameters=preempt_send_user_signal",
        _ => "PreemptParameters=send_user_signal",
    }
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let ended = Command::new(program).args(arguments).output().expect("a program of every system");
    String::from_utf8_lossy(&ended.stdout).trim().to_owned()
}

fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("bound").port()).collect()
}
