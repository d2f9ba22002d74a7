mod http;

use std::collections::BTreeMap;

use blip2_images::transform::TrainTransform;
use blip2_store::error::StoreError;
use blip2_test_corpus::Corpus;
use tokio::runtime::Runtime;

use super::*;
use crate::corpus::columns::ColumnNames;
use crate::corpus::manifest::Manifest;
use crate::coverage::Coverage;
use crate::error::DatasetError;
use crate::plan::Plan;
use crate::plan::PlanKey;
use crate::test_assets::{backbone, emoji_sources};
use crate::text::TextEncoder;
use crate::text::TextEncoding;

const WAIT: Duration = Duration::from_secs(30);

struct Fixture {
    runtime: Runtime,
    spec: LoaderSpec,
}

/// A loader's specification over `sources`: 4 slots of 3, small images.
fn fixture(sources: &[String]) -> Fixture {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let columns = ColumnNames::default();
    let manifest = Arc::new(runtime.block_on(Manifest::open(sources, &columns)).unwrap());
    let key = PlanKey { seed: 7, stage: 1 };
    let plan = Arc::new(Plan::new(&manifest, key, 4, 2).unwrap());
    let text = TextEncoder::open(&backbone("qformer-tokenizer"), TextEncoding::new(16, 0)).unwrap();
    let spec = LoaderSpec {
        manifest,
        plan,
        columns,
        slots: 0..4,
        batch_per_slot: 3,
        slots_total: 4,
        first_step: 0,
        last_step: 12,
        seed: key.seed,
        stage: key.stage,
        image: TrainTransform::new(16, [0.5, 1.0], true),
        text: Arc::new(text),
        max_pixels: 1 << 20,
        settings: LoaderSettings::default(),
    };
    Fixture { runtime, spec }
}

#[test]
fn questions_are_read_with_all_answers_and_images_have_ids() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet").to_str().unwrap().to_owned();
    Corpus::with_rows(60).row_group(15).with_questions().captionless(7).write(&path);
    let loaded = |question: &str, image_id: &str| {
        let mut fixture = fixture(std::slice::from_ref(&path));
        let columns = &mut fixture.spec.columns;
        (columns.question, columns.image_id) = (question.into(), image_id.into());
        columns.answers = if question.is_empty() { String::new() } else { "answers".into() };
        let steps = fixture.load(|spec| spec.last_step = 5);
        steps.into_iter().flat_map(|step| step.slots).collect::<Vec<_>>()
    };
    let asked = loaded("question", "file");
    for slot in &asked {
        assert_eq!((slot.questions.len(), slot.captions.len(), slot.image_ids.len()), (3, 0, 3));
        // A caption that is none has no words to answer with.
        assert!(slot.keys.iter().all(|key| key != "key-7"));
        for (question, key) in slot.questions.iter().zip(&slot.keys) {
            assert_eq!(question.text, format!("what is no {}?", key.trim_start_matches("key-")));
            assert!((2..=3).contains(&question.answers.total()), "{question:?}");
        }
    }
    // Questions change nothing of what else is read, and a reader of captions sees none.
    let captions = loaded("", "blake3");
    for (with, without) in asked.iter().zip(&captions) {
        assert!(without.questions.is_empty() && without.captions.len() == 3);
        for row in (0..3).filter(|row| with.keys[*row] == without.keys[*row]) {
            let pixels = with.pixels.len() / 3;
            assert!(with.pixels[row * pixels..][..pixels] == without.pixels[row * pixels..][..pixels]);
        }
    }
    let ids = |slots: &[SlotBatch]| -> BTreeMap<String, u64> {
        slots.iter().flat_map(|slot| slot.keys.iter().cloned().zip(slot.image_ids.iter().copied())).collect()
    };
    let (of_files, of_bytes) = (ids(&asked), ids(&captions));
    let number = |key: &str| key.trim_start_matches("key-").parse::<usize>().unwrap();
    for (one, id) in &of_files {
        for (other, other_id) in &of_files {
            assert_eq!(id == other_id, number(one) / 3 == number(other) / 3, "{one} and {other}");
        }
    }
    let different: std::collections::BTreeSet<u64> = of_bytes.values().copied().collect();
    assert_eq!(different.len(), of_bytes.len(), "every image has other bytes");
    assert!(loaded("", "").iter().all(|slot| slot.image_ids.is_empty()));
}

#[test]
fn where_captions_are_read_too_they_answer_what_nobody_asked() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|name| folder.path().join(format!("{name}.parquet")).display().to_string());
    Corpus::with_rows(30).row_group(15).with_questions().write(&paths[0]);
    Corpus::with_rows(30).row_group(15).caption(2, "A red Heart.").write(&paths[1]);
    let mut names =
        ColumnNames { question: "question".into(), answers: "answers".into(), ..Default::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let missing = runtime.block_on(Manifest::open(&paths, &names)).unwrap_err().to_string();
    assert!(missing.contains("b.parquet") && missing.contains("`question`"), "{missing}");
    names = names.with_captions_too();
    let mut fixture = fixture(&paths[1..]);
    let manifest = Arc::new(runtime.block_on(Manifest::open(&paths, &names)).unwrap());
    fixture.spec.plan = Arc::new(Plan::new(&manifest, PlanKey { seed: 7, stage: 1 }, 4, 2).unwrap());
    (fixture.spec.manifest, fixture.spec.columns) = (manifest, names);
    let steps = fixture.load(|spec| spec.last_step = 5);
    let (mut asked, mut captions) = (0, 0);
    for slot in steps.into_iter().flat_map(|step| step.slots) {
        assert_eq!((slot.questions.len(), slot.captions.len(), slot.quarantined.len()), (3, 0, 0));
        for ((question, address), key) in slot.questions.iter().zip(&slot.addresses).zip(&slot.keys) {
            assert_eq!(question.asks_for_a_caption(), address.file == 1, "{question:?}");
            match question.asks_for_a_caption() {
                true => captions += 1,
                false => asked += 1,
            }
            if address.file == 1 && key == "key-2" {
                assert_eq!(question.answers.most_frequent(), "a red heart");
            }
        }
        assert!(slot.mask.chunks(16).all(|row| row.iter().sum::<i32>() > 2), "what answers has tokens");
    }
    assert!(asked > 20 && captions > 20, "{asked} and {captions} of 60");
}

#[test]
fn a_column_of_questions_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet").to_str().unwrap().to_owned();
    Corpus::with_rows(4).with_questions().write(&path);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = |columns: &ColumnNames| {
        runtime.block_on(Manifest::open(std::slice::from_ref(&path), columns)).unwrap_err().to_string()
    };
    let names = ColumnNames { question: "questions".into(), ..ColumnNames::default() };
    let missing = error(&names);
    assert!(
        missing.contains("`questions`") && missing.contains("data.columns.question = \"question\""),
        "{missing}"
    );
    let names = ColumnNames { question: "question".into(), answers: "jpg".into(), ..ColumnNames::default() };
    assert!(error(&names).contains("`jpg`"), "{}", error(&names));
}

impl Fixture {
    fn load(&self, change: impl FnOnce(&mut LoaderSpec)) -> Vec<StepBatch> {
        let mut spec = self.spec.clone();
        change(&mut spec);
        let steps = spec.last_step - spec.first_step;
        let loader = Loader::start(self.runtime.handle().clone(), spec).unwrap();
        (0..steps).map(|_| StepBatch { waited: Duration::ZERO, ..loader.next(WAIT).unwrap() }).collect()
    }

    fn error(&self, change: impl FnOnce(&mut LoaderSpec)) -> DatasetError {
        let mut spec = self.spec.clone();
        change(&mut spec);
        let loader = match Loader::start(self.runtime.handle().clone(), spec) {
            Ok(loader) => loader,
            Err(error) => return error,
        };
        loop {
            if let Err(error) = loader.next(WAIT) {
                assert_eq!(loader.next(WAIT).unwrap_err().to_string(), error.to_string());
                return error;
            }
        }
    }
}

fn write(corpus: Corpus) -> (tempfile::TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet").to_str().unwrap().to_owned();
    corpus.write(&path);
    (folder, vec![path])
}

#[test]
fn batches_have_the_shapes_they_say() {
    let fixture = fixture(&emoji_sources("train-*.parquet"));
    for (expected, step) in (0..).zip(fixture.load(|_| ())) {
        assert_eq!((step.step, step.slots.len()), (expected, 4));
        for (slot, batch) in (0..).zip(&step.slots) {
            assert_eq!(batch.slot, slot);
            assert_eq!(batch.pixels.len(), 3 * 3 * 16 * 16);
            assert_eq!((batch.ids.len(), batch.mask.len()), (3 * 16, 3 * 16));
            assert!(batch.captions.len() == 3 && batch.captions.iter().all(|caption| !caption.is_empty()));
            let first = expected * 12 + u64::from(slot) * 3;
            assert_eq!(batch.samples, [first, first + 1, first + 2]);
            let planned: Vec<_> = (0..3).map(|i| fixture.spec.plan.locate(slot, expected * 3 + i)).collect();
            assert_eq!(batch.addresses, planned);
            assert!(batch.quarantined.is_empty());
        }
    }
}

#[test]
fn slots_can_be_split_between_loaders() {
    let fixture = fixture(&emoji_sources("train-*.parquet"));
    let whole = fixture.load(|_| ());
    let (left, right) = (fixture.load(|spec| spec.slots = 0..2), fixture.load(|spec| spec.slots = 2..4));
    for ((whole, left), right) in whole.into_iter().zip(left).zip(right) {
        assert_eq!(whole.slots, [left.slots, right.slots].concat());
    }
}

#[test]
fn starting_later_is_skipping() {
    let fixture = fixture(&emoji_sources("train-*.parquet"));
    let whole = fixture.load(|_| ());
    assert_eq!(whole[5..], fixture.load(|spec| spec.first_step = 5));
}

#[test]
fn threads_and_memory_change_nothing() {
    let (_folder, sources) = write(Corpus::with_rows(60).row_group(5).truncated(17).captionless(40));
    let fixture = fixture(&sources);
    // 60 rows in 4 slots of 3: several windows and epochs.
    let base = fixture.load(|spec| spec.last_step = 30);
    for (prefetch_bytes, decode_threads, read_concurrency) in [(0, 1, 1), (3000, 4, 2), (1 << 30, 3, 16)] {
        let settings =
            LoaderSettings { prefetch_bytes, decode_threads, read_concurrency, ..LoaderSettings::default() };
        let other = fixture.load(|spec| (spec.settings, spec.last_step) = (settings, 30));
        assert_eq!(base, other, "{prefetch_bytes} {decode_threads} {read_concurrency}");
    }
}

#[test]
fn samples_are_counted_by_what_they_find_in_memory() {
    let (_folder, sources) = write(Corpus::with_rows(60).row_group(5));
    let fixture = fixture(&sources);
    let counted = |prefetch_bytes: u64| {
        let mut spec = fixture.spec.clone();
        spec.settings = LoaderSettings { prefetch_bytes, decode_threads: 1, ..LoaderSettings::default() };
        let loader = Loader::start(fixture.runtime.handle().clone(), spec).unwrap();
        (0..12).for_each(|_| drop(loader.next(WAIT).unwrap()));
        let found = loader.statistics();
        // 12 steps of 12 samples, none of them replaced.
        assert_eq!(found.found_decoded + found.found_coming + found.found_missing, 144, "{found:?}");
        found
    };
    let ample = counted(1 << 30);
    // The one thread waits for each of the 12 row groups once, at most.
    assert!(ample.found_decoded >= 144 - 12 && ample.reads == 12, "{ample:?}");
    let none = counted(0);
    // Nothing is read ahead, and one row group drops the other.
    assert!(none.found_missing == none.reads && none.reads > 12, "{none:?}");
    assert!(none.found_decoded < ample.found_decoded, "{none:?}");
}

#[test]
fn no_setting_changes_a_batch() {
    let (_folder, sources) = write(Corpus::with_rows(80).row_group(6).truncated(11).wrong_hash(30));
    let fixture = fixture(&sources);
    let base = fixture.load(|spec| spec.last_step = 20);
    let cache = tempfile::tempdir().unwrap();
    for draw in 0..12 {
        let mut rng = blip2_random::KeyedRng::new(5, "settings", &[draw]);
        let settings = LoaderSettings {
            prefetch_bytes: rng.below(200_000),
            decode_threads: 1 + rng.below(4) as usize,
            read_concurrency: 1 + rng.below(6) as usize,
            read_attempts: 1 + rng.below(3) as u32,
            hedged_percent: rng.below(101) as u32,
            disk_cache: if rng.below(2) == 0 { String::new() } else { cache.path().display().to_string() },
            disk_cache_bytes: rng.below(60_000),
        };
        let other = fixture.load(|spec| (spec.settings, spec.last_step) = (settings.clone(), 20));
        assert!(base == other, "{settings:?}");
    }
}

#[test]
fn every_row_is_used_once_an_epoch() {
    let (_folder, sources) = write(Corpus::with_rows(60).row_group(7));
    // Parts of 13 rows: six windows, which are five epochs and a bit.
    let steps = fixture(&sources).load(|spec| spec.last_step = 26);
    let mut used = BTreeMap::new();
    for address in steps.iter().flat_map(|step| &step.slots).flat_map(|slot| &slot.addresses) {
        *used.entry((address.epoch, address.row_group, address.row)).or_insert(0) += 1;
    }
    assert!(used.values().all(|count| *count == 1));
    assert_eq!(used.keys().filter(|(epoch, ..)| *epoch < 5).count(), 300);
}

#[test]
fn bad_rows_are_quarantined_and_replaced() {
    let good = Corpus::with_rows(60).row_group(10);
    let bad = good.clone().truncated(3).captionless(14).wrong_hash(25).truncated(36).caption(47, "🦖");
    let (_folder, sources) = write(good);
    let expected = fixture(&sources).load(|spec| spec.last_step = 5);
    let (_folder, sources) = write(bad);
    let fixture = fixture(&sources);
    let steps = fixture.load(|spec| spec.last_step = 5);
    let mut reasons = BTreeMap::new();
    for (step, expected) in steps.iter().zip(&expected) {
        for (batch, expected) in step.slots.iter().zip(&expected.slots) {
            for record in &batch.quarantined {
                assert_eq!((record.stage, record.file.as_str()), (1, sources[0].as_str()));
                assert!(batch.samples.contains(&record.sample));
                reasons.insert(record.key.clone(), record.reason.clone());
            }
            let used = batch.samples.iter().zip(&batch.addresses);
            let coverage: Coverage = used.map(|(sample, row)| Coverage::of(1, *sample, row.row_id())).sum();
            assert_eq!(batch.coverage, coverage, "that of the rows really used");
            assert_eq!(batch.coverage == expected.coverage, batch.quarantined.is_empty());
            let bad: Vec<_> = batch.quarantined.iter().map(|record| record.sample).collect();
            for (i, sample) in batch.samples.iter().enumerate() {
                let part = fixture.spec.plan.part(batch.slot, step.step * 3 + i as u64);
                let in_part: Vec<_> = (0..fixture.spec.plan.part_rows())
                    .map(|j| fixture.spec.plan.row_of_part(part, j))
                    .collect();
                assert!(in_part.contains(&batch.addresses[i]));
                if !bad.contains(sample) {
                    assert_eq!(batch.captions[i], expected.captions[i], "nothing else shifts");
                    assert_eq!(batch.pixels[i * 768..(i + 1) * 768], expected.pixels[i * 768..(i + 1) * 768]);
                }
            }
        }
    }
    let keys: Vec<_> = reasons.keys().map(String::as_str).collect();
    assert_eq!(keys, ["key-14", "key-25", "key-3", "key-36", "key-47"]);
    assert!(reasons["key-3"].contains("truncated") && reasons["key-25"].contains("sha256"), "{reasons:?}");
    assert!(reasons["key-14"].contains("text") && reasons["key-47"].contains("text"), "{reasons:?}");
}

#[test]
fn failed_downloads_are_no_part_of_the_plan() {
    let (_folder, sources) = write(Corpus::with_rows(60).row_group(10).failed(3).failed(4).failed(36));
    let fixture = fixture(&sources);
    assert_eq!(fixture.spec.plan.rows(), 57);
    // Parts of 14 rows: six windows, which are five epochs and a bit.
    let steps = fixture.load(|spec| spec.last_step = 28);
    let mut used = BTreeMap::new();
    for slot in steps.iter().flat_map(|step| &step.slots) {
        assert!(slot.quarantined.is_empty(), "{:?}", slot.quarantined);
        // The images and captions are those of the rows that were downloaded.
        for (address, caption) in slot.addresses.iter().zip(&slot.captions) {
            *used.entry((address.epoch, address.row_group, address.row)).or_insert(0) += 1;
            let row = (0..10).filter(|row| ![3, 4, 36].contains(&(10 * address.row_group + row)));
            let row = row.clone().nth(address.row as usize).unwrap() + 10 * address.row_group;
            let words = ["red", "apple", "cat", "face", "flag", "heart", "hand"];
            let wanted = format!("{} {}", words[row as usize % 7], words[row as usize / 7 % 7]);
            assert_eq!(*caption, wanted, "{address:?}");
        }
    }
    assert!(used.values().all(|count| *count == 1));
    assert_eq!(used.keys().filter(|(epoch, ..)| *epoch < 5).count(), 285);
}

#[test]
fn an_audit_finds_what_was_loaded_from_the_list_of_bad_rows_alone() {
    let bad = Corpus::with_rows(60).row_group(10).truncated(3).captionless(14).captionless(15).failed(36);
    let (_folder, sources) = write(bad);
    let fixture = fixture(&sources);
    let steps = fixture.load(|spec| spec.last_step = 15);
    let records = steps.iter().flat_map(|step| &step.slots).flat_map(|slot| slot.quarantined.clone());
    let quarantined: Vec<_> = crate::quarantine::QuarantineList::from_iter(records).iter().cloned().collect();
    let audit = crate::plan::audit::audit_stage(&crate::plan::audit::AuditSpec {
        manifest: &fixture.spec.manifest,
        key: fixture.spec.plan.key(),
        slots: 4,
        window_row_groups: 2,
        batch_per_slot: 3,
        marks: &[5, 15],
        quarantined: &quarantined,
        threads: 1,
    });
    let audit = audit.unwrap();
    assert_eq!(audit.problems, Vec::<String>::new());
    assert_eq!(audit.coverage[0], steps[..5].iter().map(StepBatch::coverage).sum());
    assert_eq!(audit.coverage[1], steps.iter().map(StepBatch::coverage).sum());
    assert!(audit.substitutions.len() >= 8 && audit.uses.is_exact(), "{}", audit.substitutions.len());
}

#[test]
fn one_of_several_captions_is_drawn_each_step() {
    let (_folder, sources) = write(Corpus::with_rows(24).with_alternatives());
    let fixture = fixture(&sources);
    let mut seen: BTreeMap<_, Vec<bool>> = BTreeMap::new();
    for step in fixture.load(|spec| spec.last_step = 20) {
        for batch in &step.slots {
            for (caption, address) in batch.captions.iter().zip(&batch.addresses) {
                seen.entry(address.row).or_default().push(caption.split(' ').count() == 3);
            }
        }
    }
    // Ten epochs: both captions of nearly every row are met.
    let both = seen.values().filter(|drawn| drawn.contains(&true) && drawn.contains(&false)).count();
    assert!(seen.len() == 24 && both >= 20, "{both} of {}", seen.len());
}

#[test]
fn a_corpus_without_usable_rows_ends_with_an_error() {
    let corpus = (0..8).fold(Corpus::with_rows(8), Corpus::captionless);
    let (_folder, sources) = write(corpus);
    let error = fixture(&sources).error(|_| ());
    assert!(matches!(error, DatasetError::NoUsableRow { .. }) && error.is_bad_input(), "{error}");
    assert!(error.to_string().contains("no text"), "{error}");
}

#[test]
fn files_that_vanish_or_change_are_reported() {
    let (folder, sources) = write(Corpus::with_rows(60));
    let fixture = fixture(&sources);
    Corpus::with_rows(61).write(&sources[0]);
    let error = fixture.error(|_| ());
    assert!(matches!(error, DatasetError::Store(StoreError::Changed { .. })), "{error}");
    drop(folder);
    let error = fixture.error(|_| ());
    assert!(
        matches!(&error, DatasetError::Store(StoreError::NotFound { location }) if *location == sources[0]),
        "{error}"
    );
}

#[test]
fn damaged_row_groups_are_named() {
    let (_folder, sources) = write(Corpus::with_rows(60).row_group(20));
    let mut content = std::fs::read(&sources[0]).unwrap();
    let middle = content.len() / 3;
    content[4..middle].fill(0xaa);
    std::fs::write(&sources[0], content).unwrap();
    let error = fixture(&sources).error(|_| ());
    assert!(matches!(&error, DatasetError::DamagedRowGroup { file, .. } if *file == sources[0]), "{error}");
}

#[test]
fn contradictions_are_refused_at_the_start() {
    let (_folder, sources) = write(Corpus::with_rows(20));
    let fixture = fixture(&sources);
    let changes: [fn(&mut LoaderSpec); 7] = [
        |spec| spec.slots = 2..2,
        |spec| spec.slots = 3..5,
        |spec| spec.seed = 8,
        |spec| spec.batch_per_slot = 0,
        |spec| spec.image.crop_scale = [0.0, 1.0],
        |spec| spec.settings.decode_threads = 0,
        |spec| spec.first_step = 13,
    ];
    for change in changes {
        assert!(matches!(fixture.error(change), DatasetError::Setting(_)));
    }
}

#[test]
fn the_end_and_a_missed_deadline_are_told_apart() {
    let (_folder, sources) = write(Corpus::with_rows(20));
    let fixture = fixture(&sources);
    assert!(matches!(fixture.error(|spec| spec.last_step = 2), DatasetError::Ended { step: 2 }));
    let loader = Loader::start(fixture.runtime.handle().clone(), fixture.spec.clone()).unwrap();
    match loader.next(Duration::ZERO) {
        Err(DatasetError::Deadline { step: 0, .. }) => assert_eq!(loader.next(WAIT).unwrap().step, 0),
        Ok(batch) => assert_eq!(batch.step, 0),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn dropping_ends_threads_and_reads() {
    let fixture = fixture(&emoji_sources("train-*.parquet"));
    for wait in [Duration::ZERO, Duration::from_millis(20)] {
        let loader = Loader::start(fixture.runtime.handle().clone(), fixture.spec.clone()).unwrap();
        std::thread::sleep(wait);
        drop(loader);
        // Decode threads were joined. A read that was ended leaves the runtime's list right after.
        let reads = || fixture.runtime.metrics().num_alive_tasks();
        let mut looks = 0;
        while reads() > 0 && looks < 1000 {
            std::thread::sleep(Duration::from_millis(1));
            looks += 1;
        }
        assert_eq!(reads(), 0);
    }
}
