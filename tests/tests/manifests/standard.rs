//! The restricted Pod Security Standard, and what goes beyond it: a root that cannot be written, and no token
//! of the cluster.

use serde_json::{Value, json};

use crate::images;
use crate::rendered::{Rendered, list, text};

/// Kinds of volumes that the standard allows.
const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Every pod keeps the standard, every object is in a namespace, every image is named by its bytes.
pub(crate) fn restricted(rendered: &Rendered) -> Vec<String> {
    let mut faults = Vec::new();
    for object in rendered.objects() {
        let (kind, name) = (text(object, "/kind"), text(object, "/metadata/name"));
        if kind == "Namespace" {
            if text(object, "/metadata/labels/pod-security.kubernetes.io~1enforce") != "restricted" {
                faults.push(format!("{name} does not enforce the standard"));
            }
        } else if text(object, "/metadata/namespace") != "blip2" {
            faults.push(format!("{kind} {name} is in another namespace"));
        }
    }
    for pods in rendered.pods() {
        let (spec, container) = (pods.spec(), pods.container());
        let mut must = |what: &str, holds: bool| {
            if !holds {
                faults.push(format!("{}: {what}", pods.component()));
            }
        };
        let shared = ["hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"];
        must("shares the host, or has containers besides", shared.iter().all(|key| spec.get(key).is_none()));
        let security = &spec["securityContext"];
        must("may be root", security["runAsNonRoot"] == true);
        for key in ["runAsUser", "runAsGroup", "fsGroup"] {
            must("has another user than its image", security[key] == images::USER);
        }
        must(
            "system calls are not filtered",
            security["seccompProfile"] == json!({"type": "RuntimeDefault"}),
        );
        must("has the cluster's token", spec["automountServiceAccountToken"] == false);
        // Exactly this, so that nothing in it takes back what the pod's says.
        let allowed = json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        });
        must("the container may do more", container["securityContext"] == allowed);
        must(
            "a port of the host",
            list(container, "/ports").iter().all(|port| port.get("hostPort").is_none()),
        );
        let known = |volume: &Value| {
            let mut kinds = volume.as_object().into_iter().flat_map(|fields| fields.keys());
            kinds.all(|kind| kind == "name" || VOLUMES.contains(&kind.as_str()))
        };
        must("a volume of the host", list(spec, "/volumes").iter().all(known));
        let digest = text(container, "/image").split_once("@sha256:");
        must("the image may change", digest.is_some_and(|(_, digest)| digest.len() == 64));
    }
    faults
}
