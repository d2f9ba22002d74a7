//! Numbers that are none: steps that end a run or are skipped, checkpoints that nobody takes for a model.

use std::path::Path;

use blip2_tests::process::{Ended, blip2, finish};
use blip2_tests::run::SmallRun;
use serde_json::Value;

/// A first learning rate that no parameter of float32 survives; the steps after the warm-up are as usual.
const SPIKE: [&str; 4] =
    ["--set", "stage2.optimizer.warmup_learning_rate=3e38", "--set", "train.loss_rise_window=0"];
const SKIP: [&str; 2] = ["--set", "train.non_finite=skip"];

fn spiked(run: &SmallRun, arguments: &[&str]) -> Ended {
    run.train(&[&SPIKE[..], arguments].concat())
}

fn metrics(run: &SmallRun) -> Vec<Value> {
    let text = std::fs::read_to_string(run.root().join("metrics.jsonl")).expect("metrics");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn on_root(run: &SmallRun, command: &[&str]) -> Ended {
    let root = run.root();
    finish(blip2(&[command, &[root.to_str().expect("UTF-8")]].concat()))
}

#[test]
fn a_run_that_diverges_ends_with_its_last_sound_checkpoint() {
    let run = SmallRun::short("keep = 0\n");
    let diverging = [
        "--workers",
        "2",
        "--set",
        "stage1.optimizer.learning_rate=1e30",
        "--set",
        "stage1.optimizer.warmup_steps=0",
        "--set",
        "checkpoint.every_steps=1",
    ];
    run.train(&diverging).expect(1).says(&[
        "step 1 (stage 1)",
        "loss_itc",
        "slot 0 with the rows",
        "clip_norm",
    ]);
    // One that was being written when the run ended may be missing; what is there is sound.
    for line in on_root(&run, &["checkpoint", "ls", "--json"]).expect(0).json_lines() {
        let name = line["name"].as_str().expect("a name");
        let checkpoint = run.root().join("checkpoints").join(name).display().to_string();
        assert_eq!(line["step"], 1);
        finish(blip2(&["checkpoint", "verify", &checkpoint])).expect(0);
    }
    let lines = metrics(&run);
    assert_eq!(lines.len(), 1, "what is not committed is not in the metrics");
    for value in ["loss", "gradient_norm", "learning_rate"] {
        assert!(lines[0]["values"][value].is_number(), "{value}: {}", lines[0]);
    }
    assert_eq!(lines[0]["samples_seen"], 8);
}

#[test]
fn skipped_steps_are_the_same_for_any_number_of_workers_and_after_a_stop() {
    let alone = SmallRun::short("");
    spiked(&alone, &[&["--workers", "1"], &SKIP[..]].concat()).expect(0).says(&["the step is skipped"]);
    let skipped: Vec<u64> = metrics(&alone)
        .iter()
        .filter(|line| line["skipped"] == true)
        .map(|line| line["step"].as_u64().expect("a step"))
        .collect();
    assert_eq!(skipped, [6, 7]);
    let audit = on_root(&alone, &["audit", "--json"]).expect(0);
    let audit: Value = serde_json::from_str(&audit.stdout).expect("JSON");
    assert_eq!((&audit["exact"], &audit["skipped_steps"]), (&Value::Bool(true), &serde_json::json!([6, 7])));

    // Ends where the others skip, and goes on as they do.
    let other = SmallRun::short("");
    spiked(&other, &["--workers", "2"]).expect(1).says(&["step 6 (stage 2)", "update of", "non_finite=skip"]);
    let bounded = [&["--workers", "2", "--resume", "--set", "train.max_skipped_steps=1"], &SKIP[..]].concat();
    spiked(&other, &bounded).expect(1).says(&["step 7", "train.max_skipped_steps = 1"]);
    spiked(&other, &[&["--workers", "2", "--resume"], &SKIP[..]].concat()).expect(0);
    assert_eq!(other.digest(), alone.digest());
    on_root(&other, &["audit"]).expect(0);
}

/// Puts a NaN into a checkpoint's parameters, as a program that did not look would have stored it.
fn poison(checkpoint: &Path, tensor: &str) {
    let commit_file = checkpoint.join("COMMIT");
    let mut commit: Value = serde_json::from_slice(&std::fs::read(&commit_file).unwrap()).unwrap();
    let mut found = false;
    for part in commit["parts"].as_array_mut().unwrap() {
        let file = checkpoint.join(part["name"].as_str().unwrap());
        let mut bytes = std::fs::read(&file).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let names: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
        if let Some(start) = names[tensor]["data_offsets"][0].as_u64() {
            let at = header + start as usize;
            bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
            found = true;
        }
        part["blake3"] = blake3::hash(&bytes).to_hex().to_string().into();
        std::fs::write(&file, bytes).unwrap();
    }
    assert!(found, "no tensor {tensor}");
    std::fs::write(&commit_file, serde_json::to_vec(&commit).unwrap()).unwrap();
}

#[test]
fn a_checkpoint_of_nan_is_no_model() {
    let run = SmallRun::short("");
    run.train(&["--workers", "1", "--set", "stage2.steps=0"]).expect(0);
    let checkpoints = run.root().join("checkpoints");
    let newest = std::fs::read_dir(checkpoints).unwrap().flatten().map(|entry| entry.path()).max().unwrap();
    poison(&newest, "parameters.query_tokens");
    let root = run.root().display().to_string();
    let out = run.scratch().join("out.safetensors").display().to_string();
    let test = "assets/corpus/test-00000.parquet";
    for command in [
        &["checkpoint", "verify", &root][..],
        &["checkpoint", "digest", &root],
        &["checkpoint", "export", &root, "--out", &out, "--layout", "lavis"],
        &["eval", "retrieval", "--model", &root, "--data", test, "--json"],
    ] {
        let ended =
            finish(blip2(command)).expect(1).says(&["parameters.query_tokens", "not a finite number"]);
        assert!(!ended.stdout.contains("r@1") && !Path::new(&out).exists(), "{command:?}");
    }
}
