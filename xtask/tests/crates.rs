//! Dependencies between the crates point down only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use xtask::arrows;

/// Each crate with the crates it may use, tests included; `blip2-tests` drives everything.
const ARROWS: &[(&str, &[&str])] = &[
    ("blip2-proto", &[]),
    ("blip2-telemetry", &[]),
    ("blip2-otlp", &["blip2-telemetry"]),
    // Small files for the tests of several rooms.
    ("blip2-test-corpus", &[]),
    // An HTTP server for the tests of several rooms.
    ("blip2-test-server", &[]),
    ("blip2-random", &["blip2-test-corpus"]),
    ("blip2-store", &["blip2-test-corpus", "blip2-test-server"]),
    ("blip2-images", &["blip2-random", "blip2-test-corpus"]),
    (
        "blip2-dataset",
        &["blip2-images", "blip2-random", "blip2-store", "blip2-test-corpus", "blip2-test-server"],
    ),
    ("blip2-tensors", &[]),
    ("blip2-model-files", &["blip2-tensors"]),
    ("blip2-model", &["blip2-model-files", "blip2-tensors"]),
    ("blip2-scenes", &["blip2-images", "blip2-random"]),
    ("blip2-run", &["blip2-dataset", "blip2-proto", "blip2-store"]),
    ("blip2-collective", &["blip2-proto"]),
    ("blip2-leases", &["blip2-proto", "blip2-random", "blip2-telemetry"]),
    (
        "blip2-evaluation",
        &[
            "blip2-dataset",
            "blip2-images",
            "blip2-model",
            "blip2-model-files",
            "blip2-random",
            "blip2-run",
            "blip2-store",
            "blip2-tensors",
        ],
    ),
    ("blip2-coordinator", &["blip2-collective", "blip2-dataset", "blip2-proto", "blip2-run", "blip2-store"]),
    ("blip2-records", &["blip2-coordinator", "blip2-proto", "blip2-run", "blip2-store"]),
    (
        "blip2-curation",
        &[
            "blip2-dataset",
            "blip2-doctor",
            "blip2-evaluation",
            "blip2-images",
            "blip2-leases",
            "blip2-model",
            "blip2-model-files",
            "blip2-proto",
            "blip2-random",
            "blip2-run",
            "blip2-store",
            "blip2-telemetry",
            "blip2-tensors",
            "blip2-test-corpus",
        ],
    ),
    ("blip2-cost", &[]),
    (
        "blip2-worker",
        &[
            "blip2-collective",
            "blip2-cost",
            "blip2-dataset",
            "blip2-evaluation",
            "blip2-images",
            "blip2-model",
            "blip2-model-files",
            "blip2-proto",
            "blip2-random",
            "blip2-run",
            "blip2-store",
            "blip2-telemetry",
            "blip2-tensors",
        ],
    ),
    ("blip2-pages", &[]),
    ("blip2-doctor", &["blip2-dataset", "blip2-store", "blip2-tensors"]),
    (
        "blip2",
        &[
            "blip2-collective",
            "blip2-coordinator",
            "blip2-cost",
            "blip2-curation",
            "blip2-dataset",
            "blip2-doctor",
            "blip2-evaluation",
            "blip2-images",
            "blip2-leases",
            "blip2-model",
            "blip2-model-files",
            "blip2-otlp",
            "blip2-pages",
            "blip2-proto",
            "blip2-random",
            "blip2-records",
            "blip2-run",
            "blip2-scenes",
            "blip2-store",
            "blip2-telemetry",
            "blip2-tensors",
            "blip2-worker",
        ],
    ),
    // Functions that feed bytes to decoders.
    ("blip2-decoders", &["blip2-dataset", "blip2-images", "blip2-random", "blip2-store"]),
    // Loaded by programs in place of the CUDA driver.
    ("blip2-driver-double", &[]),
    // Starts cargo, and nothing of ours.
    ("xtask", &[]),
];

/// Crates that some rooms never know.
const NEVER: &[(&str, &[&str])] = &[
    ("blip2-decoders", &["burn", "tonic"]),
    // Numbers out of a process: of what, others say.
    ("blip2-telemetry", &["arrow", "burn", "object_store", "parquet", "tonic"]),
    ("blip2-random", &["burn", "object_store", "parquet", "tokio", "tonic"]),
    ("blip2-store", &["arrow", "burn", "image", "parquet", "tonic"]),
    // Bytes and draws in, pixels out.
    ("blip2-images", &["arrow", "burn", "object_store", "parquet", "tokio", "tonic"]),
    ("blip2-dataset", &["burn", "tonic"]),
    // Neither a model nor a file.
    ("blip2-tensors", &["object_store", "parquet", "safetensors", "serde_json", "tokio", "tonic"]),
    ("blip2-model-files", &["object_store", "parquet", "tokio", "tonic"]),
    ("blip2-model", &["object_store", "parquet", "tokio", "tonic"]),
    ("blip2-scenes", &["burn", "object_store", "tokio", "tonic"]),
    ("blip2-run", &["burn", "tonic"]),
    // Only a run knows members, coordinators and stores.
    ("blip2-evaluation", &["object_store", "parquet", "tokio", "tonic"]),
    ("blip2-collective", &["burn", "parquet", "object_store"]),
    ("blip2-records", &["arrow", "burn", "parquet", "tonic"]),
    // Whoever hands tasks out says what they are, and whoever does them.
    ("blip2-leases", &["arrow", "burn", "image", "object_store", "parquet"]),
    ("blip2-pages", &["burn", "object_store", "parquet", "tokio", "tonic"]),
    // Arithmetic: who knows the models and the cluster says their sizes.
    ("blip2-cost", &["burn", "object_store", "parquet", "tokio", "tonic"]),
    // What is needed is told it as numbers.
    ("blip2-doctor", &["tonic"]),
    ("blip2-coordinator", &["burn", "image"]),
];

/// Direct dependencies of the workspace's members, those of their tests among them.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let crates = arrows::crates(&root).expect("cargo describes the workspace");
    crates.into_iter().map(|own| (own.name, own.needs)).collect()
}

#[test]
fn dependencies_point_down_only() {
    let found = dependencies();
    let members: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    let known: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).chain(["blip2-tests"]).collect();
    assert_eq!(members, known, "a crate without a room: add its arrows here and in docs/architecture.md");
    for (name, allowed) in ARROWS.iter().copied() {
        for need in found[name].iter().filter(|need| members.contains(need.as_str())) {
            assert!(allowed.contains(&need.as_str()), "{name} must not know {need}");
        }
    }
}

#[test]
fn rooms_do_not_know_what_is_not_theirs() {
    let found = dependencies();
    for (name, forbidden) in NEVER.iter().copied() {
        for need in forbidden {
            assert!(!found[name].contains(*need), "{name} must not know {need}");
        }
    }
}
