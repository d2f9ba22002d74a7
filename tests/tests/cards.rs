//! Cards on a machine without one: who takes which, and what becomes of a worker whose card fails.

use blip2_tests::cluster::Cluster;
use blip2_tests::process::{blip2, finish, start};
use blip2_tests::run::{SHORT_STEPS, SmallRun};

#[test]
fn a_card_that_fails_ends_its_worker_and_the_others_go_on() {
    let undisturbed = SmallRun::short("");
    undisturbed.train(&["--workers", "1"]).expect(0);
    let run = SmallRun::short("");
    let cluster = Cluster::new(&run);
    let coordinator = cluster.coordinator(&["--set", "coordinator.workers=2"], None);
    let urls = [coordinator.url.as_str()];
    let full = cluster.worker("full", &urls, &[], Some("card-memory@3:0"));
    let well = cluster.worker("well", &urls, &[], None);
    full.wait().expect(6).says(&[
        "error: cpu: out of memory: out of device memory allocating 1073741824 bytes",
        "train.slots",
        "model.frozen_dtype",
        "nvidia-smi",
    ]);
    well.wait().expect(0);
    coordinator.process.wait().expect(0);
    assert_eq!(run.digest(), undisturbed.digest());
    assert_eq!(run.committed() as u64, 2 * SHORT_STEPS);
    let read = |file: &str| std::fs::read_to_string(run.root().join(file)).expect(file);
    let faults = read("faults.jsonl");
    assert!(faults.contains("(full) is lost: it cannot go on: cpu: out of memory"), "{faults}");
    // The members of every epoch are recorded with what they compute on.
    let epochs = std::fs::read_dir(run.root().join("epochs")).expect("epochs").flatten();
    let epochs: String =
        epochs.map(|entry| std::fs::read_to_string(entry.path()).expect("an epoch")).collect();
    assert_eq!(epochs.matches("\"device\": \"cpu\"").count(), 3, "{epochs}");
    assert!(!read("metrics.jsonl").contains("device_bytes"));
}

#[test]
fn a_run_whose_only_card_fails_ends_with_its_reason() {
    let run = SmallRun::short("");
    let mut command = blip2(&["train", "--config", run.config(), "--workers", "1"]);
    command.env("BLIP2_DRILL", "card-fault@2:0");
    let ended = start(command).wait().expect(6);
    let ended =
        ended.says(&["cuEventSynchronize failed with status 700 (CUDA_ERROR_ILLEGAL_ADDRESS)", "dmesg"]);
    assert!(!ended.stderr.contains("started again"), "{}", ended.stderr);
}

#[test]
fn cards_that_are_not_there_are_said_before_anything_is_pinned() {
    let run = SmallRun::short("");
    for device in ["cuda", "cuda:3", "vulkan"] {
        run.train(&["--workers", "2", "--device", device]).expect(78).says(&[device, "--features"]);
        assert!(!run.root().exists(), "{device}");
    }
}

#[test]
fn a_task_of_a_scheduler_has_a_number() {
    let mut command = blip2(&["worker", "--coordinator", "http://127.0.0.1:1", "--join-timeout", "1"]);
    command.env("SLURM_LOCALID", "first");
    finish(command).expect(78).says(&["SLURM_LOCALID = \"first\"", "--device cuda:N"]);
}

#[test]
fn the_devices_of_a_machine_are_listed() {
    let listed = finish(blip2(&["devices", "--json"])).expect(0).json_lines();
    assert!(listed[0]["threads"].as_u64().is_some_and(|threads| threads > 0), "{listed:?}");
    let text = finish(blip2(&["devices"])).expect(0).stdout;
    assert!(text.starts_with("cpu ") && text.contains("auto     takes "), "{text}");
}
