use std::collections::BTreeMap;

use super::*;
use crate::corpus::manifest::Manifest;
use crate::plan::{PlanKey, RowAddress};
use crate::quarantine::QuarantineRecord;
use crate::test_assets::manifest;

const KEY: PlanKey = PlanKey { seed: 11, stage: 2 };

fn spec<'a>(manifest: &'a Manifest, marks: &'a [u64]) -> AuditSpec<'a> {
    AuditSpec {
        manifest,
        key: KEY,
        slots: 4,
        window_row_groups: 2,
        batch_per_slot: 3,
        marks,
        quarantined: &[],
        threads: 3,
    }
}

/// Rows and samples of all steps, the slow way: as a loader locates them.
fn samples(manifest: &Manifest, steps: u64) -> Vec<(u64, RowAddress)> {
    let plan = Plan::new(manifest, KEY, 4, 2).unwrap();
    let places =
        (0..steps).flat_map(|step| (0..4).flat_map(move |slot| (0..3).map(move |i| (step, slot, i))));
    places
        .map(|(step, slot, i)| ((step * 4 + u64::from(slot)) * 3 + i, plan.locate(slot, step * 3 + i)))
        .collect()
}

fn total(samples: &[(u64, RowAddress)]) -> Coverage {
    samples.iter().map(|(sample, row)| Coverage::of(KEY.stage, *sample, row.row_id())).sum()
}

fn record(manifest: &Manifest, sample: u64, row: RowAddress) -> QuarantineRecord {
    QuarantineRecord {
        key: String::new(),
        file: manifest.files[row.file as usize].location.clone(),
        row_group: row.row_group,
        row: row.row,
        reason: "it is truncated".into(),
        sample,
        stage: KEY.stage,
    }
}

#[test]
fn the_pass_finds_what_a_loader_uses() {
    for files in [&[&[16u32; 9][..], &[5, 0, 11, 40][..]][..], &[&[3][..]][..], &[&[997][..], &[1][..]][..]] {
        let manifest = manifest(files);
        let marks = [0, 1, 1, 7, 20, 55];
        let audit = audit_stage(&spec(&manifest, &marks)).unwrap();
        for (mark, coverage) in marks.iter().zip(&audit.coverage) {
            assert_eq!(*coverage, total(&samples(&manifest, *mark)), "{files:?} after {mark} steps");
        }
        let mut uses = BTreeMap::new();
        for (_, row) in samples(&manifest, 55) {
            *uses.entry(row.row_id()).or_insert(0) += 1;
        }
        let least = if uses.len() as u64 == manifest.rows() { *uses.values().min().unwrap() } else { 0 };
        assert_eq!((audit.uses.fewest, Some(&audit.uses.most)), (least, uses.values().max()));
        assert!(audit.uses.is_exact(), "{:?}", audit.uses);
        assert_eq!((audit.uses.samples, audit.uses.rows), (55 * 12, manifest.rows()));
    }
}

#[test]
fn whole_epochs_use_every_row_exactly_as_often() {
    // 144 rows: parts of 32 in 4 slots, so an epoch is nine eighths of a window; eight epochs are nine
    // windows.
    let manifest = manifest(&[&[16; 9]]);
    let audit = audit_stage(&spec(&manifest, &[96])).unwrap();
    let uses = audit.uses;
    assert_eq!((uses.finished_epochs, uses.begun_epochs, uses.fewest, uses.most), (8, 8, 8, 8));
    let uses = audit_stage(&spec(&manifest, &[95])).unwrap().uses;
    assert!(uses.is_exact() && uses.finished_epochs < uses.begun_epochs, "{uses:?}");
    let doubled = RowUses { most: 9, ..audit.uses };
    let missing = RowUses { fewest: 7, ..audit.uses };
    assert!(!doubled.is_exact() && !missing.is_exact());
}

#[test]
fn another_corpus_seed_or_batch_has_another_coverage() {
    let corpus = manifest(&[&[16; 9]]);
    let base = audit_stage(&spec(&corpus, &[10])).unwrap().coverage[0];
    let other = manifest(&[&[16, 16, 16, 16, 16, 16, 16, 15, 17]]);
    let others = [
        AuditSpec { manifest: &other, ..spec(&corpus, &[10]) },
        AuditSpec { key: PlanKey { seed: 12, ..KEY }, ..spec(&corpus, &[10]) },
        AuditSpec { key: PlanKey { stage: 1, ..KEY }, ..spec(&corpus, &[10]) },
        AuditSpec { window_row_groups: 1, ..spec(&corpus, &[10]) },
    ];
    for spec in others {
        let found = audit_stage(&spec).unwrap().coverage[0];
        assert_eq!(found.samples, base.samples);
        assert_ne!(found.digest, base.digest, "{spec:?}");
    }
}

#[test]
fn substitutes_are_found_from_the_list_alone() {
    let manifest = manifest(&[&[16; 9]]);
    let plan = Plan::new(&manifest, KEY, 4, 2).unwrap();
    let mut samples = samples(&manifest, 10);
    let index = samples.iter().position(|(sample, _)| *sample == 77).unwrap();
    // Sample 77 is the third of slot 1 in step 6.
    let mut candidates = plan.candidates(1, 20, 77);
    let (planned, first) = (candidates.next().unwrap(), candidates.next().unwrap());
    let used = candidates.find(|row| ![planned, first].contains(row)).unwrap();
    assert_eq!(samples[index].1, planned);
    samples[index].1 = used;

    let quarantined = [record(&manifest, 77, first), record(&manifest, 77, planned)];
    let marked = AuditSpec { quarantined: &quarantined, ..spec(&manifest, &[6, 7, 10]) };
    let audit = audit_stage(&marked).unwrap();
    assert_eq!(audit.problems, Vec::<String>::new());
    assert_eq!(audit.coverage[0], total(&samples[..72]));
    assert_eq!(audit.coverage[2], total(&samples));
    let [found] = &audit.substitutions[..] else { panic!("{:?}", audit.substitutions) };
    assert_eq!((found.sample, found.step, found.planned, found.used), (77, 6, planned, used));
    assert_eq!(found.unusable, [quarantined[1].clone(), quarantined[0].clone()]);
}

#[test]
fn quarantined_rows_that_do_not_fit_the_plan_are_named() {
    let manifest = manifest(&[&[16; 9]]);
    let plan = Plan::new(&manifest, KEY, 4, 2).unwrap();
    let elsewhere = RowAddress { row_group: (plan.locate(1, 20).row_group + 4) % 9, ..plan.locate(1, 20) };
    let stranger = QuarantineRecord { file: "/c/other".into(), ..record(&manifest, 77, elsewhere) };
    let late = record(&manifest, 12_000, plan.locate(0, 3000));
    let quarantined = [record(&manifest, 77, elsewhere), late];
    let marked = AuditSpec { quarantined: &quarantined, ..spec(&manifest, &[10]) };
    let problems = audit_stage(&marked).unwrap().problems;
    assert!(problems[0].contains("sample 77") && problems[0].contains("does not meet"), "{problems:?}");
    assert!(
        problems[1].contains("sample 12000") && problems[1].contains("10 committed steps"),
        "{problems:?}"
    );
    let marked = AuditSpec { quarantined: &[stranger], ..spec(&manifest, &[10]) };
    let problems = audit_stage(&marked).unwrap().problems;
    assert!(problems[0].contains("not in the manifest"), "{problems:?}");
}
