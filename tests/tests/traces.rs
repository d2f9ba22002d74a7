//! What members say of their last steps.

use std::collections::BTreeSet;

use blip2_tests::process::{blip2, finish};
use blip2_tests::run::{STEPS, SmallRun};
use serde_json::Value;

/// Steps of each of whose members the trace has the end.
fn steps_of(events: &[Value], process: u64) -> BTreeSet<u64> {
    let own = events.iter().filter(|event| event["pid"] == process && event["cat"] == "step");
    own.filter_map(|event| event["args"]["step"].as_u64()).collect()
}

#[test]
fn the_trace_of_a_run_has_every_member_with_its_parts_and_collectives() {
    let run = SmallRun::of(STEPS, "");
    let root = run.root().display().to_string();
    let out = run.scratch().join("trace.json").display().to_string();
    let trace = || finish(blip2(&["trace", &root, "--out", &out]));
    // Both stages at three times the steps that are waited for.
    let train = run.start(&["--workers", "2", "--set", "stage1.steps=60"]);
    run.wait_for_step(5);
    trace().expect(0).says(&["2 members", "perfetto"]);
    let text = std::fs::read_to_string(&out).unwrap();
    let events: Value = serde_json::from_str(&text).unwrap();
    let events = events["traceEvents"].as_array().unwrap();
    let named = |kind: &str| -> Vec<&str> {
        let names = events.iter().filter(|event| event["name"] == kind);
        names.map(|event| event["args"]["name"].as_str().unwrap()).collect()
    };
    // In the order of their numbers, which they got as they came.
    let processes: BTreeSet<&str> = named("process_name").into_iter().collect();
    assert_eq!(processes, ["worker-0", "worker-1"].into());
    for lane in ["step", "compute", "exchange"] {
        assert_eq!(named("thread_name").iter().filter(|name| **name == lane).count(), 2, "{lane}");
    }
    let both = [1, 2].map(|process| steps_of(events, process));
    assert!(both[0].intersection(&both[1]).count() >= 4, "they did the same steps: {both:?}");
    for process in [1, 2] {
        let names: BTreeSet<&str> = events
            .iter()
            .filter(|event| event["pid"] == process && event["ts"].is_number())
            .map(|event| event["name"].as_str().unwrap().split(' ').next().unwrap())
            .collect();
        for name in ["step", "commit", "encoder", "forward", "backward", "all_gather", "all_reduce"] {
            assert!(names.contains(name), "{name} of {process}: {names:?}");
        }
    }
    // What is a part of a step lies within it.
    let span = |event: &Value| {
        let began = event["ts"].as_f64().unwrap();
        (began, began + event["dur"].as_f64().unwrap())
    };
    let of_step = |category: &str, name: &str| {
        let step = both[0].iter().next_back().copied();
        let found = events.iter().find(|event| {
            let event_step = event["args"]["step"].as_u64();
            let is_named = event["name"].as_str().is_some_and(|own| own.starts_with(name));
            event["pid"] == 1 && event["cat"] == category && is_named && event_step == step
        });
        span(found.unwrap_or_else(|| panic!("no {name} of step {step:?}")))
    };
    let (whole, encoder) = (of_step("step", "step"), of_step("compute", "encoder"));
    assert!(whole.0 <= encoder.0 && encoder.1 <= whole.1, "{encoder:?} in {whole:?}");
    train.wait().expect(0);
    trace().expect(1).says(&["while the run goes on"]);
}
