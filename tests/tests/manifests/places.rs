//! Who reaches whom, and what lies where.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::rendered::{Pods, Rendered, list, selects, text, texts};

/// What is made once by hand, as docs/kubernetes.md says, and outlasts a run.
pub(crate) const MADE_BY_HAND: [&str; 4] = ["blip2-token", "blip2-tls", "blip2-object-store", "blip2-data"];
/// Set on a run's pods, so that another run's selectors leave them alone.
const INSTANCE: &str = "app.kubernetes.io/instance";

/// What an object selects pods by.
fn selector(object: &Value) -> Option<&Value> {
    match text(object, "/kind") {
        "Service" => object.pointer("/spec/selector"),
        "PodDisruptionBudget" => object.pointer("/spec/selector/matchLabels"),
        "NetworkPolicy" => object.pointer("/spec/podSelector/matchLabels"),
        _ => None,
    }
}

/// Selectors find pods, of their own run alone, and a budget those of one Job.
pub(crate) fn selectors(rendered: &Rendered) -> Vec<String> {
    let pods = rendered.pods();
    let mut faults = Vec::new();
    for object in rendered.objects().filter(|_| !pods.is_empty()) {
        let kind = text(object, "/kind");
        if !matches!(kind, "Service" | "PodDisruptionBudget" | "NetworkPolicy") {
            continue;
        }
        let labels = selector(object);
        let found: Vec<_> = pods.iter().filter(|pods| selects(labels, pods.labels())).collect();
        let right = if kind == "PodDisruptionBudget" { found.len() == 1 } else { !found.is_empty() };
        if !right {
            faults.push(format!("{kind} {} selects {} Jobs", object["metadata"]["name"], found.len()));
        }
        let of_a_run = found.iter().any(|pods| pods.labels().get(INSTANCE).is_some());
        if of_a_run && labels.is_none_or(|labels| labels.get(INSTANCE).is_none()) {
            faults.push(format!("{kind} {} selects other runs' pods", object["metadata"]["name"]));
        }
    }
    let of_a_run = pods.iter().any(|pods| pods.labels().get(INSTANCE).is_some());
    for pods in &pods {
        if of_a_run && pods.labels().get(INSTANCE).is_none() {
            faults.push(format!("pods of {} lack the run's label", pods.component()));
        }
        if !policed(rendered, pods) {
            faults.push(format!("anybody reaches pods of {}", pods.component()));
        }
        let spread = list(pods.spec(), "/topologySpreadConstraints").iter();
        let near = list(pods.spec(), "/affinity/podAffinity/preferredDuringSchedulingIgnoredDuringExecution");
        for term in spread.chain(near.iter().map(|term| &term["podAffinityTerm"])) {
            let own = selects(term.pointer("/labelSelector/matchLabels"), pods.labels());
            if !own || !texts(term, "/matchLabelKeys").contains(&"batch.kubernetes.io/controller-uid") {
                faults.push(format!("pods of {} are placed by others", pods.component()));
            }
        }
    }
    faults
}

fn policed(rendered: &Rendered, pods: &Pods<'_>) -> bool {
    rendered.objects_of("NetworkPolicy").any(|policy| {
        texts(policy, "/spec/policyTypes").contains(&"Ingress") && selects(selector(policy), pods.labels())
    })
}

/// A port's number by its name.
fn port(pods: &Pods<'_>, name: &Value) -> Option<u64> {
    let mut ports = list(pods.container(), "/ports").iter();
    ports.find(|port| port["name"] == *name)?["containerPort"].as_u64()
}

/// Ports that are named are there. Members reach members, the namespace `monitoring` the metrics, and nobody
/// anything else.
pub(crate) fn ports(rendered: &Rendered) -> Vec<String> {
    let pods = rendered.pods();
    let mut faults = Vec::new();
    for service in rendered.objects_of("Service") {
        for behind in pods.iter().filter(|pods| selects(selector(service), pods.labels())) {
            for offered in list(service, "/spec/ports") {
                if port(behind, &offered["targetPort"]) != offered["port"].as_u64() {
                    faults.push(format!("{} is no port of {}", offered["targetPort"], behind.component()));
                }
            }
        }
    }
    for pods in &pods {
        let domain = text(pods.spec(), "/subdomain");
        let served = rendered.object("Service", domain).is_some_and(|service| {
            service["spec"]["clusterIP"] == "None"
                && service["spec"]["publishNotReadyAddresses"] == true
                && selects(selector(service), pods.labels())
        });
        if !domain.is_empty() && !served {
            faults.push(format!("{domain} gives pods of {} no names", pods.component()));
        }
        if pods.component() == "coordinator" && domain.is_empty() && !pods.has_own_domain() {
            faults.push("coordinators have no names".to_owned());
        }
    }
    let mut reached = BTreeSet::new();
    for policy in rendered.objects_of("NetworkPolicy") {
        for rule in list(policy, "/spec/ingress") {
            let (from, open) = (list(rule, "/from"), list(rule, "/ports"));
            if from.is_empty() || open.is_empty() {
                faults.push("anybody may come, or to any port".to_owned());
            }
            for port in open {
                for from in from {
                    let member = selects(from.pointer("/podSelector/matchLabels"), pods[0].labels())
                        || pods
                            .iter()
                            .any(|pods| selects(from.pointer("/podSelector/matchLabels"), pods.labels()));
                    let watches = text(from, "/namespaceSelector/matchLabels/kubernetes.io~1metadata.name")
                        == "monitoring";
                    let right = match text(port, "/port") {
                        "grpc" | "exchange" => member && !watches,
                        "metrics" => watches && from.get("podSelector").is_none(),
                        _ => false,
                    };
                    if !right {
                        faults.push(format!("{} may reach {}", from, port["port"]));
                    }
                }
                reached.insert(text(port, "/port"));
            }
        }
    }
    for pods in &pods {
        for port in list(pods.container(), "/ports") {
            if !reached.contains(text(port, "/name")) {
                faults.push(format!("nobody reaches {} of {}", port["name"], pods.component()));
            }
        }
    }
    faults
}

/// Volumes are there and used, files that arguments name are on them, and there is a place to write.
pub(crate) fn volumes(rendered: &Rendered) -> Vec<String> {
    let mut faults = Vec::new();
    for pods in rendered.pods() {
        let mut wrong = |fault: String| faults.push(format!("{}: {fault}", pods.component()));
        let volumes = list(pods.spec(), "/volumes");
        let mounts = list(pods.container(), "/volumeMounts");
        let names =
            |of: &[Value]| of.iter().map(|one| text(one, "/name").to_owned()).collect::<BTreeSet<_>>();
        if names(volumes) != names(mounts) {
            wrong(format!("volumes {:?}, mounts {:?}", names(volumes), names(mounts)));
        }
        for volume in volumes {
            for (source, kind) in [
                ("/configMap/name", "ConfigMap"),
                ("/secret/secretName", "Secret"),
                ("/persistentVolumeClaim/claimName", "PersistentVolumeClaim"),
            ] {
                let name = text(volume, source);
                if !name.is_empty() && rendered.object(kind, name).is_none() && !MADE_BY_HAND.contains(&name)
                {
                    wrong(format!("there is no {kind} {name}"));
                }
            }
        }
        let account = text(pods.spec(), "/serviceAccountName");
        if rendered.object("ServiceAccount", account).is_none() {
            wrong(format!("there is no ServiceAccount {account}"));
        }
        let on_a_mount = |path: &str| {
            let mount =
                mounts.iter().find(|mount| path.starts_with(&format!("{}/", text(mount, "/mountPath"))));
            mount.and_then(|mount| volumes.iter().find(|volume| volume["name"] == mount["name"]))
        };
        for word in texts(pods.container(), "/args") {
            // `--token-file=/token/token`, `--set=tls.ca=/tls/ca.crt`
            let Some((_, path)) = word.rsplit_once('=').filter(|(_, value)| value.starts_with('/')) else {
                continue;
            };
            if on_a_mount(path).is_none() {
                wrong(format!("{word} is on no volume"));
            }
        }
        for variable in list(pods.container(), "/env") {
            let (name, value) = (text(variable, "/name"), text(variable, "/value"));
            let folder = on_a_mount(&format!("{value}/"));
            if value.starts_with('/') && folder.is_none_or(|volume| volume.get("emptyDir").is_none()) {
                wrong(format!("{name} is no place to write"));
            }
            if !text(variable, "/valueFrom/secretKeyRef/name").is_empty() {
                wrong(format!("{name} has a secret"));
            }
        }
        for from in list(pods.container(), "/envFrom") {
            if !MADE_BY_HAND.contains(&text(from, "/secretRef/name")) {
                wrong(format!("there is no {from}"));
            }
        }
        if on_a_mount("/tmp/").is_none_or(|volume| volume.get("emptyDir").is_none()) {
            wrong("temporary files have no place".to_owned());
        }
        if pods.spec()["enableServiceLinks"] != false {
            wrong("other Services' variables are in its environment".to_owned());
        }
    }
    faults
}
