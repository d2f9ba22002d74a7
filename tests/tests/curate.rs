//! `curate` as processes that are killed at any moment: the same objects in the end, no row lost or doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::samples::read_all;
use blip2_random::KeyedRng;
use blip2_tests::http::{get, get_with, series};
use blip2_tests::pool::Pool;
use blip2_tests::process::{Ended, Running, blip2, children, finish, poll, signal, start};
use serde_json::{Value, json};

/// Rounds in which something is killed.
const ROUNDS: u64 = 6;
const ROWS: usize = 160;

/// A pool of 8 row groups, one picture of which is bad, and its curations.
struct Scene(Pool);

impl Scene {
    fn new() -> Self {
        Self(Pool::new(8, ROWS / 8))
    }

    fn path(&self, name: &str) -> String {
        self.0.path(name)
    }

    fn files(&self, out: &str) -> BTreeMap<String, Vec<u8>> {
        self.0.files(out)
    }

    fn command(&self, out: &str, more: &[&str]) -> std::process::Command {
        let settings = self.0.arguments(out);
        let mut arguments = vec!["curate"];
        arguments.extend(settings.iter().map(String::as_str));
        arguments.extend(["--threads", "1", "--json"]);
        arguments.extend(more);
        blip2(&arguments)
    }

    /// Part and key of every row, as training reads them.
    fn rows(&self, out: &str) -> Vec<(String, String)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let parts = self.files(out).into_keys().filter(|name| name.starts_with("part-"));
        let of_part = |part: String| {
            let file = [self.path(&format!("{out}/{part}"))];
            let set = runtime.block_on(read_all(&file, &ColumnNames::default(), 1 << 20)).unwrap();
            assert!(set.quarantined.is_empty());
            set.samples.into_iter().map(move |sample| (part.clone(), sample.key)).collect::<Vec<_>>()
        };
        parts.flat_map(of_part).collect()
    }
}

fn summary(ended: &Ended) -> serde_json::Value {
    ended.json_lines().pop().unwrap()
}

/// Whoever of the coordinator and its workers is killed.
fn kill_something(running: &Running, draws: &mut KeyedRng) {
    let mut victims = children(running.id());
    // Workers end by themselves when their coordinator is gone.
    if draws.below(2) == 0 || victims.is_empty() {
        victims = vec![running.id()];
    }
    signal(victims[draws.below(victims.len() as u64) as usize], "KILL");
}

#[test]
fn whatever_is_killed_the_same_objects_are_there_in_the_end() {
    let scene = Scene::new();
    let whole = finish(scene.command("whole", &["--workers", "2"])).expect(0);
    let counts = summary(&whole);
    assert_eq!((counts["tasks_done"].as_u64(), counts["rejected"].as_u64()), (Some(8), Some(1)));
    let files = scene.files("whole");
    let rows = scene.rows("whole");
    assert_eq!(rows.len(), ROWS - 1);
    assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), rows.len(), "a row is doubled");

    let mut draws = KeyedRng::new(5, "kills", &[]);
    let mut killed = 0;
    for _ in 0..ROUNDS {
        let running = start(scene.command("killed", &["--workers", "2"]));
        std::thread::sleep(Duration::from_millis(200 + draws.below(1500)));
        kill_something(&running, &mut draws);
        killed += u32::from(running.wait().code != Some(0));
    }
    println!("{killed} of {ROUNDS} runs did not end well");
    finish(scene.command("killed", &["--workers", "1"])).expect(0);
    assert_eq!(scene.files("killed"), files);

    // Without a coordinator, in shares, one of them twice; each shows its numbers while it works.
    for shard in ["1/2", "0/2", "1/2"] {
        let share = ["--shard", shard, "--metrics-listen", "127.0.0.1:0"];
        let ended = finish(scene.command("shares", &share)).expect(0);
        assert!(ended.json_lines()[0]["metrics"].as_str().is_some_and(|at| at.starts_with("127.0.0.1:")));
    }
    assert_eq!(scene.files("shares"), files);
}

#[test]
fn who_hands_out_a_curation_shows_what_is_done_and_why_rows_are_left_out() {
    let scene = Scene::new();
    let served = ["--workers", "0", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
    let coordinator = start(scene.command("shown", &served));
    let address = coordinator.metrics();
    let status = || -> Option<Value> { serde_json::from_str(&get(&address, "/api/status")?.1).ok() };
    let listed = || status().filter(|status| status["tasks"] == 8);
    let before = poll(listed).unwrap_or_else(|| panic!("no status: {}", coordinator.stderr()));
    let tasks = ["work", "tasks", "done", "leased", "left"].map(|name| before[name].clone());
    assert_eq!(tasks, [json!("curation"), json!(8), json!(0), json!(0), json!(8)]);
    for path in ["/livez", "/readyz", "/"] {
        assert_eq!(get(&address, path).map(|(status, _)| status), Some(200), "{path}");
    }
    let url = format!("http://{}", coordinator.listening());
    let worker = start(blip2(&["curate", "worker", "--coordinator", &url, "--threads", "1"]));
    let rejected = |status: &Value| status["rejected"].as_object().is_some_and(|reasons| !reasons.is_empty());
    let during = poll(|| status().filter(rejected)).unwrap_or_else(|| panic!("{}", coordinator.stderr()));
    let (done, leased, left) = (&during["done"], &during["leased"], &during["left"]);
    let count = |value: &Value| value.as_u64().expect("a count");
    assert!(count(done) >= 1 && count(done) + count(leased) + count(left) == 8, "{during}");
    assert!(during["rows_by_outcome"]["written"].as_u64() > Some(0), "{during}");
    let page = get(&address, "/").expect("a page").1;
    let metrics = get(&address, "/metrics").expect("metrics").1;
    let reason = during["rejected"].as_object().and_then(|reasons| reasons.keys().next()).expect("a reason");
    assert!(page.contains("<h1>Curation</h1>") && page.contains(reason.as_str()), "{page}");
    assert_eq!(series(&metrics, "blip2_curated_rows_total{outcome=\"rejected\"}"), Some(1.0), "{metrics}");
    worker.wait().expect(0);
    assert_eq!(summary(&coordinator.wait().expect(0))["tasks_done"].as_u64(), Some(8));
}

#[test]
fn a_share_shows_how_far_it_is_and_looks_at_the_rows_that_it_left_out() {
    // More tasks than anybody waits for.
    let scene = Scene(Pool::new(120, 20));
    let token = scene.path("token");
    std::fs::write(&token, "a long secret").expect("a token");
    let share = start(scene.command("out", &["--shard", "1/2", "--metrics-listen", "127.0.0.1:0"]));
    let address = share.metrics();
    assert_eq!(get(&address, "/livez").map(|(status, _)| status), Some(200));
    let status = || -> Option<Value> { serde_json::from_str(&get(&address, "/api/status")?.1).ok() };
    let rejected = |status: &Value| status["rejected"].as_object().is_some_and(|reasons| !reasons.is_empty());
    let during = poll(|| status().filter(rejected)).unwrap_or_else(|| panic!("{}", share.stderr()));
    assert_eq!(get(&address, "/readyz").map(|(status, _)| status), Some(200));
    assert_eq!((&during["work"], &during["tasks"]), (&json!("curation"), &json!(60)), "{during}");
    assert_eq!(during["share"], json!({"index": 1, "count": 2}));
    let count = |name: &str| during[name].as_u64().expect("a count");
    // The fourth file is the share's second task.
    assert!(count("done") >= 1 && count("done") + count("leased") + count("left") == 60, "{during}");
    let seen = |page: &String| page.contains("no picture: ");
    let looked = poll(|| get(&address, "/").map(|(_, page)| page).filter(seen));
    let page = looked.unwrap_or_else(|| panic!("nobody looks: {:?}", get(&address, "/")));
    for part in ["<h1>Curation</h1>", "share 1/2", "id=\"left-out\"", "000000002", "this process"] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    let numbers = |address: &str| get(address, "/metrics").expect("metrics").1;
    for (name, value) in
        [("blip2_tasks{state=\"all\"}", 60.0), ("blip2_curated_rows_total{outcome=\"rejected\"}", 1.0)]
    {
        assert_eq!(series(&numbers(&address), name), Some(value), "{name}");
    }
    signal(share.id(), "TERM");
    share.wait().expect(5);

    // Once more: what was done before is counted, and beyond this machine the page is for who has the token.
    let open = ["--shard", "1/2", "--metrics-listen", "0.0.0.0:0", "--token-file", &token];
    let again = start(scene.command("out", &open));
    let address = again.metrics().replace("0.0.0.0", "127.0.0.1");
    let asked = |headers: &str| get_with(&address, "/", headers).map(|(status, _)| status);
    assert_eq!(asked(""), Some(401));
    assert_eq!(asked("Authorization: Bearer a long secret\r\n"), Some(200));
    let counted = || {
        let shown = series(&numbers(&address), "blip2_curated_rows_total{outcome=\"rejected\"}");
        shown.filter(|rows| *rows > 0.0)
    };
    assert_eq!(poll(counted), Some(1.0));
    signal(again.id(), "TERM");
    again.wait().expect(5);
    finish(scene.command("out", &["--shard", "1/2", "--token-file", "nowhere"])).expect(1).says(&["nowhere"]);
}

#[test]
fn who_hands_out_a_curation_looks_at_rows_that_were_left_out_before() {
    let scene = Scene::new();
    finish(scene.command("out", &["--shard", "3/8"])).expect(0);
    let served = ["--workers", "0", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
    let coordinator = start(scene.command("out", &served));
    let address = coordinator.metrics();
    let seen = |page: &String| page.contains("id=\"left-out\"") && page.contains("no picture: ");
    let looked = poll(|| get(&address, "/").map(|(_, page)| page).filter(seen));
    let page = looked.unwrap_or_else(|| panic!("nobody looks: {:?}", get(&address, "/")));
    assert!(page.contains("000000002") && page.contains("1 of 8 tasks done"), "{page}");
    signal(coordinator.id(), "TERM");
    coordinator.wait().expect(5);
}

#[test]
fn a_curation_is_reported_and_selected_anew() {
    let scene = Scene::new();
    let out = scene.path("out");
    finish(scene.command("out", &["--shard", "0/1"])).expect(0);
    let page = scene.path("page.html");
    let report = ["curate", "report", &out, "--out", &page, "--price-per-hour", "2", "--json"];
    let figures = summary(&finish(blip2(&report)).expect(0));
    assert_eq!(figures["scored"].as_u64(), Some(ROWS as u64 - 1));
    assert!(figures["cost_per_million"].as_f64().unwrap() > 0.0);
    assert!(std::fs::read_to_string(&page).unwrap().matches("<figure>").count() >= 8);

    let other = scene.path("other");
    let again = ["curate", "reselect", "--from", &out, "--out", &other, "--set", "curation.selection.top=1"];
    let json = finish(blip2(&[&again[..], &["--dedup", "exact", "--json"]].concat())).expect(0);
    let counts = summary(&json);
    assert!(counts["duplicates"].as_u64().unwrap() > 0, "{counts}");
    let kept = |source: &str| counts[source]["kept"].as_u64().unwrap_or_default();
    assert_eq!(kept("web") + kept("synthetic"), counts["rows"].as_u64().unwrap());

    let refused = |arguments: &[&str], code| finish(scene.command("out", arguments)).expect(code);
    refused(&["--set", "curation.models.seed=1"], 3).says(&["other models"]);
    refused(&["--set", "curation.models.clip="], 78).says(&["curation.models.clip"]);
    refused(&["--workers", "0"], 2).says(&["--listen"]);
    refused(&["--shard", "2/2"], 2).says(&["I/N"]);
}
