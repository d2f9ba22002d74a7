//! Which samples the committed steps have used, stage by stage.

use std::collections::BTreeMap;

use blip2_dataset::coverage::Coverage;
use blip2_proto::v1;
use serde::{Deserialize, Serialize};

use crate::schedule::Schedule;

/// Coverage of every stage begun, in the order of the stages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Entry>", into = "Vec<Entry>")]
pub struct StageCoverage {
    stages: BTreeMap<u32, Coverage>,
}

/// A stage's coverage as a COMMIT object shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    stage: u32,
    samples: u64,
    /// 32 hexadecimal digits.
    digest: String,
}

impl StageCoverage {
    /// Adds what a stage has used.
    pub fn add(&mut self, stage: u32, used: Coverage) {
        *self.stages.entry(stage).or_default() += used;
    }

    /// What a stage has used.
    pub fn of(&self, stage: u32) -> Coverage {
        self.stages.get(&stage).copied().unwrap_or_default()
    }

    /// Stages begun with their coverage.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Coverage)> {
        self.stages.iter().map(|(stage, coverage)| (*stage, *coverage))
    }

    /// Whether these are as many samples of each stage as `committed` steps use.
    ///
    /// # Errors
    /// The first stage that differs, in words.
    pub fn fits(&self, schedule: &Schedule, committed: u64) -> Result<(), String> {
        for stage in self.stages.keys().copied().chain(1..=schedule.stages().len() as u32) {
            let (found, wanted) = (self.of(stage).samples, schedule.samples_of(stage, committed));
            if found != wanted {
                return Err(format!(
                    "its coverage has {found} samples of stage {stage}; {committed} steps use {wanted}"
                ));
            }
        }
        Ok(())
    }

    /// As messages carry it.
    pub fn to_messages(&self) -> Vec<v1::Coverage> {
        self.iter().map(|(stage, used)| coverage_message(stage, used)).collect()
    }

    /// From messages; `None` when a digest has not 16 bytes or a stage is named twice.
    pub fn from_messages(messages: &[v1::Coverage]) -> Option<Self> {
        let mut stages = BTreeMap::new();
        for message in messages {
            if stages.insert(message.stage, coverage_of(message)?).is_some() {
                return None;
            }
        }
        Some(Self { stages })
    }
}

/// What a stage has used, as messages carry it.
pub fn coverage_message(stage: u32, used: Coverage) -> v1::Coverage {
    v1::Coverage { stage, samples: used.samples, digest: used.digest.to_le_bytes().to_vec() }
}

/// The coverage in a message; `None` when its digest has not 16 bytes.
pub fn coverage_of(message: &v1::Coverage) -> Option<Coverage> {
    let digest = u128::from_le_bytes(message.digest.as_slice().try_into().ok()?);
    Some(Coverage { samples: message.samples, digest })
}

impl TryFrom<Vec<Entry>> for StageCoverage {
    type Error = String;

    fn try_from(entries: Vec<Entry>) -> Result<Self, String> {
        let mut stages = BTreeMap::new();
        for Entry { stage, samples, digest } in entries {
            let number = u128::from_str_radix(&digest, 16).ok().filter(|_| digest.len() == 32);
            let digest = number.ok_or_else(|| format!("coverage: {digest:?} is no digest"))?;
            if stages.insert(stage, Coverage { samples, digest }).is_some() {
                return Err(format!("coverage: stage {stage} is there twice"));
            }
        }
        Ok(Self { stages })
    }
}

impl From<StageCoverage> for Vec<Entry> {
    fn from(coverage: StageCoverage) -> Self {
        let entry = |(stage, used): (u32, Coverage)| Entry {
            stage,
            samples: used.samples,
            digest: format!("{:032x}", used.digest),
        };
        coverage.iter().map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schedule::tests::schedule;

    #[test]
    fn both_forms_round_trip_and_sums_do_not_depend_on_order() {
        let (one, two) =
            (Coverage { samples: 3, digest: u128::MAX - 1 }, Coverage { samples: 5, digest: 0xAB00 });
        let (mut a, mut b) = (StageCoverage::default(), StageCoverage::default());
        a.add(1, one);
        a.add(1, two);
        b.add(1, two);
        b.add(1, one);
        assert_eq!(a, b);
        assert_eq!(a.of(1), Coverage { samples: 8, digest: 0xAAFE });
        a.add(2, two);
        assert_eq!(StageCoverage::from_messages(&a.to_messages()), Some(a.clone()));
        let json = serde_json::to_string(&a).expect("plain");
        assert!(
            json.contains(r#"{"stage":2,"samples":5,"digest":"0000000000000000000000000000ab00"}"#),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<StageCoverage>(&json).expect("its own"), a);
        assert!(serde_json::from_str::<StageCoverage>(r#"[{"stage":1,"samples":1,"digest":"ab"}]"#).is_err());
        let mut short = a.to_messages();
        short[0].digest.pop();
        assert_eq!(StageCoverage::from_messages(&short), None);
    }

    #[test]
    fn a_missing_or_surplus_sample_is_named() {
        let schedule = schedule(&[(2, 4), (3, 5)]);
        let mut coverage = StageCoverage::default();
        coverage.fits(&schedule, 0).expect("nothing is used yet");
        coverage.add(1, Coverage { samples: 8, digest: 1 });
        coverage.fits(&schedule, 2).expect("two steps of four");
        let error = coverage.fits(&schedule, 3).expect_err("the third is missing");
        assert!(error.contains("0 samples of stage 2; 3 steps use 5"), "{error}");
        coverage.add(7, Coverage { samples: 1, digest: 1 });
        assert!(coverage.fits(&schedule, 2).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is added in whatever order: one total, which passes through messages and JSON.
        #[test]
        fn coverage_is_a_sum_and_passes_unchanged(
            added in prop::collection::vec((1u32..5, any::<u64>(), any::<u128>()), 0..12),
            turn in 0usize..12,
        ) {
            let mut forward = StageCoverage::default();
            added.iter().for_each(|(stage, samples, digest)| {
                forward.add(*stage, Coverage { samples: *samples, digest: *digest });
            });
            let mut turned = added.clone();
            turned.rotate_left(turn.min(added.len()));
            turned.reverse();
            let mut backward = StageCoverage::default();
            turned.iter().for_each(|(stage, samples, digest)| {
                backward.add(*stage, Coverage { samples: *samples, digest: *digest });
            });
            prop_assert_eq!(&forward, &backward);
            prop_assert_eq!(StageCoverage::from_messages(&forward.to_messages()), Some(forward.clone()));
            let json = serde_json::to_string(&forward).expect("plain");
            prop_assert_eq!(serde_json::from_str::<StageCoverage>(&json).expect("its own"), forward);
        }

        /// What the first steps use fits after these steps, and with one sample more or less after no number
        /// of steps that use another one.
        #[test]
        fn only_the_samples_of_the_committed_steps_fit(
            stages in prop::collection::vec((0u64..5, 1u32..4), 1..4),
            committed in 0u64..12,
            other in 0u64..12,
        ) {
            let schedule = schedule(&stages);
            let committed = committed.min(schedule.total());
            let mut coverage = StageCoverage::default();
            for number in 1..=stages.len() as u32 {
                let samples = schedule.samples_of(number, committed);
                if samples > 0 {
                    coverage.add(number, Coverage { samples, digest: 1 });
                }
            }
            prop_assert_eq!(coverage.fits(&schedule, committed), Ok(()));
            let other = other.min(schedule.total());
            prop_assert_eq!(coverage.fits(&schedule, other).is_ok(), other == committed);
            coverage.add(1, Coverage { samples: 1, digest: 0 });
            prop_assert!(coverage.fits(&schedule, committed).is_err());
        }
    }
}
