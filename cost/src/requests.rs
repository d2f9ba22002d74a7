//! What a worker and a coordinator should ask of a cluster, and the patch that says so.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cluster::Cluster;
use crate::prediction::StagePrediction;
use crate::units::Bytes;

/// What is asked for beyond what is computed: allocators round up, and a pod that goes beyond its limit is
/// killed.
const ROOM: f64 = 1.25;

/// Threads of a worker that neither decode nor wait: compute, and the way of the gradient.
const OTHER_THREADS: u64 = 2;

/// A coordinator computes nothing; its manifest has a row for each row group of the corpus.
const COORDINATOR: PodRequests = PodRequests { cpu: 1, memory_gib: 2, storage_gib: 0, gpus: 0 };

/// What a pod asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PodRequests {
    /// Processors.
    pub cpu: u64,
    /// Memory.
    pub memory_gib: u64,
    /// Disk beside the image's: the loader's cache.
    pub storage_gib: u64,
    /// Cards.
    pub gpus: u64,
}

/// What a run's pods ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Pods of workers.
    pub workers: u64,
    /// Each of them.
    pub worker: PodRequests,
    /// A coordinator.
    pub coordinator: PodRequests,
}

impl Requests {
    /// Of the most demanding stage; `disk_cache` is what the loader of a worker may keep on its disk.
    pub fn of(stages: &[StagePrediction], cluster: &Cluster, disk_cache: Bytes) -> Self {
        let most = |of: fn(&StagePrediction) -> f64| stages.iter().map(of).fold(0.0, f64::max);
        let (workers, threads) = (cluster.workers, cluster.decode_threads);
        // Threads that decode as fast as steps go, where those that are configured do not.
        let busy = most(|stage| stage.decoding.0 / stage.step.0.max(stage.compute.0));
        let decoding = (busy * threads as f64).ceil().max(threads as f64) as u64;
        let worker = PodRequests {
            cpu: decoding + OTHER_THREADS,
            memory_gib: gib(Bytes(ROOM * most(|stage| stage.host.worker.0))),
            storage_gib: gib(disk_cache),
            gpus: 1,
        };
        Self { workers, worker, coordinator: COORDINATOR }
    }
}

fn gib(bytes: Bytes) -> u64 {
    (bytes.0 / f64::from(1_u32 << 30)).ceil() as u64
}

/// A Kustomize patch for the Jobs of `k8s/`.
pub fn patch(requests: &Requests) -> String {
    let mut text = String::from(
        "# What `blip2 plan --kubernetes` computed; name this file under `patches` of kustomization.yaml.\n",
    );
    let count = format!("  completions: {0}\n  parallelism: {0}\n", requests.workers);
    text += &job("worker", &count, &requests.worker);
    text += "---\n";
    text += &job("coordinator", "", &requests.coordinator);
    text
}

fn job(role: &str, count: &str, asked: &PodRequests) -> String {
    let PodRequests { cpu, memory_gib, storage_gib, gpus } = asked;
    let mut text = format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: blip2-{role}\nspec:\n{count}  template:\n    spec:\n      \
         containers:\n        - name: {role}\n          resources:\n            requests:\n              cpu: \"{cpu}\"\n              \
         memory: {memory_gib}Gi\n"
    );
    // Writing to a String cannot fail.
    if *storage_gib > 0 {
        let _ = writeln!(text, "              ephemeral-storage: {storage_gib}Gi");
    }
    let _ = writeln!(text, "            limits:\n              memory: {memory_gib}Gi");
    if *gpus > 0 {
        let _ = writeln!(text, "              nvidia.com/gpu: {gpus}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manifest of the repository, in its base where there is one.
    fn manifest(name: &str) -> String {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s");
        let read = |folder: std::path::PathBuf| std::fs::read_to_string(folder.join(name));
        read(folder.join("base")).or_else(|_| read(folder)).unwrap()
    }

    #[test]
    fn the_patch_names_jobs_and_containers_of_the_manifests() {
        let worker = PodRequests { cpu: 10, memory_gib: 12, storage_gib: 64, gpus: 1 };
        let text = patch(&Requests { workers: 16, worker, coordinator: COORDINATOR });
        for (name, role) in [("workers.yaml", "worker"), ("coordinator.yaml", "coordinator")] {
            let manifest = manifest(name);
            for line in [format!("name: blip2-{role}\n"), format!("- name: {role}\n")] {
                assert!(manifest.contains(&line) && text.contains(&line), "{line} in {text}");
            }
        }
        let (own, other) = text.split_once("---\n").unwrap();
        for line in [
            "  parallelism: 16\n",
            "cpu: \"10\"",
            "memory: 12Gi",
            "ephemeral-storage: 64Gi",
            "            limits:\n              memory: 12Gi\n              nvidia.com/gpu: 1\n",
        ] {
            assert!(own.contains(line), "{line} in {own}");
        }
        assert!(!other.contains("gpu") && !other.contains("parallelism"), "{other}");
    }
}
