//! What processes show of themselves: health and numbers on a port of their own, scraped by a real
//! Prometheus.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blip2_tests::cluster::{Cluster, wait_for_drill};
use blip2_tests::corpus::{good_rows, truncated_picture, write};
use blip2_tests::http::{get, get_with, series};
use blip2_tests::need::Need;
use blip2_tests::process::{Running, finish, poll, repository, signal, start};
use blip2_tests::run::{SHORT_STEPS, SmallRun};
use serde_json::Value;

/// Steps of a short run.
const TOTAL: f64 = 2.0 * SHORT_STEPS as f64;
/// A process waits here for so long that all others are looked at meanwhile.
const IN_A_STEP: &str = "reduction@7";
const PORT: [&str; 2] = ["--metrics-listen", "127.0.0.1:0"];

fn metrics(address: &str) -> String {
    let (status, text) = get(address, "/metrics").expect("it answers");
    assert_eq!(status, 200, "{text}");
    text
}

/// Waits for an answer of this status, and returns its words.
#[track_caller]
fn wait_for_status(process: &Running, path: &str, status: u16) -> String {
    let address = process.metrics();
    let answered = poll(|| get(&address, path).filter(|(own, _)| *own == status));
    answered.unwrap_or_else(|| panic!("{path} is never {status}: {}", process.stderr())).1
}

fn now() -> f64 {
    #[expect(clippy::disallowed_methods, reason = "what is shown is compared with now")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

fn seconds_since(metrics: &str, name: &str) -> f64 {
    now() - series(metrics, name).unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
}

#[test]
fn every_process_of_a_run_says_how_it_is_and_what_it_does() {
    let plain = SmallRun::short("");
    plain.train(&["--workers", "1"]).expect(0);
    let run = SmallRun::short("[coordinator]\nworkers = 2\n");
    let cluster = Cluster::new(&run);
    let leader = cluster.coordinator(&PORT, None);
    let standby = cluster.coordinator(&[&["--standby"][..], &PORT].concat(), None);
    wait_for_status(&leader.process, "/readyz", 200);
    wait_for_status(&standby.process, "/readyz", 200);
    let urls = [leader.url.as_str(), standby.url.as_str()];
    let first = cluster.worker("first", &urls, &PORT, None);
    wait_for_status(&first, "/livez", 200);
    let mut second = cluster.worker("second", &urls, &PORT, Some(&format!("{IN_A_STEP}:6000")));
    wait_for_drill(&mut second, IN_A_STEP);

    wait_for_status(&first, "/readyz", 200);
    let [led, stood, worked] =
        [&leader.process, &standby.process, &first].map(|process| metrics(&process.metrics()));
    for (name, value) in [
        ("blip2_leader", 1.0),
        ("blip2_step", 7.0),
        ("blip2_steps_total", 7.0),
        ("blip2_samples_total", 56.0),
        ("blip2_steps_planned", TOTAL),
        ("blip2_members{state=\"computing\"}", 2.0),
        ("blip2_members_wanted{bound=\"start\"}", 2.0),
        ("blip2_step_duration_seconds_count", 7.0),
        ("blip2_build_info{version=\"0.1.0\",role=\"coordinator\"}", 1.0),
    ] {
        assert_eq!(series(&led, name), Some(value), "{name}\n{led}");
    }
    assert!(
        series(&led, "blip2_loss{task=\"generate\",term=\"loss\"}").is_some_and(|loss| loss > 0.0),
        "{led}"
    );
    assert!(!led.contains("task=\"contrast\""), "of the stage that is over\n{led}");
    for name in [
        "blip2_learning_rate",
        "blip2_gradient_norm",
        "blip2_goodput_seconds_total",
        "blip2_resident_memory_bytes",
    ] {
        assert!(series(&led, name).is_some_and(|value| value > 0.0), "{name}\n{led}");
    }
    assert!(seconds_since(&led, "blip2_last_commit_timestamp_seconds") < 60.0);
    assert!(seconds_since(&led, "blip2_last_checkpoint_timestamp_seconds") < 120.0);
    assert_eq!((series(&stood, "blip2_standby"), series(&stood, "blip2_leader")), (Some(1.0), None));
    for phase in ["data_wait", "forward", "backward", "exchange", "optimizer", "commit", "checkpoint_stall"] {
        let name = format!("blip2_step_phase_seconds_total{{phase=\"{phase}\"}}");
        assert!(series(&worked, &name).is_some_and(|seconds| seconds > 0.0), "{name}\n{worked}");
    }
    assert_eq!(series(&worked, "blip2_sessions_total"), Some(1.0), "{worked}");
    for name in [
        "blip2_loader_row_groups_total{from=\"store\"}",
        "blip2_loader_bytes_total{from=\"store\"}",
        "blip2_loader_samples_total{found=\"decoded\"}",
    ] {
        assert!(series(&worked, name).is_some_and(|read| read > 0.0), "{name}\n{worked}");
    }
    assert!(
        series(&worked, "blip2_collective_bytes_total{kind=\"sent_sums\"}").is_some_and(|bytes| bytes > 0.0)
    );

    let (status, page) = get(&leader.process.metrics(), "/").expect("a page");
    assert!(status == 200 && page.contains("second") && page.contains("<svg"), "{status} {page}");
    let (_, json) = get(&leader.process.metrics(), "/api/status").expect("a status");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (json["step"].as_u64(), json["members"].as_array().map(Vec::len)),
        (Some(7), Some(2)),
        "{json}"
    );

    drop(standby);
    for process in [leader.process, first, second] {
        process.wait().expect(0);
    }
    assert_eq!(run.digest(), plain.digest(), "what is recorded changes no bit");
}

/// Seconds of the run that a coordinator shows, all causes together; `None`: it shows none yet.
fn shown_seconds(metrics: &str) -> Option<f64> {
    let badput = metrics.lines().filter(|line| line.starts_with("blip2_badput_seconds_total{"));
    let badput = badput.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Some(series(metrics, "blip2_goodput_seconds_total")? + badput.sum::<f64>())
}

/// Seconds of the run up to its newest committed step, and when that was told.
fn newest_spent(run: &SmallRun) -> (f64, f64) {
    let lines = std::fs::read_to_string(run.root().join("metrics.jsonl")).expect("metrics");
    let last: Value = serde_json::from_str(lines.lines().last().expect("a line")).expect("JSON");
    let spent = last["spent"].as_object().expect("times");
    let seconds = spent.iter().filter(|(name, _)| *name != "told_at").filter_map(|(_, time)| time.as_f64());
    (seconds.sum(), spent["told_at"].as_f64().expect("when"))
}

#[test]
fn the_time_of_a_run_is_that_of_the_clock_also_when_its_leader_is_killed() {
    let run = SmallRun::short("[coordinator]\nworkers = 1\nmin_workers = 1\n");
    let cluster = Cluster::new(&run);
    let leader = cluster.coordinator(&PORT, None);
    let standby = cluster.coordinator(&[&["--standby"][..], &PORT].concat(), None);
    let urls = [leader.url.as_str(), standby.url.as_str()];
    // The second place is where the other coordinator is looked at.
    let places = format!("{IN_A_STEP}:4000,reduction@9:3000");
    let mut worker = cluster.worker("only", &urls, &[], Some(&places));
    wait_for_drill(&mut worker, IN_A_STEP);
    let before = shown_seconds(&metrics(&leader.process.metrics())).expect("shown");
    let (spent, told) = newest_spent(&run);
    // Each of the seven times of a line is rounded to the millisecond, up or down.
    let rounded = 7.0 * 0.0005;
    assert!(spent > rounded && spent <= before + rounded, "{spent} of {before}");
    assert!((now() - told).abs() < 60.0, "told {told}");
    signal(leader.process.id(), "KILL");
    wait_for_status(&standby.process, "/readyz", 200);
    let address = standby.process.metrics();
    let goes_on = || get(&address, "/metrics").filter(|(_, text)| shown_seconds(text).is_some());
    let (_, after) = poll(goes_on).unwrap_or_else(|| panic!("it never leads: {}", standby.process.stderr()));
    assert!(shown_seconds(&after) >= Some(spent - rounded), "{spent} is counted on in\n{after}");
    let unled = series(&after, "blip2_badput_seconds_total{cause=\"no_leader\"}").expect("nobody led");
    assert!(unled > 0.5, "a leader is not taken to be gone at once: {unled}");
    standby.process.wait().expect(0);
    worker.wait().expect(0);
    let (all, ended) = newest_spent(&run);
    let (seconds, wall) = (all - spent, ended - told);
    assert!(wall > unled && (seconds - wall).abs() < 0.01 * wall, "{seconds} of {wall} s over the change");
}

#[test]
fn a_worker_without_coordinator_is_alive_and_not_ready_and_a_port_that_is_taken_is_said() {
    let run = SmallRun::short("");
    let cluster = Cluster::new(&run);
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", nobody.local_addr().expect("bound"));
    let worker = cluster.worker("lonely", &[&url], &PORT, None);
    wait_for_status(&worker, "/livez", 200);
    let readiness = || get(&worker.metrics(), "/readyz").filter(|(_, why)| why.contains("no coordinator"));
    let (status, why) = poll(readiness).unwrap_or_else(|| panic!("it does not say why: {}", worker.stderr()));
    assert_eq!(status, 503, "{why}");
    assert!(why.ends_with('\n') && why.lines().count() == 1, "{why}");
    let taken = worker.metrics();
    let refused = run.train(&["--set", &format!("metrics.listen={taken}")]);
    refused.expect(1).says(&[&taken, "metrics.listen"]);
    let config = run.config();
    finish(blip2_tests::process::blip2(&["coordinator", "--config", config, "--metrics-listen", "here"]))
        .expect(2);
}

#[test]
fn beyond_this_machine_the_page_is_for_those_who_have_the_token_and_the_metrics_for_all() {
    let run = SmallRun::short("");
    let leader = Cluster::new(&run).coordinator(&["--metrics-listen", "0.0.0.0:0"], None);
    wait_for_status(&leader.process, "/readyz", 200);
    let address = leader.process.metrics().replace("0.0.0.0", "127.0.0.1");
    assert!(metrics(&address).contains("blip2_leader 1.0"));
    let token = "a long secret";
    for path in ["/", "/api/status"] {
        let status = |headers: &str| get_with(&address, path, headers).expect("an answer").0;
        assert_eq!(status(""), 401, "{path}");
        assert_eq!(status("Authorization: Bearer another\r\n"), 401, "{path}");
        assert_eq!(status(&format!("Authorization: Bearer {token}\r\n")), 200, "{path}");
    }
    for path in ["/metrics", "/readyz", "/livez"] {
        assert!(!get(&address, path).expect("an answer").1.contains(token), "{path}");
    }
}

#[test]
fn the_page_shows_rows_that_were_left_out_by_small_pictures_made_here() {
    let mut rows = good_rows(64);
    rows[5].image = truncated_picture();
    rows[30].caption = String::new();
    let stored = rows[30].image.clone();
    let folder = tempfile::tempdir().expect("a folder");
    let corpus = folder.path().join("a.parquet");
    write(&corpus, "jpg", &rows);
    let run = SmallRun::on(&[corpus.to_str().expect("UTF-8").to_owned()]);
    let cluster = Cluster::new(&run);
    let settings = ["--set", "coordinator.workers=1", "--set", "data.max_quarantined_share=0.2"];
    let leader = cluster.coordinator(&[&settings[..], &PORT].concat(), None);
    // By then 144 samples of 64 rows are used.
    let place = "reduction@18";
    let mut worker = cluster.worker("only", &[&leader.url], &[], Some(&format!("{place}:20000")));
    wait_for_drill(&mut worker, place);
    let address = leader.process.metrics();
    let jpeg = "data:image/jpeg;base64,";
    let is_whole = |page: &String| page.contains(jpeg) && page.contains("no picture: ");
    let looked = poll(|| get(&address, "/").map(|(_, page)| page).filter(is_whole));
    let page = looked.unwrap_or_else(|| panic!("no pictures: {:?}", get(&address, "/")));
    assert!(
        page.contains("000000030") && page.contains("000000005") && page.contains("it has no text"),
        "{page}"
    );
    assert!(!page.contains(&STANDARD.encode(&stored)), "the stored bytes are on the page");
    assert!(!page.contains("src=\"http") && !page.contains("href="), "nothing beside the page");
}

/// Where Prometheus is, if it is.
fn prometheus() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("BLIP2_PROMETHEUS")?);
    ["prometheus", "promtool"].iter().all(|name| folder.join(name).is_file()).then_some(folder)
}

#[test]
fn the_alerts_fire_when_they_should_and_only_then() {
    let Some(folder) = prometheus() else { return Need::Prometheus.skip() };
    let promtool = |arguments: &[&str]| {
        let mut command = Command::new(folder.join("promtool"));
        command.args(arguments).current_dir(repository().join("monitoring"));
        finish(command)
    };
    promtool(&["check", "rules", "alerts.yaml"]).expect(0);
    promtool(&["test", "rules", "alerts.test.yaml"]).expect(0);
    // A fault in the rules is found.
    let planted = tempfile::tempdir().expect("a folder");
    let read =
        |name: &str| std::fs::read_to_string(repository().join("monitoring").join(name)).expect("a file");
    let broken = read("alerts.yaml").replace("> 900", "> 90000");
    std::fs::write(planted.path().join("alerts.yaml"), broken).expect("written");
    std::fs::write(planted.path().join("alerts.test.yaml"), read("alerts.test.yaml")).expect("written");
    let test = planted.path().join("alerts.test.yaml");
    promtool(&["test", "rules", test.to_str().expect("UTF-8")]).expect(1);
}

#[test]
fn a_real_prometheus_scrapes_a_run() {
    let Some(folder) = prometheus() else { return Need::Prometheus.skip() };
    let run = SmallRun::short("[coordinator]\nworkers = 1\nmin_workers = 1\n");
    let cluster = Cluster::new(&run);
    let leader = cluster.coordinator(&PORT, None);
    let mut worker = cluster.worker("only", &[&leader.url], &PORT, Some(&format!("{IN_A_STEP}:20000")));
    wait_for_drill(&mut worker, IN_A_STEP);
    let targets = [leader.process.metrics(), worker.metrics()];
    let scratch = run.scratch();
    let rules = repository().join("monitoring/alerts.yaml");
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: [\"{}\"]\n\
         scrape_configs:\n  - job_name: run\n    static_configs: [{{targets: [\"{}\", \"{}\"]}}]\n",
        rules.display(),
        targets[0],
        targets[1]
    );
    std::fs::write(scratch.join("prometheus.yml"), config).expect("written");
    let address =
        TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").to_string();
    let mut command = Command::new(folder.join("prometheus"));
    command
        .arg(format!("--config.file={}", scratch.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", scratch.join("tsdb").display()))
        .arg(format!("--web.listen-address={address}"));
    let server = start(command);
    let ask = |query: &str| -> Option<Value> {
        let (_, body) = get(&address, &format!("/api/v1/query?query={query}"))?;
        let answer: Value = serde_json::from_str(&body).ok()?;
        Some(answer["data"]["result"].clone())
            .filter(|result| result.as_array().is_some_and(|found| !found.is_empty()))
    };
    let found = |query: &str| {
        poll(|| ask(query)).unwrap_or_else(|| panic!("nothing for {query}:\n{}", server.stderr()))
    };
    let value = |result: &Value| result[0]["value"][1].as_str().expect("a value").to_owned();
    assert_eq!(value(&found("sum(up)%3D%3D2")), "2", "both are scraped, and what they say is understood");
    assert_eq!(value(&found("blip2_step%20and%20blip2_leader")), "7");
    assert_eq!(value(&found("count(blip2_step_phase_seconds_total)")), "11", "phases of the worker");
    assert_eq!(value(&found("blip2_step_duration_seconds_count%20and%20blip2_leader")), "7");
    let (_, rules) = get(&address, "/api/v1/rules").expect("rules");
    let rules: Value = serde_json::from_str(&rules).expect("JSON");
    let rules = rules["data"]["groups"][0]["rules"].as_array().expect("rules").clone();
    assert!(rules.len() >= 8 && rules.iter().all(|rule| rule["health"] != "err"), "{rules:?}");
}

/// Prints every scalar of a folder as TensorBoard reads it: tag, step, value.
const READ_BACK: &str = "
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
read = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0})
read.Reload()
print(json.dumps({tag: [[e.step, e.value] for e in read.Scalars(tag)] for tag in read.Tags()['scalars']}))
";

#[test]
fn tensorboard_reads_one_curve_of_a_run_whose_leader_was_killed() {
    let Some(python) = std::env::var_os("BLIP2_TENSORBOARD") else { return Need::TensorBoard.skip() };
    let run = SmallRun::short("[coordinator]\nworkers = 1\nmin_workers = 1\n");
    Cluster::new(&run).lose_the_leader(IN_A_STEP, &[]);
    let mut command = Command::new(python);
    command.args(["-c", READ_BACK]).arg(run.root().join("tensorboard"));
    let read = finish(command).expect(0);
    let read: Value = serde_json::from_str(read.stdout.lines().last().expect("a line")).expect("JSON");
    let points = |tag: &str| -> Vec<(u64, f64)> {
        let points = read[tag].as_array().unwrap_or_else(|| panic!("no {tag} in {read}")).iter();
        points
            .map(|point| (point[0].as_u64().expect("a step"), point[1].as_f64().expect("a value")))
            .collect()
    };
    let text = std::fs::read_to_string(run.root().join("metrics.jsonl")).expect("metrics");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let losses = |stage: u64| -> Vec<(u64, f64)> {
        let of_stage = lines.iter().filter(|line| line["stage"] == stage);
        of_stage
            .map(|line| (line["step"].as_u64().unwrap(), line["values"]["loss"].as_f64().unwrap()))
            .collect()
    };
    let stages = [lines[0]["stage_name"].clone(), lines[lines.len() - 1]["stage_name"].clone()];
    for (number, stage) in (1..).zip(stages) {
        let (shown, kept) = (points(&format!("{}/loss", stage.as_str().expect("a name"))), losses(number));
        let steps = |points: &[(u64, f64)]| points.iter().map(|(step, _)| *step).collect::<Vec<_>>();
        assert_eq!(steps(&shown), steps(&kept), "each step once");
        let near = |(a, b): (&(u64, f64), &(u64, f64))| (a.1 - b.1).abs() <= 1e-6 * b.1.abs();
        assert!(shown.iter().zip(&kept).all(near), "{shown:?} {kept:?}");
    }
    assert_eq!(points("speed/step_seconds").len() as f64, TOTAL);
}
