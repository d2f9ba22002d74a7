//! What scrapes the pods where the Prometheus Operator runs.

use std::collections::BTreeSet;

use crate::rendered::{Rendered, list, selects, text};

/// The label by which runs are told apart, on pods and, as `job`, in dashboard and alerts.
const INSTANCE: &str = "app.kubernetes.io/instance";
/// What the metrics' port is called, and where they are.
const METRICS: (&str, &str) = ("metrics", "/metrics");

/// A PodMonitor selects all pods of its run and of no other, and asks each of them for its metrics on a port
/// that is there; there is one at most, or numbers would be there twice.
pub(crate) fn monitors(rendered: &Rendered) -> Vec<String> {
    let pods = rendered.pods();
    let mut faults = Vec::new();
    let monitors: Vec<_> = rendered.objects_of("PodMonitor").collect();
    if monitors.len() > 1 {
        faults.push(format!("{} objects scrape the same pods", monitors.len()));
    }
    for monitor in monitors {
        let mut must = |what: String, holds: bool| {
            if !holds {
                faults.push(what);
            }
        };
        must("of another API".into(), text(monitor, "/apiVersion") == "monitoring.coreos.com/v1");
        must("runs cannot be told apart by `job`".into(), text(monitor, "/spec/jobLabel") == INSTANCE);
        let labels = monitor.pointer("/spec/selector/matchLabels");
        must(
            "it selects other runs' pods".into(),
            labels.is_some_and(|labels| labels.get(INSTANCE).is_some()),
        );
        let endpoints = list(monitor, "/spec/podMetricsEndpoints");
        must(format!("{} endpoints", endpoints.len()), endpoints.len() == 1);
        for pods in &pods {
            let name = pods.component();
            must(format!("it does not select pods of {name}"), selects(labels, pods.labels()));
            let offered: BTreeSet<&str> =
                list(pods.container(), "/ports").iter().map(|port| text(port, "/name")).collect();
            for endpoint in endpoints {
                let (port, path) = (text(endpoint, "/port"), text(endpoint, "/path"));
                must(format!("{port} is no port of {name}"), offered.contains(port));
                must(format!("{port} {path} has no metrics"), (port, path) == METRICS);
            }
        }
    }
    faults
}
