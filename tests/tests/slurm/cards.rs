//! Two workers on one host with two cards, as the batch script starts them.
//!
//! Slurm, script, processes and their environments are real, and so is the rule by which a worker takes its
//! card. The driver is not: how many cards a worker would find is what Slurm shows it.

use std::collections::BTreeMap;

use blip2_tensors::device::seat::{SLURM_TASK, Seat};
use blip2_tensors::device::{DeviceName, Present};
use blip2_tests::process::poll;

use crate::cluster::{CARDS, Slurm, read, variable};
use crate::{Job, Program, small_run, submit_with};

/// What Slurm tells a task of its cards.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// Whether Slurm shows each task its card alone, or all tasks all cards of the host: no two take the same,
/// and the run is the same.
pub(crate) fn each_task_of_a_host_takes_its_own(slurm: &Slurm, expected: &(String, u64)) {
    let (node, count) = CARDS;
    let host = format!("--nodelist={node}");
    let tasks = format!("--ntasks-per-node={count}");
    let per_node = format!("--gpus-per-node={count}");
    for (cards, shown) in [("--gpus-per-task=1", ["0", "1"]), (per_node.as_str(), ["0,1", "0,1"])] {
        let run = small_run();
        let program = Program::new(run.scratch());
        program.waits_at([4], 4000);
        let job = submit_with(slurm, &run, &["--nodes=1", &host, &tasks, cards], &program.path, &[]);
        job.wait_until_it_says(slurm, "drill forward@4");
        let seen = of_workers(&job, |worker| variable(worker, VISIBLE).unwrap_or_default());
        assert_eq!(seen, BTreeMap::from([(0, shown[0].into()), (1, shown[1].into())]), "{cards}");
        let taken = of_workers(&job, taken_by);
        assert_eq!(taken, BTreeMap::from([(0, "0".into()), (1, "1".into())]), "{cards}");
        slurm.wait_for_state(&job.number, "COMPLETED", &job.log);
        assert_eq!(&run.digest(), expected, "{cards}");
    }
}

/// Something of each worker, by the number of its task on the host.
fn of_workers(job: &Job, fact: impl Fn(u32) -> String) -> BTreeMap<usize, String> {
    let all = poll(|| Some(job.workers(CARDS.0)).filter(|workers| workers.len() == CARDS.1));
    let all = all.unwrap_or_else(|| panic!("other workers than expected:\n{}", read(&job.log)));
    let task = |worker: u32| variable(worker, SLURM_TASK).and_then(|number| number.parse().ok());
    all.into_iter().map(|worker| (task(worker).expect("a task's number"), fact(worker))).collect()
}

/// The card that a worker takes, by its name to Slurm.
fn taken_by(worker: u32) -> String {
    let visible = variable(worker, VISIBLE).unwrap_or_default();
    let names: Vec<&str> = visible.split(',').filter(|name| !name.is_empty()).collect();
    let present = Present { cuda: Some(names.len()), vulkan: None, cuda_visible: Some(visible.clone()) };
    let seat = Seat::of_process(|name| variable(worker, name)).expect("a task's number");
    match seat.take("cuda".parse().expect("a device"), &present, false) {
        Ok(DeviceName::Cuda(Some(number))) => names[number].to_owned(),
        other => panic!("{seat:?} of {visible}: {other:?}"),
    }
}
