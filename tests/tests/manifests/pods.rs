//! How pods are watched, counted and ended.

use blip2_run::exit::Exit;
use serde_json::{Value, json};

use crate::rendered::{Pods, Rendered, list, text};

/// What answers the kubelet and Prometheus.
const METRICS_PORT: u64 = 7300;

/// Faults of all pods.
fn of_all(rendered: &Rendered, look: impl Fn(&Pods<'_>, &mut Vec<String>)) -> Vec<String> {
    let mut faults = Vec::new();
    for pods in rendered.pods() {
        let mut found = Vec::new();
        look(&pods, &mut found);
        faults.extend(found.into_iter().map(|fault| format!("{}: {fault}", pods.component())));
    }
    faults
}

/// Probes go to the plain port, which is there; liveness asks for no progress.
pub(crate) fn probes(rendered: &Rendered) -> Vec<String> {
    of_all(rendered, |pods, faults| {
        let container = pods.container();
        let expected: &[(&str, &str)] = match pods.component() {
            "coordinator" | "worker" => {
                &[("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
            }
            "curation" => &[("startupProbe", "/livez"), ("livenessProbe", "/livez")],
            _ => &[],
        };
        for (probe, path) in expected {
            let asked = &container[*probe]["httpGet"];
            let port = list(container, "/ports").iter().find(|port| port["name"] == asked["port"]);
            if port.is_none_or(|port| port["containerPort"] != METRICS_PORT) {
                faults.push(format!("{probe} asks {}, which is no port of it", asked["port"]));
            }
            if text(asked, "/path") != *path {
                faults.push(format!("{probe} asks for {}", asked["path"]));
            }
        }
        let all = ["startupProbe", "livenessProbe", "readinessProbe"];
        if all.iter().filter(|probe| container.get(**probe).is_some()).count() != expected.len() {
            faults.push("other probes than expected".to_owned());
        }
    })
}

/// Jobs give a lost pod's place to another one, as often as it takes, and one place to one pod at a time.
pub(crate) fn jobs(rendered: &Rendered) -> Vec<String> {
    of_all(rendered, |pods, faults| {
        let mut must = |what: &str, holds: bool| {
            if !holds {
                faults.push(what.to_owned());
            }
        };
        let job = pods.job;
        must(
            "restartPolicy is not Never, so exit codes decide nothing",
            pods.spec()["restartPolicy"] == "Never",
        );
        must("another pod may start before the lost one is gone", job["podReplacementPolicy"] == "Failed");
        if pods.component() != "export" {
            must("pods have no numbers", pods.is_indexed());
            must("parallelism is not completions", job["parallelism"] == job["completions"]);
        }
        if matches!(pods.component(), "worker" | "curation") {
            must("backoffLimit ends a long run", job["backoffLimit"].as_u64() >= Some(1_000_000));
        }
        if pods.component() == "coordinator" {
            must(
                "the run is not done with one coordinator",
                job["successPolicy"] == json!({"rules": [{"succeededCount": 1}]}),
            );
            must("nobody stands by", pods.places() >= 2);
            let apart = list(pods.spec(), "/topologySpreadConstraints").iter().any(|spread| {
                spread["topologyKey"] == "kubernetes.io/hostname"
                    && spread["whenUnsatisfiable"] == "DoNotSchedule"
            });
            must("both may be on one host", apart);
        }
        must("no time to leave", pods.spec()["terminationGracePeriodSeconds"].as_u64() >= Some(25));
    })
}

/// A lost node is no failure, whatever the code; a place that was left is filled again; what only a person
/// can mend ends the Job.
pub(crate) fn exit_codes(rendered: &Rendered) -> Vec<String> {
    let for_a_person = [Exit::Usage, Exit::BadInput, Exit::BadConfig].map(Exit::code);
    of_all(rendered, |pods, faults| {
        let rules = list(pods.job, "/podFailurePolicy/rules");
        let first =
            json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
        if rules.first() != Some(&first) {
            faults.push("the first rule does not pass over lost nodes".to_owned());
        }
        let by_code = |action: &str| {
            let rule =
                rules.iter().find(|rule| rule["action"] == action && rule.get("onExitCodes").is_some());
            rule.map_or(Value::Null, |rule| rule["onExitCodes"].clone())
        };
        let codes =
            |values: &[u32]| json!({"containerName": pods.component(), "operator": "In", "values": values});
        if by_code("FailJob") != codes(&for_a_person) {
            faults.push(format!("{for_a_person:?} do not end the Job"));
        }
        if pods.component() != "export" && by_code("Ignore") != codes(&[Exit::Interrupted.code()]) {
            faults.push("whoever is asked to go counts as a failure".to_owned());
        }
        if text(pods.container(), "/name") != pods.component() {
            faults.push("the container has another name than the rules".to_owned());
        }
    })
}

/// Every pod says what it needs and where it ends, and does not take what it does not need.
pub(crate) fn resources(rendered: &Rendered) -> Vec<String> {
    of_all(rendered, |pods, faults| {
        let resources = &pods.container()["resources"];
        for (kind, names) in [
            ("requests", &["cpu", "memory", "ephemeral-storage"][..]),
            ("limits", &["memory", "ephemeral-storage"][..]),
        ] {
            for name in names {
                if resources[kind][name].as_str().is_none_or(str::is_empty) {
                    faults.push(format!("no {kind} of {name}"));
                }
            }
        }
        let card = resources["limits"].get("nvidia.com/gpu").is_some();
        if card && pods.component() == "coordinator" {
            faults.push("a coordinator computes nothing and takes a card".to_owned());
        }
        let tolerates = list(pods.spec(), "/tolerations").iter().any(|one| one["key"] == "nvidia.com/gpu");
        if card && !tolerates {
            faults.push("nodes with cards are kept free of it".to_owned());
        }
        for volume in list(pods.spec(), "/volumes") {
            if volume.get("emptyDir").is_some_and(|folder| folder.get("sizeLimit").is_none()) {
                faults.push(format!("{} may fill the node's disk", volume["name"]));
            }
        }
    })
}
