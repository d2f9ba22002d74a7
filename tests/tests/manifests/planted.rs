//! Faults, each with the policy that must see it.

/// One change of rendered objects.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Who must see it.
    pub(crate) policy: &'static str,
    /// Where.
    pub(crate) folder: &'static str,
    /// The object's kind.
    pub(crate) kind: &'static str,
    /// The beginning of its name.
    pub(crate) name: &'static str,
    /// A JSON pointer.
    pub(crate) at: &'static str,
    /// JSON that takes the place of what is there; `null` takes it away.
    pub(crate) to: &'static str,
}

const RUN: &str = "k8s/overlays/example";
const QUEUED: &str = "k8s/overlays/queued";
const CURATION: &str = "k8s/overlays/curation";

const fn fault(
    policy: &'static str,
    folder: &'static str,
    (kind, name): (&'static str, &'static str),
    at: &'static str,
    to: &'static str,
) -> Fault {
    Fault { policy, folder, kind, name, at, to }
}

const COORDINATOR: (&str, &str) = ("Job", "blip2-coordinator");
const WORKER: (&str, &str) = ("Job", "blip2-worker");
const CURATE: (&str, &str) = ("Job", "blip2-curation");
const SET: (&str, &str) = ("JobSet", "blip2");
const MONITOR: (&str, &str) = ("PodMonitor", "blip2");

/// All that is planted.
pub(crate) const FAULTS: [Fault; 45] = [
    fault(
        "probes",
        RUN,
        WORKER,
        "/spec/template/spec/containers/0/readinessProbe/httpGet/port",
        r#""exchange""#,
    ),
    fault(
        "probes",
        RUN,
        WORKER,
        "/spec/template/spec/containers/0/livenessProbe/httpGet/path",
        r#""/readyz""#,
    ),
    fault("probes", RUN, COORDINATOR, "/spec/template/spec/containers/0/livenessProbe", "null"),
    fault("probes", RUN, COORDINATOR, "/spec/template/spec/containers/0/ports/1/containerPort", "7301"),
    fault("jobs", RUN, WORKER, "/spec/completionMode", "null"),
    fault("jobs", RUN, WORKER, "/spec/parallelism", "7"),
    fault("jobs", RUN, WORKER, "/spec/backoffLimit", "6"),
    fault("jobs", RUN, COORDINATOR, "/spec/successPolicy", "null"),
    fault("jobs", RUN, COORDINATOR, "/spec/podReplacementPolicy", r#""TerminatingOrFailed""#),
    fault("jobs", RUN, COORDINATOR, "/spec/template/spec/restartPolicy", r#""OnFailure""#),
    fault("jobs", RUN, COORDINATOR, "/spec/template/spec/topologySpreadConstraints", "[]"),
    fault("jobs", RUN, WORKER, "/spec/template/spec/terminationGracePeriodSeconds", "5"),
    fault("exit codes", RUN, WORKER, "/spec/podFailurePolicy/rules/0", r#"{"action": "Count"}"#),
    fault("exit codes", RUN, WORKER, "/spec/podFailurePolicy/rules/1/onExitCodes/values", "[4]"),
    fault(
        "exit codes",
        QUEUED,
        SET,
        "/spec/replicatedJobs/1/template/spec/podFailurePolicy/rules/2/action",
        r#""Count""#,
    ),
    fault("resources", RUN, WORKER, "/spec/template/spec/containers/0/resources/limits/memory", "null"),
    fault("resources", RUN, WORKER, "/spec/template/spec/tolerations", "[]"),
    fault(
        "resources",
        RUN,
        COORDINATOR,
        "/spec/template/spec/containers/0/resources/limits/nvidia.com~1gpu",
        r#""1""#,
    ),
    fault("resources", RUN, WORKER, "/spec/template/spec/volumes/0/emptyDir", "{}"),
    fault("commands", RUN, WORKER, "/spec/template/spec/containers/0/args/1", r#""works""#),
    fault("commands", RUN, WORKER, "/spec/template/spec/containers/0/env/2/name", r#""ADDRESS""#),
    fault("commands", RUN, COORDINATOR, "/spec/template/spec/containers/0/args/3", r#""--listen=[::]:7101""#),
    fault(
        "coordinators are found",
        RUN,
        WORKER,
        "/spec/template/spec/containers/0/env/0/value",
        r#""blip2-coordinator""#,
    ),
    fault("coordinators are found", RUN, COORDINATOR, "/spec/template/spec/subdomain", r#""blip2""#),
    fault("coordinators are found", RUN, COORDINATOR, "/spec/completions", "3"),
    fault("coordinators are found", QUEUED, SET, "/spec/network/subdomain", r#""other""#),
    fault(
        "configuration",
        RUN,
        ("ConfigMap", "blip2-run"),
        "/data/run.toml",
        r#""base = \"/opt/blip2/configs/none.toml\"\n""#,
    ),
    fault(
        "configuration",
        RUN,
        COORDINATOR,
        "/spec/template/spec/containers/0/args/9",
        r#""--set=tls.authority=/tls/ca.crt""#,
    ),
    fault("numbers of members", RUN, WORKER, "/spec/completions", "9"),
    fault("numbers of members", RUN, ("PodDisruptionBudget", "blip2-worker"), "/spec/minAvailable", "3"),
    fault("numbers of members", CURATION, CURATE, "/spec/completions", "4"),
    fault(
        "selectors",
        RUN,
        ("PodDisruptionBudget", "blip2-worker"),
        "/spec/selector/matchLabels/app.kubernetes.io~1component",
        "null",
    ),
    fault(
        "selectors",
        RUN,
        ("NetworkPolicy", "blip2"),
        "/spec/podSelector/matchLabels/app.kubernetes.io~1instance",
        "null",
    ),
    fault(
        "selectors",
        QUEUED,
        SET,
        "/spec/replicatedJobs/0/template/spec/template/metadata/labels/app.kubernetes.io~1instance",
        "null",
    ),
    fault("ports", RUN, ("NetworkPolicy", "blip2"), "/spec/ingress/0/from", "[]"),
    fault("ports", RUN, ("Service", "blip2-coordinator"), "/spec/ports/0/targetPort", r#""exchange""#),
    fault("monitors", QUEUED, MONITOR, "/spec/podMetricsEndpoints/0/port", r#""grpc""#),
    fault("monitors", QUEUED, MONITOR, "/spec/selector/matchLabels/app.kubernetes.io~1instance", "null"),
    fault(
        "monitors",
        QUEUED,
        MONITOR,
        "/spec/selector/matchLabels/app.kubernetes.io~1component",
        r#""coordinator""#,
    ),
    fault("monitors", QUEUED, MONITOR, "/spec/jobLabel", r#""app.kubernetes.io/name""#),
    fault(
        "monitors",
        QUEUED,
        SET,
        "/spec/replicatedJobs/1/template/spec/template/spec/containers/0/ports/1/name",
        r#""numbers""#,
    ),
    fault(
        "volumes",
        RUN,
        COORDINATOR,
        "/spec/template/spec/containers/0/volumeMounts/2/mountPath",
        r#""/config""#,
    ),
    fault("volumes", RUN, COORDINATOR, "/spec/template/spec/volumes/2/configMap/name", r#""blip2-run""#),
    fault(
        "restricted standard",
        RUN,
        WORKER,
        "/spec/template/spec/containers/0/securityContext/capabilities/drop",
        "[]",
    ),
    fault("restricted standard", RUN, WORKER, "/spec/template/spec/securityContext/runAsUser", "0"),
];
