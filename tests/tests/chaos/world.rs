//! The processes of a run, the faults that befall them, and whoever starts again what has ended.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use blip2_tests::cluster::{Cluster, Coordinator};
use blip2_tests::need::Need;
use blip2_tests::process::{Ended, Running, signal};
use blip2_tests::run::SmallRun;

use super::schedule::{Event, Fault, Random};
use super::tmpfs::Tmpfs;

/// Longer than a worker may be silent.
const PAUSE: Duration = Duration::from_millis(2200);
/// How long the disk is full: a checkpoint fails.
const FULL: Duration = Duration::from_millis(1500);
/// Seconds for which a worker tries to join: a coordinator that is going takes none, and the next one has
/// another address.
const JOIN_WITHIN: &str = "8";
/// How far the odd clock is from the others, in seconds.
const CLOCK_OFFSET: &str = "1000000";
/// Until the next event's step is reached, or the run ends.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(30);
/// Workers that are kept running.
const WORKERS: usize = 2;

pub(crate) struct World<'a> {
    run: &'a SmallRun,
    cluster: Cluster<'a>,
    random: Random,
    /// `None` for no longer than it takes to start another one.
    leader: Option<Coordinator>,
    workers: Vec<Running>,
    /// The worker whose clock is another.
    odd: Option<Running>,
    named: u32,
    done: bool,
    began: Instant,
    // Last: unmounted when all processes are gone.
    disk: Option<Tmpfs>,
}

impl<'a> World<'a> {
    pub(crate) fn begin(run: &'a SmallRun, seed: u64) -> Self {
        let disk = Tmpfs::mount(&run.root());
        let cluster = Cluster::new(run);
        let leader = Some(cluster.coordinator(&[], None));
        let random = Random::new(seed ^ 0xC405);
        let (workers, odd) = (Vec::new(), None);
        let (named, done, began) = (0, false, Instant::now());
        let mut world = Self { run, cluster, random, leader, workers, odd, named, done, began, disk };
        world.tend();
        world
    }

    /// Waits for the event's step, and lets it happen.
    pub(crate) fn play(&mut self, event: &Event) {
        self.wait(|world| world.run.committed() as u64 >= event.step);
        // Who has ended just now is there again.
        self.tend();
        if self.done {
            println!("  {:?}@{}: the run is done before it", event.fault, event.step);
            return;
        }
        println!("  {:.0?}: {:?}@{}", self.began.elapsed(), event.fault, event.step);
        self.befall(event.fault);
    }

    /// Waits for the run's end.
    pub(crate) fn end(&mut self) {
        self.wait(|world| world.done);
        for worker in self.workers.drain(..).chain(self.odd.take()) {
            ended(worker);
        }
    }

    fn befall(&mut self, fault: Fault) {
        match fault {
            Fault::KillWorker => signal_if_there(self.victim(), "KILL"),
            Fault::KillAllWorkers => self.kill_workers(),
            Fault::StopWorker => {
                let victim = self.victim();
                signal_if_there(victim, "STOP");
                std::thread::sleep(PAUSE);
                signal_if_there(victim, "CONT");
            }
            Fault::DrainWorker => signal_if_there(self.victim(), "TERM"),
            Fault::KillCoordinator => {
                signal_if_there(self.leader().process.id(), "KILL");
                self.lead();
            }
            Fault::StopCoordinator => {
                signal_if_there(self.leader().process.id(), "STOP");
                let stopped = self.lead();
                std::thread::sleep(PAUSE);
                signal_if_there(stopped.id(), "CONT");
                // It finds that another leads, unless it had ended the run just then.
                let ended = ended(stopped);
                assert!(matches!(ended.code, Some(0 | 4)), "a coordinator that was stopped: {ended:?}");
            }
            Fault::DrainCoordinator => signal_if_there(self.leader().process.id(), "TERM"),
            Fault::Fill => match &self.disk {
                Some(disk) => disk.fill(FULL),
                None => Need::OwnDisk.skip(),
            },
            Fault::Damage => self.damage(),
            Fault::Clock => {
                let allowed = std::process::Command::new("unshare").args(OTHER_CLOCK).arg("true").output();
                if !allowed.is_ok_and(|ended| ended.status.success()) {
                    return Need::OtherClock.skip();
                }
                let other = Cluster::new(self.run).inside(&[&["unshare"][..], OTHER_CLOCK].concat());
                self.odd = Some(other.worker("odd-clock", &[&self.leader().url], &[], None));
            }
        }
    }

    /// A worker that is there.
    fn victim(&mut self) -> u32 {
        let which = self.random.below(self.workers.len() as u64) as usize;
        self.workers[which].id()
    }

    fn kill_workers(&mut self) {
        for worker in self.workers.drain(..).chain(self.odd.take()) {
            // Dropped, it is killed.
            drop(worker);
        }
    }

    fn leader(&self) -> &Coordinator {
        self.leader.as_ref().expect("a coordinator leads until the run is done")
    }

    /// Another coordinator leads; the one before is handed back.
    fn lead(&mut self) -> Running {
        let next = self.cluster.coordinator(&["--resume"], None);
        self.leader.replace(next).expect("one led before").process
    }

    /// All are killed; the newest checkpoint, if there is one before it to fall back on, is damaged; all are
    /// back.
    fn damage(&mut self) {
        self.wait(|world| world.checkpoints().len() >= 2);
        if self.done {
            return println!("  the run is done before it has two checkpoints");
        }
        signal_if_there(self.leader().process.id(), "KILL");
        self.kill_workers();
        if let [.., _, newest] = &self.checkpoints()[..] {
            let part = std::fs::read_dir(newest).expect("a folder").flatten().map(|entry| entry.path());
            let mut parts: Vec<PathBuf> =
                part.filter(|path| path.extension().is_some_and(|end| end == "safetensors")).collect();
            parts.sort();
            let part = &parts[self.random.below(parts.len() as u64) as usize];
            let mut bytes = std::fs::read(part).expect("a part");
            match self.random.below(3) {
                0 => {
                    let place = self.random.below(bytes.len() as u64) as usize;
                    bytes[place] ^= 1 << self.random.below(8);
                    std::fs::write(part, bytes).expect("a flipped bit");
                }
                1 => std::fs::write(part, &bytes[..bytes.len() / 2]).expect("a shorter part"),
                _ => std::fs::write(newest.join("COMMIT"), "{").expect("a torn COMMIT"),
            }
            println!("  {} is damaged", newest.display());
        }
        self.lead();
    }

    /// Folders of checkpoints with a COMMIT, oldest first.
    fn checkpoints(&self) -> Vec<PathBuf> {
        let folders = std::fs::read_dir(self.run.root().join("checkpoints")).into_iter().flatten();
        let mut whole: Vec<PathBuf> = folders
            .filter_map(|entry| Some(entry.ok()?.path()).filter(|path| path.join("COMMIT").is_file()))
            .collect();
        whole.sort();
        whole
    }

    /// Looks after the processes until it is so.
    fn wait(&mut self, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !self.done && !is_so(self) {
            assert!(
                began.elapsed() < PATIENCE,
                "nothing moves at {} steps; the coordinator says:\n{}",
                self.run.committed(),
                self.leader().process.stderr()
            );
            self.tend();
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Starts again whoever has ended, unless the run is done.
    fn tend(&mut self) {
        if let Some(gone) = self.leader.take_if(|leader| leader.process.has_ended()) {
            let gone = ended(gone.process);
            match gone.code {
                Some(0) => self.done = true,
                // Asked to go, and 1 where nothing was saved yet.
                Some(5) | None => {}
                Some(1) if gone.stderr.contains("before anything could be saved") => {}
                _ => panic!("a coordinator ended: {gone:?}"),
            }
            if self.done {
                return;
            }
            self.leader = Some(self.cluster.coordinator(&["--resume"], None));
        }
        self.workers.retain_mut(|worker| !worker.has_ended());
        while self.workers.len() < WORKERS {
            self.named += 1;
            let name = format!("worker-{}", self.named);
            let within = ["--join-timeout", JOIN_WITHIN];
            let worker = self.cluster.worker(&name, &[&self.leader().url], &within, None);
            self.workers.push(worker);
        }
    }
}

/// Arguments of `unshare` for a process with another monotonic clock.
const OTHER_CLOCK: &[&str] =
    &["--time", "--fork", "--kill-child", "--monotonic", CLOCK_OFFSET, "--boottime", CLOCK_OFFSET];

/// A process that has ended just now needs no signal.
fn signal_if_there(process: u32, name: &str) {
    if std::path::Path::new(&format!("/proc/{process}")).is_dir() {
        signal(process, name);
    }
}

fn ended(process: Running) -> Ended {
    let within = process.wait_within(PATIENCE);
    within.unwrap_or_else(|running| panic!("it does not end: {}", running.stderr()))
}
