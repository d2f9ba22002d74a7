//! Jobs as a cluster has them: places that are filled again, rules for exit codes, success, suspension,
//! scale.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use blip2_tests::process::signal;
use serde_json::Value;

use super::node::{Node, Started};
use crate::rendered::{Pods, Rendered, list, text};

/// All Jobs of a run, and the machine that they run on.
#[derive(Debug)]
pub(super) struct Jobs {
    rendered: Rendered,
    jobs: Vec<Job>,
    /// Of worker 0 when it is first started.
    drill: Option<String>,
    node: Node,
}

#[derive(Debug)]
struct Job {
    component: &'static str,
    places: u64,
    suspended: bool,
    complete: bool,
    done: BTreeSet<u64>,
    failures: u64,
    pods: Vec<Pod>,
    /// Exit codes in the order of the ends; `None` for a signal.
    codes: Vec<Option<i32>>,
    /// What was said by those who have ended.
    told: String,
}

#[derive(Debug)]
struct Pod {
    index: u64,
    started: Started,
    /// Its node was drained.
    disrupted: bool,
    /// When it is killed.
    until: Option<Instant>,
}

/// What is done to a pod.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sent {
    /// Its node is drained.
    Drain,
    /// It is deleted, with so much time.
    Delete(Duration),
    /// It does not run on, and hears nothing.
    Freeze,
}

impl Jobs {
    /// Starts nothing yet.
    pub(super) fn new(rendered: Rendered, node: Node, drill: Option<String>) -> Self {
        let job = |component: &'static str| Job {
            component,
            places: rendered.component(component).expect("it has such pods").places(),
            suspended: false,
            complete: false,
            done: BTreeSet::new(),
            failures: 0,
            pods: Vec::new(),
            codes: Vec::new(),
            told: String::new(),
        };
        let jobs = ["coordinator", "worker"].map(job).into();
        Self { rendered, jobs, drill, node }
    }

    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    pub(super) fn rendered(&self) -> &Rendered {
        &self.rendered
    }

    fn job(&self, component: &str) -> &Job {
        self.jobs.iter().find(|job| job.component == component).expect("a Job")
    }

    fn job_mut(&mut self, component: &str) -> &mut Job {
        self.jobs.iter_mut().find(|job| job.component == component).expect("a Job")
    }

    /// Whether all are.
    pub(super) fn is_complete(&self) -> bool {
        self.jobs.iter().all(|job| job.complete && job.pods.is_empty())
    }

    /// Exit codes of the pods that have ended.
    pub(super) fn codes(&self, component: &str) -> Vec<Option<i32>> {
        self.job(component).codes.clone()
    }

    /// Names and processes of the pods that run.
    pub(super) fn pods(&self) -> Vec<(String, u32)> {
        let of = |job: &Job| -> Vec<(String, u32)> {
            job.pods
                .iter()
                .map(|pod| (format!("{} {}", job.component, pod.index), pod.started.process.id()))
                .collect()
        };
        self.jobs.iter().flat_map(of).collect()
    }

    /// Whether the pod of this place has said this.
    pub(super) fn says(&self, component: &str, index: u64, words: &str) -> bool {
        let pod = self.job(component).pods.iter().find(|pod| pod.index == index);
        pod.is_some_and(|pod| pod.started.process.stderr().contains(words))
    }

    /// What the pods that run answer to a probe.
    pub(super) fn probed(&self, probe: &str) -> Vec<String> {
        let of = |job: &Job| -> Vec<String> {
            let pods = self.rendered.component(job.component).expect("it has such pods");
            job.pods.iter().map(|pod| self.node.probed(&pods, probe, &pod.started)).collect()
        };
        self.jobs.iter().flat_map(of).collect()
    }

    /// What all pods have said.
    pub(super) fn told(&self) -> String {
        let mut told = String::new();
        for job in &self.jobs {
            told += &job.told;
            for pod in &job.pods {
                told += &format!(
                    "{} {}, which runs:\n{}\n",
                    job.component,
                    pod.index,
                    pod.started.process.stderr()
                );
            }
        }
        told
    }

    pub(super) fn suspend(&mut self, suspended: bool) {
        self.jobs.iter_mut().for_each(|job| job.suspended = suspended);
    }

    pub(super) fn scale(&mut self, component: &str, places: u64) {
        self.job_mut(component).places = places;
    }

    /// Does this to the pod of a place.
    pub(super) fn send(&mut self, component: &'static str, index: u64, what: Sent) {
        let grace = self.grace(component);
        let pod = self.job_mut(component).pods.iter_mut().find(|pod| pod.index == index).expect("a pod");
        match what {
            Sent::Freeze => signal(pod.started.process.id(), "STOP"),
            Sent::Drain => {
                pod.disrupted = true;
                pod.leave(grace);
            }
            Sent::Delete(grace) => pod.leave(grace),
        }
    }

    fn grace(&self, component: &str) -> Duration {
        let pods = self.rendered.component(component).expect("it has such pods");
        Duration::from_secs(pods.spec()["terminationGracePeriodSeconds"].as_u64().expect("a time"))
    }

    /// Lets Jobs do their work until there is an answer.
    pub(super) fn until<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        let began = Instant::now();
        while began.elapsed() < within {
            self.tick();
            if let Some(answer) = look(self) {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("not in time: {what}\n{}", self.told());
    }

    /// Until a worker is at the place of its drill.
    pub(super) fn until_at(&mut self, place: &str) {
        let line = format!("drill {place}");
        self.until(&line, blip2_tests::process::DEADLINE, |jobs| {
            let workers = &jobs.job("worker").pods;
            workers.iter().any(|pod| pod.started.process.stderr().contains(&line)).then_some(())
        });
    }

    /// One look of the controllers at their pods.
    fn tick(&mut self) {
        for at in 0..self.jobs.len() {
            let component = self.jobs[at].component;
            let grace = self.grace(component);
            let pods = self.rendered.component(component).expect("it has such pods");
            let job = &mut self.jobs[at];
            job.reap(&pods);
            for pod in &mut job.pods {
                let wanted = !job.complete && !job.suspended && pod.index < job.places;
                if !wanted {
                    pod.leave(grace);
                }
                if pod.until.is_some_and(|until| Instant::now() >= until) {
                    signal(pod.started.process.id(), "KILL");
                    pod.until = None;
                }
            }
            if job.complete || job.suspended {
                continue;
            }
            for index in 0..job.places {
                if job.done.contains(&index) || job.pods.iter().any(|pod| pod.index == index) {
                    continue;
                }
                let drill = (component == "worker" && index == 0).then(|| self.drill.take()).flatten();
                let started = self.node.start(&self.rendered, &pods, index, drill.as_deref());
                job.pods.push(Pod { index, started, disrupted: false, until: None });
            }
        }
    }
}

impl Pod {
    /// Asked once; killed when the time is up.
    fn leave(&mut self, grace: Duration) {
        if self.until.is_none() {
            signal(self.started.process.id(), "TERM");
            self.until = Some(Instant::now() + grace);
        }
    }
}

impl Job {
    /// Takes note of the pods that have ended.
    fn reap(&mut self, pods: &Pods<'_>) {
        for mut pod in std::mem::take(&mut self.pods) {
            if !pod.started.process.has_ended() {
                self.pods.push(pod);
                continue;
            }
            let Started { process, host, address } = pod.started;
            let ended = process.wait();
            self.told += &format!(
                "{} {} at {address} {host:?} ended with {:?}:\n{}\n",
                self.component, pod.index, ended.code, ended.stderr
            );
            self.codes.push(ended.code);
            if ended.code == Some(0) {
                self.done.insert(pod.index);
            } else {
                self.fails(pods, ended.code, pod.disrupted);
            }
        }
        let enough =
            list(pods.job, "/successPolicy/rules").first().and_then(|rule| rule["succeededCount"].as_u64());
        let done = self.done.iter().filter(|index| **index < self.places).count() as u64;
        self.complete |= done >= enough.unwrap_or(self.places);
    }

    /// The first rule that holds decides; without one it is a failure that is counted.
    fn fails(&mut self, pods: &Pods<'_>, code: Option<i32>, disrupted: bool) {
        let holds = |rule: &&Value| {
            let condition =
                list(rule, "/onPodConditions").iter().any(|one| one["type"] == "DisruptionTarget");
            let codes = list(rule, "/onExitCodes/values");
            (disrupted && condition) || code.is_some_and(|code| codes.iter().any(|one| *one == code))
        };
        match list(pods.job, "/podFailurePolicy/rules").iter().find(holds).map(|rule| text(rule, "/action")) {
            Some("Ignore") => {}
            Some("FailJob") => panic!("the Job failed\n{}", self.told),
            _ => {
                self.failures += 1;
                let limit = pods.job["backoffLimit"].as_u64().expect("a limit");
                assert!(self.failures <= limit, "too many failures\n{}", self.told);
            }
        }
    }
}
