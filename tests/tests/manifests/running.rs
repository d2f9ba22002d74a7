//! The pods of `k8s/overlays/small`, run as processes: one network namespace and one read-only root a pod,
//! with the commands, the environment and the volumes that `kubectl` renders, as the user they name, and Jobs
//! that do what a cluster's do. It is no cluster: no API server, no scheduler and no kubelet is in this.

mod jobs;
mod network;
mod node;

use std::path::PathBuf;
use std::time::Duration;

use blip2_run::epoch::EpochRecord;
use blip2_tests::need::Need;
use blip2_tests::process::{DEADLINE, blip2, finish, repository};

use crate::rendered::{Rendered, text};
use jobs::{Jobs, Sent};
use network::Network;
use node::Node;

const FOLDER: &str = "k8s/overlays/small";
/// Steps of both stages.
const TOTAL: u64 = 12;
/// What makes the run short; the rest of the configuration is the rendered one.
const SHORT: &str = "stage1.steps = 6\nstage1.batch = 8\nstage1.optimizer.warmup_steps = 2\n\
    stage2.steps = 6\nstage2.batch = 8\nstage2.optimizer.warmup_steps = 2\ncheckpoint.every_steps = 3\n";
/// The first worker waits in this step: time for what is done to the run.
const IN_A_STEP: &str = "reduction@4";

/// The run on its cluster; `None`, with a printed word, where this machine lacks what it takes.
fn started(drill_ms: u64) -> Option<Jobs> {
    let Some(mut rendered) = Rendered::of(FOLDER) else {
        Need::Kubectl.skip();
        return None;
    };
    rendered.shorten(SHORT);
    let network = Network::new().map_err(Need::skip).ok()?;
    let drill = (drill_ms > 0).then(|| format!("{IN_A_STEP}:{drill_ms}"));
    Some(Jobs::new(rendered, Node::new(network), drill))
}

/// What the run has stored.
struct Stored(PathBuf);

impl Stored {
    fn of(jobs: &Jobs) -> Self {
        Self(jobs.node().data().join("runs/small"))
    }

    /// All epochs in order.
    fn epochs(&self) -> Vec<EpochRecord> {
        let object =
            |number: u64| std::fs::read(self.0.join("epochs").join(format!("{number:010}.json"))).ok();
        (1..).map_while(object).filter_map(|content| EpochRecord::parse("epoch", &content).ok()).collect()
    }

    /// Members of the newest epoch, and its coordinator's URL.
    fn newest(&self) -> (usize, String) {
        self.epochs().pop().map_or((0, String::new()), |epoch| (epoch.members.len(), epoch.address))
    }

    /// The newest checkpoint's digest and step, after an audit that is exact.
    fn digest(&self) -> String {
        let root = self.0.to_str().expect("UTF-8");
        finish(blip2(&["audit", root])).expect(0);
        finish(blip2(&["checkpoint", "digest", root])).expect(0).stdout
    }
}

/// The digest of the same configuration, trained by one process on this machine.
fn undisturbed(jobs: &Jobs) -> String {
    let node = jobs.node();
    let root = node.scratch().join("undisturbed");
    let config = node.scratch().join("undisturbed.toml");
    let toml =
        jobs.rendered().objects_of("ConfigMap").map(|map| text(map, "/data/run.toml")).next().expect("one");
    let here = toml
        .replace("/data/runs/small", &root.display().to_string())
        .replace("/data/", &format!("{}/", node.data().display()))
        .replace("/opt/blip2/configs/", &format!("{}/configs/", repository().display()));
    std::fs::write(&config, here).expect("the configuration is written");
    finish(blip2(&["train", "--workers", "1", "--config", config.to_str().expect("UTF-8")])).expect(0);
    Stored(root).digest()
}

/// The place of the coordinator that leads.
fn leads(stored: &Stored) -> u64 {
    u64::from(stored.newest().1.contains("-1.blip2-coordinator-"))
}

fn ends_as_undisturbed(jobs: &mut Jobs, stored: &Stored) {
    jobs.until("both Jobs are complete", DEADLINE, |jobs| jobs.is_complete().then_some(()));
    let digest = stored.digest();
    assert_eq!(digest, undisturbed(jobs), "{}", jobs.told());
    assert!(digest.trim_end().ends_with(&format!("  {TOTAL}")), "{digest}");
}

#[test]
fn pods_run_to_the_end_as_nobody_with_a_root_that_cannot_be_written() {
    let Some(mut jobs) = started(1500) else { return };
    jobs.until_at(IN_A_STEP);
    for (name, process) in jobs.pods() {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
        for line in ["Uid:\t10001\t10001\t10001\t10001", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
            assert!(status.contains(line), "{name} has no `{line}` in {status}");
        }
        let mounts = std::fs::read_to_string(format!("/proc/{process}/mountinfo")).expect("it runs");
        let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).expect("it has a root");
        assert!(
            root.split(' ').nth(5).is_some_and(|options| options.split(',').any(|one| one == "ro")),
            "{root}"
        );
    }
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let answers = jobs.probed(probe);
        assert_eq!(answers, ["HTTP/1.1 200 OK"; 4], "{probe}\n{}", jobs.told());
    }
    let stored = Stored::of(&jobs);
    ends_as_undisturbed(&mut jobs, &stored);
    assert!(jobs.codes("worker").iter().all(|code| *code == Some(0)), "{}", jobs.told());
}

#[test]
fn drained_coordinators_and_a_worker_that_outlasts_its_grace_cost_no_bit() {
    let Some(mut jobs) = started(12_000) else { return };
    let stored = Stored::of(&jobs);
    jobs.until_at(IN_A_STEP);
    // The leader's node is drained: the other one leads, the place is filled again.
    let leader = leads(&stored);
    jobs.send("coordinator", leader, Sent::Drain);
    jobs.until("the other one leads", DEADLINE, |_| (leads(&stored) != leader).then_some(()));
    jobs.until("its place is filled again", DEADLINE, |jobs| {
        let gone = jobs.codes("coordinator").len() == 1;
        (gone && jobs.says("coordinator", leader, "standing by for run")).then_some(())
    });
    // Now the one that stands by.
    jobs.send("coordinator", leader, Sent::Drain);
    jobs.until("it has gone", DEADLINE, |jobs| (jobs.codes("coordinator").len() == 2).then_some(()));
    assert_eq!(jobs.codes("coordinator"), [Some(5), Some(5)], "{}", jobs.told());
    // A worker that hears nothing any more is killed when its time is up, and its place filled again.
    jobs.send("worker", 1, Sent::Freeze);
    jobs.send("worker", 1, Sent::Delete(Duration::from_secs(1)));
    jobs.until("it is killed", DEADLINE, |jobs| (jobs.codes("worker") == [None]).then_some(()));
    ends_as_undisturbed(&mut jobs, &stored);
    let leaders: Vec<String> = stored.epochs().into_iter().map(|epoch| epoch.coordinator).collect();
    assert!(leaders.first() != leaders.last(), "{leaders:?}");
}

#[test]
fn a_suspended_run_saves_and_goes_on() {
    let Some(mut jobs) = started(2500) else { return };
    let stored = Stored::of(&jobs);
    jobs.until_at(IN_A_STEP);
    jobs.suspend(true);
    jobs.until("all have gone", DEADLINE, |jobs| jobs.pods().is_empty().then_some(()));
    for component in ["coordinator", "worker"] {
        assert_eq!(jobs.codes(component), [Some(5); 2], "{component}\n{}", jobs.told());
    }
    assert_eq!(stored.epochs().pop().and_then(|epoch| epoch.end).as_deref(), Some("interrupted"));
    jobs.suspend(false);
    ends_as_undisturbed(&mut jobs, &stored);
}

#[test]
fn a_run_is_scaled_from_two_to_three_to_one() {
    let Some(mut jobs) = started(12_000) else { return };
    let stored = Stored::of(&jobs);
    jobs.until_at(IN_A_STEP);
    jobs.scale("worker", 3);
    jobs.until("three are members", DEADLINE, |_| (stored.newest().0 == 3).then_some(()));
    jobs.scale("worker", 1);
    ends_as_undisturbed(&mut jobs, &stored);
    let sizes: Vec<usize> = stored.epochs().iter().map(|epoch| epoch.members.len()).collect();
    assert!(sizes.contains(&2) && sizes.contains(&3) && sizes.contains(&1), "{sizes:?}");
    assert!(jobs.codes("worker").iter().filter(|code| **code == Some(5)).count() == 2, "{}", jobs.told());
}
