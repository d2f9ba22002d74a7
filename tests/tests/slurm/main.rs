//! The project's own batch scripts on a real Slurm, with whatever goes wrong there.
//!
//! `tests/slurm-cluster` installs Slurm and runs this; where it is not, the test says that it is skipped. Two
//! hosts of the cluster are daemons of this machine. Its cards are devices that nobody computes on: who takes
//! which is seen, and no more.

mod cards;
mod cluster;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use blip2_tests::need::Need;
use blip2_tests::pool::Pool;
use blip2_tests::process::{binary, blip2, finish, poll, signal};
use blip2_tests::run::SmallRun;
use cluster::{NODES, Slurm, URGENT, all_processes, command_line, processes, read};

const TRAIN: &str = "slurm/train.sbatch";
const CURATE: &str = "slurm/curate.sbatch";
/// Steps of each stage.
const STEPS: u64 = 12;
/// Shares of the curation, and the tasks of each.
const SHARES: usize = 3;
const TASKS: usize = 6;

/// A job and where its words go.
struct Job {
    number: String,
    log: PathBuf,
}

impl Job {
    fn says(&self, part: &str) -> bool {
        read(&self.log).contains(part)
    }

    #[track_caller]
    fn wait_until_it_says(&self, slurm: &Slurm, part: &str) {
        let said = poll(|| self.says(part).then_some(()));
        assert!(said.is_some(), "no `{part}` in:\n{}\n{}", read(&self.log), slurm.last_words());
    }

    /// The workers of a host.
    fn workers(&self, node: &str) -> Vec<u32> {
        let of_node = processes(&[("SLURM_JOB_ID", &self.number), ("SLURMD_NODENAME", node)]);
        of_node.into_iter().filter(|process| command_line(*process).contains("/blip2 worker")).collect()
    }

    /// The one worker of a host.
    fn worker(&self, node: &str) -> Option<u32> {
        self.workers(node).first().copied()
    }
}

/// The program with what each start of it rehearses, which is in a file: the variables of a job stay as they
/// were when it was submitted.
struct Program {
    path: String,
    drill: PathBuf,
}

impl Program {
    fn new(folder: &Path) -> Self {
        let (path, drill) = (folder.join("program"), folder.join("drill"));
        let text = format!(
            "#!/bin/sh\nif [ -s {drill} ]; then BLIP2_DRILL=$(cat {drill}); export BLIP2_DRILL; fi\nexec {binary} \"$@\"\n",
            drill = drill.display(),
            binary = binary().display(),
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { path: path.to_str().unwrap().to_owned(), drill }
    }

    /// What starts from now on waits so long in the forward pass of these steps.
    fn waits_at(&self, steps: impl IntoIterator<Item = u64>, milliseconds: u64) {
        let places: Vec<String> =
            steps.into_iter().map(|step| format!("forward@{step}:{milliseconds}")).collect();
        std::fs::write(&self.drill, places.join(",")).unwrap();
    }
}

fn small_run() -> SmallRun {
    SmallRun::of(STEPS, "[checkpoint]\nevery_steps = 5\n")
}

fn submit_run(slurm: &Slurm, run: &SmallRun, program: &str, more: &[(&str, &str)]) -> Job {
    submit_with(slurm, run, &["--nodes=2"], program, more)
}

fn submit_with(slurm: &Slurm, run: &SmallRun, options: &[&str], program: &str, more: &[(&str, &str)]) -> Job {
    let shared = run.scratch().to_str().unwrap();
    // Another one for each job of a run.
    let log = run.scratch().join(format!("job-{}.log", run.epoch()));
    let output = format!("--output={}", log.display());
    let own = [("BLIP2_PROGRAM", program), ("BLIP2_SHARED", shared), ("BLIP2_THREADS", "1")];
    let options = [&["--time=60", &output], options].concat();
    let number = slurm.submit(&options, TRAIN, &["--config", run.config()], &[&own[..], more].concat());
    Job { number, log }
}

#[test]
fn jobs_end_as_if_nothing_had_happened() {
    let Some(slurm) = Slurm::start() else {
        Need::Slurm.skip();
        return;
    };
    let alone = small_run();
    alone.train(&["--workers", "2"]).expect(0);
    let expected = alone.digest();
    assert_eq!(expected.1, 2 * STEPS);

    // Two jobs share both hosts; one of them meets everything.
    let (quiet, troubled) = (small_run(), small_run());
    let program = Program::new(troubled.scratch());
    program.waits_at([4, 7, 10], 4000);
    let other = submit_run(&slurm, &quiet, binary().to_str().unwrap(), &[]);
    let job = submit_run(&slurm, &troubled, &program.path, &[]);
    job.wait_until_it_says(&slurm, "drill forward@4");
    let token = the_token_is_a_secret(&job, troubled.scratch());

    a_worker_is_killed(&slurm, &job);
    job.wait_until_it_says(&slurm, "drill forward@7");
    the_coordinator_is_killed(&slurm, &job);
    job.wait_until_it_says(&slurm, "drill forward@10");
    it_is_put_back(&slurm, &job, &program);
    std::thread::scope(|scope| {
        scope.spawn(|| an_array_is_cured(&slurm));
        the_limit_of_time_strikes(&slurm, &job, &program);
        a_host_is_lost(&slurm, &job);
        slurm.wait_for_state(&job.number, "COMPLETED", &job.log);
    });
    let facts = ["ExitCode", "Restarts"].map(|fact| slurm.of_job(&job.number, fact));
    assert_eq!(facts, ["0:0", "2"]);
    assert_eq!(troubled.digest(), expected, "{}", read(&job.log));
    finish(blip2(&["audit", troubled.root().to_str().unwrap()])).expect(0);
    assert!(!job.says(&token));
    assert!(!secret_folder(troubled.scratch(), &job).exists(), "the token is left behind");

    slurm.wait_for_state(&other.number, "COMPLETED", &other.log);
    assert_eq!(quiet.digest(), expected);
    slurm.start_node(NODES[1]);
    // Done is done.
    let again = submit_run(&slurm, &quiet, binary().to_str().unwrap(), &[]);
    slurm.wait_for_state(&again.number, "COMPLETED", &again.log);
    assert_eq!(quiet.digest(), expected);
    cards::each_task_of_a_host_takes_its_own(&slurm, &expected);
    the_first_host_is_lost(&slurm, &expected);
    it_makes_way_for_an_urgent_job(&slurm, &expected);
}

fn secret_folder(shared: &Path, job: &Job) -> PathBuf {
    shared.join(format!(".blip2-job-{}", job.number))
}

/// The token is for its owner alone, and on nobody's command line.
fn the_token_is_a_secret(job: &Job, shared: &Path) -> String {
    let folder = secret_folder(shared, job);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join("token"))), (0o700, 0o600));
    let token = read(&folder.join("token")).trim().to_owned();
    assert!(token.len() > 40, "a token of {} letters", token.len());
    for process in all_processes() {
        assert!(!command_line(process).contains(&token), "{}", command_line(process));
        let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&environment).contains(&token), "{}", command_line(process));
    }
    token
}

/// A worker that is killed is started again by its task, and the other one goes on.
fn a_worker_is_killed(slurm: &Slurm, job: &Job) {
    let workers = NODES.map(|node| job.worker(node).unwrap_or_else(|| panic!("no worker on {node}")));
    signal(workers[1], "KILL");
    job.wait_until_it_says(slurm, &format!("{}-0 ended with 137 and is started again", NODES[1]));
    let back = poll(|| job.worker(NODES[1]).filter(|worker| *worker != workers[1]));
    assert!(back.is_some(), "it does not come back:\n{}", read(&job.log));
    assert_eq!(job.worker(NODES[0]), Some(workers[0]), "the other one is another process");
    assert!(!job.says(&format!("{}-0 ended with", NODES[0])));
}

/// A coordinator that is killed is started again by the script, and goes on from what the workers hold.
fn the_coordinator_is_killed(slurm: &Slurm, job: &Job) {
    let workers = NODES.map(|node| job.worker(node));
    let of_job = processes(&[("SLURM_JOB_ID", &job.number)]);
    let coordinator =
        of_job.into_iter().find(|process| command_line(*process).contains("/blip2 coordinator"));
    signal(coordinator.expect("a coordinator"), "KILL");
    job.wait_until_it_says(slurm, "the coordinator ended with 137 and is started again");
    job.wait_until_it_says(slurm, "going on from what the members hold");
    assert_eq!(NODES.map(|node| job.worker(node)), workers, "{}", read(&job.log));
}

/// `scontrol requeue`: the run is saved within Slurm's grace, and goes on from there.
fn it_is_put_back(slurm: &Slurm, job: &Job, program: &Program) {
    program.waits_at(12..20, 5000);
    slurm.must(&["scontrol", "requeue", &job.number]);
    job.wait_until_it_says(slurm, "stopped after checkpoint");
    job.wait_until_it_says(slurm, "drill forward@12");
}

/// The limit of time draws near: the script saves the run and puts the job back by itself.
fn the_limit_of_time_strikes(slurm: &Slurm, job: &Job, program: &Program) {
    let soon = std::process::Command::new("date").args(["-d", "+110 seconds", "+%Y-%m-%dT%H:%M:%S"]).output();
    let soon = String::from_utf8(soon.unwrap().stdout).unwrap();
    program.waits_at([21], 6000);
    slurm.must(&[
        "scontrol",
        "update",
        &format!("JobId={}", job.number),
        &format!("EndTime={}", soon.trim()),
    ]);
    job.wait_until_it_says(slurm, "goes back to the queue");
    job.wait_until_it_says(slurm, "drill forward@21");
}

/// A host is lost in the middle of a step, which is done again without it.
fn a_host_is_lost(slurm: &Slurm, job: &Job) {
    let survivor = job.worker(NODES[0]);
    slurm.cut_power(NODES[1], &job.number);
    job.wait_until_it_says(slurm, "step 21: worker");
    assert!(survivor.is_some() && job.worker(NODES[0]) == survivor, "{}", read(&job.log));
}

/// Shares of which one is killed and one is stopped leave the same objects.
fn an_array_is_cured(slurm: &Slurm) {
    let pool = Pool::new(SHARES * TASKS, 24);
    let (whole, cured) = (pool.arguments("whole"), pool.arguments("cured"));
    let words: Vec<&str> = whole.iter().map(String::as_str).collect();
    finish(blip2(&[&["curate", "--threads", "1", "--shard", "0/1"], &words[..]].concat())).expect(0);

    let log = |share: usize| PathBuf::from(pool.path(&format!("share-{share}.log")));
    let output = format!("--output={}", pool.path("share-%a.log"));
    // One after the other, so that each is met at work.
    let array = format!("--array=0-{}%1", SHARES - 1);
    let words: Vec<&str> = cured.iter().map(String::as_str).collect();
    let program = binary();
    let variables = [("BLIP2_PROGRAM", program.to_str().unwrap()), ("BLIP2_THREADS", "1")];
    // On the host that is not lost meanwhile.
    let host = format!("--nodelist={}", NODES[0]);
    let array = slurm.submit(&["--time=60", &host, &output, &array], CURATE, &words, &variables);
    let share = |index: usize| format!("{array}_{index}");

    let at_work = |index: usize| {
        let number = index.to_string();
        let named = [("SLURM_ARRAY_JOB_ID", array.as_str()), ("SLURM_ARRAY_TASK_ID", &number)];
        let worker = || {
            let begun = read(&log(index)).contains("task ");
            let all = if begun { processes(&named) } else { Vec::new() };
            all.into_iter().find(|process| command_line(*process).contains("/blip2 curate"))
        };
        poll(worker).unwrap_or_else(|| panic!("share {index} does not work:\n{}", read(&log(index))))
    };
    signal(at_work(1), "KILL");
    slurm.wait_for_state(&share(1), "FAILED", &log(1));
    slurm.must(&["scontrol", "requeue", &share(1)]);
    at_work(2);
    slurm.must(&["scancel", "--batch", "--signal=TERM", &share(2)]);
    let back = || read(&log(2)).contains("goes back to the queue").then_some(());
    assert!(poll(back).is_some(), "share 2 is not put back:\n{}", read(&log(2)));
    for index in 0..SHARES {
        slurm.wait_for_state(&share(index), "COMPLETED", &log(index));
    }
    assert_eq!(slurm.of_job(&share(1), "Restarts"), "1");
    assert_eq!(pool.files("cured"), pool.files("whole"));
}

/// The first host is lost, with the script: whoever is left puts the job back. One that is cancelled is saved
/// and stays away; the same line continues it.
fn the_first_host_is_lost(slurm: &Slurm, expected: &(String, u64)) {
    let run = small_run();
    let program = Program::new(run.scratch());
    program.waits_at([6], 4000);
    let soon = [("BLIP2_RECONNECT_TIMEOUT", "5"), ("BLIP2_JOIN_TIMEOUT", "15")];
    let job = submit_run(slurm, &run, &program.path, &soon);
    job.wait_until_it_says(slurm, "drill forward@6");
    program.waits_at([9], 4000);
    slurm.cut_power(NODES[0], &job.number);
    let is_back = || (slurm.of_job(&job.number, "Restarts") == "1").then_some(());
    assert!(poll(is_back).is_some(), "it is not put back:\n{}\n{}", read(&job.log), slurm.last_words());
    slurm.start_node(NODES[0]);

    job.wait_until_it_says(slurm, "drill forward@9");
    slurm.must(&["scancel", &job.number]);
    slurm.wait_for_state(&job.number, "CANCELLED", &job.log);
    let saved = poll(|| job.says("stopped after checkpoint").then_some(()));
    assert!(saved.is_some(), "{}", read(&job.log));
    assert!(!job.says("goes back to the queue"), "{}", read(&job.log));
    assert_eq!(slurm.of_job(&job.number, "Restarts"), "1");

    let again = submit_run(slurm, &run, binary().to_str().unwrap(), &[]);
    slurm.wait_for_state(&again.number, "COMPLETED", &again.log);
    assert_eq!(&run.digest(), expected);
}

/// Preemption: a job of a partition that goes first needs both hosts. The script is told, the run is saved,
/// and goes on when that job is done.
fn it_makes_way_for_an_urgent_job(slurm: &Slurm, expected: &(String, u64)) {
    let run = small_run();
    let program = Program::new(run.scratch());
    program.waits_at([6], 4000);
    let job = submit_run(slurm, &run, &program.path, &[]);
    job.wait_until_it_says(slurm, "drill forward@6");
    program.waits_at([], 0);
    let (script, log) = (run.scratch().join("urgent.sh"), run.scratch().join("urgent.log"));
    std::fs::write(&script, "#!/bin/sh\nsleep 2\n").unwrap();
    let (partition, output) = (format!("--partition={URGENT}"), format!("--output={}", log.display()));
    let options = [&partition, "--nodes=2", "--exclusive", "--time=5", &output];
    let urgent = slurm.submit(&options, script.to_str().unwrap(), &[], &[]);
    // Slurm tells it every few seconds: the run is saved all the same.
    job.wait_until_it_says(slurm, "stopped after checkpoint");
    assert!(!job.says("ended at once"), "{}", read(&job.log));
    slurm.wait_for_state(&urgent, "COMPLETED", &log);
    slurm.wait_for_state(&job.number, "COMPLETED", &job.log);
    assert_eq!(slurm.of_job(&job.number, "Restarts"), "1", "{}", read(&job.log));
    assert_eq!(&run.digest(), expected);
}
