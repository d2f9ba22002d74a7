//! Jobs from begin to end, with made-up scores.

mod fakes;
mod serving;

use std::collections::BTreeMap;
use std::path::Path;

use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::ingest::Share;
use blip2_dataset::corpus::samples::{Sample, read_all};
use blip2_dataset::error::{DatasetError, Result};
use blip2_dataset::parquet_bytes::read_parquet;
use blip2_dataset::quarantine::QuarantineList;
use blip2_store::Location;
use blip2_store::error::StoreError;
use blip2_test_corpus::Corpus;

use crate::dedup::DedupRule;
use crate::finish::{KEPT, TaskDone};
use crate::job::{CurationJob, CurationSettings};
use crate::reselect::{Reselection, reselect};
use crate::scored::{ScoredText, TextSource};
use crate::select::SelectionSettings;
use crate::task::{CurationTask, TaskRow};

struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    /// 40 rows in row groups of 7; some of them cannot be used, one has no text.
    fn new() -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap() };
        let pool = Corpus::with_rows(40).row_group(7).truncated(5).wrong_hash(20).captionless(9);
        pool.caption(12, "click to enlarge").write(&scene.path("in.parquet"));
        scene
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn out(&self, name: &str) -> Location {
        Location::parse(&self.path(name)).unwrap()
    }

    async fn begin(&self, out: &str) -> CurationJob {
        self.try_begin(out, &settings()).await.unwrap()
    }

    async fn try_begin(&self, out: &str, settings: &CurationSettings) -> Result<CurationJob> {
        CurationJob::begin(&self.out(out), &[self.path("in.parquet")], settings).await
    }

    async fn run(&self, out: &str) -> CurationJob {
        let job = self.begin(out).await;
        for task in 0..job.tasks().len() as u64 {
            finish(&job, task, 0.0).await;
        }
        job.summary().await.unwrap();
        job
    }

    fn again(&self, selection: &SelectionSettings) -> Reselection {
        Reselection {
            selection: selection.clone(),
            dedup: None,
            share: Share::WHOLE,
            scratch: self.folder.path().to_owned(),
            memory_bytes: 1 << 20,
        }
    }

    fn written(&self, out: &str) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        collect(self.folder.path().join(out).as_path(), "", &mut found);
        found
    }

    async fn samples(&self, out: &str) -> Vec<Sample> {
        let files = [self.path(&format!("{out}/part-*.parquet"))];
        let set = read_all(&files, &ColumnNames::default(), 1 << 20).await.unwrap();
        assert!(set.quarantined.is_empty(), "{:?}", set.quarantined);
        set.samples
    }
}

fn collect(folder: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        match entry.path().is_dir() {
            true => collect(&entry.path(), &format!("{name}/"), found),
            false => drop(found.insert(name, std::fs::read(entry.path()).unwrap())),
        }
    }
}

fn settings() -> CurationSettings {
    CurationSettings {
        columns: ColumnNames::default(),
        task_row_groups: 2,
        max_pixels: 1 << 20,
        selection: SelectionSettings::default(),
        models: serde_json::json!({"captioner": "made up"}),
    }
}

/// Two written texts for each row; scores are a function of the row, moved by `device`.
fn scores(task: &CurationTask, device: f32) -> Vec<Vec<ScoredText>> {
    let score = |row: &TaskRow, index: usize| (row.row as f32 * 0.37 + index as f32 * 0.61 + device) % 1.0;
    let of_row = |row: &TaskRow| {
        let written = ["a first text", "a second text"].map(str::to_owned);
        let web = row.web.iter().cloned().map(|text| (text, TextSource::Web));
        let texts = web.chain(written.map(|text| (text, TextSource::Synthetic)));
        let scored = texts.enumerate().map(|(index, (text, source))| ScoredText {
            text,
            source,
            clip_score: Some(score(row, index)),
            itm_score: None,
        });
        scored.collect()
    };
    task.rows.iter().map(of_row).collect()
}

async fn finish(job: &CurationJob, task: u64, device: f32) -> TaskDone {
    let task = job.read_task(task).await.unwrap();
    let texts = scores(&task, device);
    job.finish_task(&task, texts).await.unwrap()
}

#[tokio::test]
async fn rows_keep_their_best_texts_and_the_loader_reads_those_alone() {
    let scene = Scene::new();
    let job = scene.run("out").await;
    assert_eq!((job.tasks().len(), job.rows()), (3, 40));
    let summary = job.summary().await.unwrap();
    assert_eq!((summary.tasks_done, summary.rows_read, summary.rejected, summary.rows), (3, 40, 2, 38));
    assert_eq!(summary.web["boilerplate"], 1);
    let kept = summary.web[KEPT] + summary.synthetic[KEPT];
    assert_eq!(kept, 2 * 38);
    let samples = scene.samples("out").await;
    assert_eq!(samples.len(), 38);
    assert!(samples.iter().all(|sample| sample.captions.len() == 2));
    let row = |key: &str| samples.iter().find(|sample| sample.key == key).unwrap();
    // Best first; of row 9, which came without one, the two that were written.
    assert_eq!(row("key-9").captions, ["a first text", "a second text"]);
    assert!(!row("key-12").captions.iter().any(|caption| caption.contains("click")));
    let rejected = scene.written("out")["rejected/000001.parquet"].clone();
    let rejected = QuarantineList::from_parquet(rejected.into()).unwrap();
    let reasons: Vec<_> = rejected.iter().map(|record| (record.sample, record.reason.clone())).collect();
    assert_eq!(reasons, [(20, "its picture does not have the recorded sha256".to_owned())]);
}

/// Every text is in the files, with scores, in their order.
#[tokio::test]
async fn nothing_is_thrown_away() {
    let scene = Scene::new();
    let job = scene.run("out").await;
    let scored = job.read_scored(0).await.unwrap().unwrap();
    assert_eq!(scored.len(), 13);
    assert!(scored.iter().filter(|row| row.key != "key-9").all(|row| row.texts.len() == 3));
    let content = scene.written("out")["part-000000.parquet"].clone();
    let batches = read_parquet(content.into()).unwrap();
    use arrow::array::{Array, AsArray};
    let texts: usize = batches
        .iter()
        .map(|batch| {
            let list = batch.column_by_name("captions").unwrap().as_list::<i32>().clone();
            let items = list.values().as_struct();
            let dropped = items.column_by_name("dropped").unwrap();
            assert!(dropped.null_count() > 0 && dropped.null_count() < items.len());
            let scores = items.column_by_name("clip_score").unwrap();
            let scores = scores.as_primitive::<arrow::datatypes::Float32Type>();
            for ends in list.value_offsets().windows(2) {
                let scores = &scores.values()[ends[0] as usize..ends[1] as usize];
                assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
            }
            items.len()
        })
        .sum();
    assert_eq!(texts, scored.iter().map(|row| row.texts.len()).sum::<usize>());
}

/// What wrote the scores that are there decides, whoever goes on.
#[tokio::test]
async fn a_job_that_was_killed_after_any_write_ends_with_the_same_bytes() {
    let scene = Scene::new();
    scene.run("out").await;
    let whole = scene.written("out");
    let kinds = ["curate", "scored/", "part", "rejected/", "done/", "summary"];
    let mut names: Vec<_> = whole.keys().cloned().collect();
    let task = |name: &str| name.split(['-', '/', '.']).find_map(|part| part.parse::<u64>().ok());
    names.sort_by_key(|name| {
        let kind = kinds.iter().position(|kind| name.starts_with(kind)).unwrap();
        (kind == kinds.len() - 1, task(name), kind)
    });
    for killed_after in 1..=names.len() {
        let out = format!("after-{killed_after}");
        for name in &names[..killed_after] {
            let path = scene.folder.path().join(&out).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &whole[name]).unwrap();
        }
        let job = scene.begin(&out).await;
        let open = job.tasks().len() as u64;
        for number in (0..open).rev() {
            // A device that would score otherwise finishes what another one scored.
            let device = if whole_is_scored(&names[..killed_after], number) { 0.5 } else { 0.0 };
            finish(&job, number, device).await;
        }
        job.summary().await.unwrap();
        assert_eq!(scene.written(&out), whole, "killed after {killed_after} writes");
    }
}

fn whole_is_scored(names: &[String], task: u64) -> bool {
    names.contains(&format!("scored/{task:06}.parquet"))
}

#[tokio::test]
async fn a_selection_moves_without_a_model() {
    let scene = Scene::new();
    let job = scene.run("out").await;
    let other = SelectionSettings { top: 1, min_clip_score: 0.5, ..SelectionSettings::default() };
    let summary = reselect(&job, &scene.out("other"), &scene.again(&other), |_| ()).await.unwrap();
    assert_eq!(summary.tasks_done, 3);
    assert!(summary.without_text > 0 && summary.rows + summary.without_text == 38, "{summary:?}");
    assert!(scene.samples("other").await.iter().all(|sample| sample.captions.len() == 1));

    // Back again, from the second job and in two shares: the first one's files.
    let second = CurationJob::open(&scene.out("other")).await.unwrap();
    for index in [1, 0] {
        let share = Share { index, count: 2 };
        let same = Reselection { share, ..scene.again(&SelectionSettings::default()) };
        reselect(&second, &scene.out("back"), &same, |_| ()).await.unwrap();
    }
    let (first, back) = (scene.written("out"), scene.written("back"));
    for (name, content) in back.iter().filter(|(name, _)| *name != "curate.json") {
        assert_eq!(first.get(name), Some(content), "{name}");
    }
    assert_eq!(first.len(), back.len() + 3, "all but the scores");

    let unfinished = scene.begin("unfinished").await;
    let error = reselect(&unfinished, &scene.out("x"), &scene.again(&other), |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("no scores yet"), "{error}");
}

/// The corpus' images are of one colour each, so that all of them look alike.
#[tokio::test]
async fn duplicates_are_left_out() {
    let scene = Scene::new();
    let job = scene.run("out").await;
    for (near_bits, rows) in [(None, 38), (Some(0), 1)] {
        let out = format!("dedup-{near_bits:?}");
        let wanted = Reselection {
            dedup: Some(DedupRule { near_bits }),
            ..scene.again(&SelectionSettings::default())
        };
        for _ in 0..2 {
            let summary = reselect(&job, &scene.out(&out), &wanted, |_| ()).await.unwrap();
            assert_eq!((summary.rows, summary.duplicates), (rows, 38 - rows), "{near_bits:?}");
        }
        assert!(scene.written(&out).contains_key("duplicates.parquet"));
    }
    let other = scene.again(&SelectionSettings::default());
    let error = reselect(&job, &scene.out("dedup-None"), &other, |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("other settings"), "{error}");
}

#[tokio::test]
async fn another_job_or_input_is_refused() {
    let scene = Scene::new();
    let other = CurationSettings { models: serde_json::json!({}), ..settings() };
    // Of a start that failed nothing is left but its record, which gives way.
    scene.try_begin("out", &other).await.unwrap();
    let job = scene.begin("out").await;
    assert_eq!(job.settings(), &settings());
    finish(&job, 0, 0.0).await;
    let refused =
        async |settings: &CurationSettings| scene.try_begin("out", settings).await.unwrap_err().to_string();
    assert!(refused(&other).await.contains("other models"));
    let other = CurationSettings { task_row_groups: 3, ..settings() };
    assert!(refused(&other).await.contains("other settings"));
    let none = CurationSettings { task_row_groups: 0, ..settings() };
    assert!(refused(&none).await.contains("task_row_groups"));

    let job = scene.begin("out").await;
    let task = job.read_task(0).await.unwrap();
    let error = job.finish_task(&task, Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("0 lists of texts"), "{error}");
    assert!(job.read_task(3).await.unwrap_err().to_string().contains("has 3"));
    Corpus::with_rows(41).row_group(7).write(&scene.path("in.parquet"));
    assert!(matches!(job.read_task(0).await, Err(DatasetError::Store(StoreError::Changed { .. }))));
    let error = scene.try_begin("out", &settings()).await.unwrap_err();
    assert!(matches!(error, DatasetError::Store(StoreError::Changed { .. })), "{error}");
    assert!(matches!(
        CurationJob::open(&scene.out("none")).await,
        Err(DatasetError::Store(StoreError::NotFound { .. }))
    ));
}
