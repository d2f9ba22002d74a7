use blip2_dataset::plan::Plan;
use blip2_run::commit::ShardRecord;
use blip2_run::coverage::StageCoverage;
use blip2_run::epoch::{EpochMember, Epochs};
use blip2_run::layout;
use blip2_store::put_create;
use bytes::Bytes;

use super::*;

/// A run that lies in a folder: two stages of three steps, checkpoints after steps 2, 3 and 5.
struct Fixture {
    _folder: tempfile::TempDir,
    root: Location,
    config: RunConfig,
    manifest: Manifest,
    /// What the checkpoints say to be skipped.
    skipped: Vec<u64>,
}

const STEPS: [u64; 3] = [2, 3, 5];

fn manifest(row_groups: &[u32]) -> Manifest {
    let file = blip2_dataset::corpus::manifest::ManifestFile {
        location: "/c/a.parquet".into(),
        bytes: 1,
        etag: None,
        row_groups: row_groups.to_vec(),
        failed: Vec::new(),
    };
    Manifest::of(vec![file])
}

/// What the steps up to `step` use, as workers would count it.
fn coverage(config: &RunConfig, manifest: &Manifest, step: u64) -> StageCoverage {
    let mut coverage = StageCoverage::default();
    for (stage, steps) in [(1, step.min(3)), (2, step.saturating_sub(3))] {
        let key = PlanKey { seed: config.train.seed, stage };
        let plan = Plan::new(manifest, key, config.train.slots, config.data.window_row_groups).unwrap();
        for (step, slot, index) in
            (0..steps).flat_map(|step| (0..4).flat_map(move |slot| (0..2).map(move |i| (step, slot, i))))
        {
            let row = plan.locate(slot, step * 2 + index);
            let sample = (step * 4 + u64::from(slot)) * 2 + index;
            coverage.add(stage, Coverage::of(stage, sample, row.row_id()));
        }
    }
    coverage
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Location::parse(folder.path().to_str().unwrap()).unwrap();
        let mut config = RunConfig::default();
        config.run.id = "run".into();
        config.train.slots = 4;
        config.stages.iter_mut().for_each(|stage| (stage.steps, stage.batch) = (3, 8));
        let manifest = manifest(&[10; 5]);
        put_create(&root.join(layout::CONFIGURATION), toml::to_string(&config).unwrap().into_bytes().into())
            .await
            .unwrap();
        put_create(&root.join(layout::MANIFEST), manifest.to_parquet().unwrap()).await.unwrap();
        let fixture = Self { _folder: folder, root, config, manifest, skipped: vec![1, 4] };
        let epochs = blip2_run::epoch::Epochs::new(&fixture.root, "c".into(), String::new());
        let member =
            EpochMember { id: 1, name: "w".into(), first_slot: 0, slot_count: 4, device: "cpu".into() };
        epochs.take(1, 0, Vec::new()).await.unwrap();
        epochs.take(2, 0, vec![member]).await.unwrap();
        for step in STEPS {
            let coverage = coverage(&fixture.config, &fixture.manifest, step);
            fixture.checkpoint(step, coverage).await;
        }
        fixture
    }

    /// Writes a checkpoint, over one that is there.
    async fn checkpoint(&self, step: u64, coverage: StageCoverage) {
        let part = Bytes::from_static(b"state");
        let part_record = ShardRecord::of("part-0.safetensors", &part);
        let record = CheckpointRecord {
            run_id: self.config.run.id.clone(),
            config_hash: config_hash(&self.config.worker()),
            manifest_hash: self.manifest.digest(),
            parts: vec![part_record],
            coverage,
            skipped_steps: self.skipped.iter().copied().filter(|skipped| *skipped < step).collect(),
            ..CheckpointRecord::new(&self.config.schedule(), step, 2)
        };
        let folder = Catalogue::new(&self.root).folder(&record.name);
        if folder.join(layout::COMMIT).head().await.unwrap().is_some() {
            folder.join(layout::COMMIT).delete().await.unwrap();
        }
        folder.join("part-0.safetensors").put(part).await.unwrap();
        Catalogue::new(&self.root).write_commit(&record, &QuarantineList::default()).await.unwrap();
    }

    async fn differences(&self) -> Vec<String> {
        let report = audit(&self.root, 2).await.unwrap();
        assert_eq!(report.exact, report.differences.is_empty());
        report.differences
    }
}

#[tokio::test]
async fn a_run_without_fault_is_exact() {
    let fixture = Fixture::new().await;
    let report = audit(&fixture.root, 2).await.unwrap();
    assert_eq!(report.differences, Vec::<String>::new());
    assert_eq!((report.steps, report.checkpoints, report.epochs), (5, 3, 2));
    assert_eq!(report.skipped_steps, [1, 4]);
    let stages: Vec<_> = report.stages.iter().map(|stage| (stage.stage, stage.samples, stage.rows)).collect();
    assert_eq!(stages, [(1, 24, 50), (2, 16, 50)]);
}

#[tokio::test]
async fn a_changed_doubled_or_missing_sample_is_named_with_its_checkpoint() {
    let fixture = Fixture::new().await;
    let mut changed = coverage(&fixture.config, &fixture.manifest, 3);
    changed.add(1, Coverage { samples: 0, digest: 1 });
    fixture.checkpoint(3, changed).await;
    let differences = fixture.differences().await;
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert!(
        differences[0].contains("00000003-000002") && differences[0].contains("stage 1"),
        "{differences:?}"
    );

    let mut doubled = coverage(&fixture.config, &fixture.manifest, 3);
    doubled.add(1, Coverage::of(1, 0, (0, 0, 0)));
    fixture.checkpoint(3, doubled).await;
    let differences = fixture.differences().await;
    assert!(differences[0].contains("counts 25 samples of stage 1"), "{differences:?}");
}

#[tokio::test]
async fn checkpoints_that_disagree_on_what_was_skipped_are_named() {
    let mut fixture = Fixture::new().await;
    fixture.skipped = vec![2];
    fixture.checkpoint(3, coverage(&fixture.config, &fixture.manifest, 3)).await;
    let differences = fixture.differences().await;
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert!(
        differences[0].contains("00000003-000002") && differences[0].contains("[2] were"),
        "{differences:?}"
    );
}

#[tokio::test]
async fn damage_that_was_passed_over_is_a_note_and_a_damaged_end_is_not() {
    let fixture = Fixture::new().await;
    let damage = |name: &str| {
        let commit = Catalogue::new(&fixture.root).folder(name).join(layout::COMMIT);
        async move { commit.put(Bytes::from_static(b"{")).await.unwrap() }
    };
    damage("00000003-000002").await;
    let report = audit(&fixture.root, 2).await.unwrap();
    assert!(report.exact, "{:?}", report.differences);
    assert!(report.notes[0].contains("00000003-000002 is damaged"), "{:?}", report.notes);

    // The newest one too: nothing shows that the run did without both, until it goes on from before.
    damage("00000005-000002").await;
    let differences = fixture.differences().await;
    assert!(differences.len() == 2 && differences[1].contains("00000005-000002"), "{differences:?}");
    let epochs = blip2_run::epoch::Epochs::new(&fixture.root, "d".into(), String::new());
    epochs.take(3, 2, Vec::new()).await.unwrap();
    let report = audit(&fixture.root, 2).await.unwrap();
    assert!(report.exact && report.notes.len() == 2, "{:?} {:?}", report.differences, report.notes);
}

#[tokio::test]
async fn another_corpus_or_configuration_is_named() {
    let fixture = Fixture::new().await;
    fixture
        .root
        .join(layout::MANIFEST)
        .put(manifest(&[9, 11, 10, 10, 10]).to_parquet().unwrap())
        .await
        .unwrap();
    let differences = fixture.differences().await;
    assert!(differences.iter().any(|line| line.contains("another corpus")), "{differences:?}");
    assert!(differences.iter().any(|line| line.contains("not those of the plan")), "{differences:?}");

    let fixture = Fixture::new().await;
    let mut config = fixture.config.clone();
    config.train.seed += 1;
    fixture
        .root
        .join(layout::CONFIGURATION)
        .put(toml::to_string(&config).unwrap().into_bytes().into())
        .await
        .unwrap();
    let differences = fixture.differences().await;
    assert!(differences.iter().any(|line| line.contains("another configuration")), "{differences:?}");
}

#[tokio::test]
async fn epochs_lists_and_damaged_checkpoints_are_part_of_it() {
    let fixture = Fixture::new().await;
    layout::epoch_object(&fixture.root, 2).delete().await.unwrap();
    let folder = Catalogue::new(&fixture.root).folder("00000002-000002");
    folder.join(layout::QUARANTINE).put(Bytes::from_static(b"?")).await.unwrap();
    Catalogue::new(&fixture.root)
        .folder("00000003-000002")
        .join(layout::COMMIT)
        .put(Bytes::from_static(b"{"))
        .await
        .unwrap();
    let report = audit(&fixture.root, 2).await.unwrap();
    let differences = report.differences.join("\n");
    assert!(differences.contains("there is no epoch 2"), "{differences}");
    // A whole checkpoint is newer: the run did without these.
    let notes = report.notes.join("\n");
    for part in ["00000002-000002", "00000003-000002 is damaged"] {
        assert!(notes.contains(part) && !differences.contains(part), "no `{part}` in {notes}");
    }
    let nothing = tempfile::tempdir().unwrap();
    let root = Location::parse(nothing.path().to_str().unwrap()).unwrap();
    assert!(audit(&root, 1).await.unwrap_err().to_string().contains("is not a run"));
}

#[tokio::test]
async fn an_epoch_that_breaks_off_is_a_note_once_a_later_one_took_its_place() {
    let fixture = Fixture::new().await;
    let newest = Epochs::new(&fixture.root, String::new(), String::new()).newest().await.unwrap();
    let object = |number: u64| layout::epoch_object(&fixture.root, number);
    object(newest + 1).put(Bytes::from_static(b"")).await.unwrap();
    let report = audit(&fixture.root, 2).await.unwrap();
    assert_eq!(report.differences.len(), 1, "nobody has gone on since: {:?}", report.differences);

    object(newest + 2).put(Bytes::from_static(b"{\"epoch\": ")).await.unwrap();
    Epochs::new(&fixture.root, "b".into(), String::new()).begin(3).await.unwrap();
    let report = audit(&fixture.root, 2).await.unwrap();
    assert!(report.exact, "{:?}", report.differences);
    let torn: Vec<_> = report.notes.iter().filter(|note| note.contains("breaks off")).collect();
    assert_eq!(torn.len(), 2, "{:?}", report.notes);

    // One whose content is another's is no crash.
    object(newest + 2).put(Bytes::from_static(b"{\"epoch\": true}")).await.unwrap();
    assert!(!audit(&fixture.root, 2).await.unwrap().exact);
}
