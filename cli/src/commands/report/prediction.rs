//! What `plan` predicts of a run's steps, beside what was measured.

use blip2_cost::card;
use blip2_cost::plan::Plan;
use blip2_cost::prediction::{StagePrediction, implied_mfu};
use blip2_cost::units::Seconds;
use blip2_pages::run_page::Table;

use crate::commands::plan::{ClusterArguments, planned};
use crate::config::RunConfig;
use blip2_records::StepRecord;

/// A run's steps against their prediction; `devices` are those of the members it has, or had last.
pub(super) fn table(config: &RunConfig, devices: &[&str], records: &[StepRecord]) -> Table {
    let known = devices.first().and_then(|device| card::of_model(device));
    let one_kind =
        known.filter(|card| devices.iter().all(|device| card::of_model(device).as_ref() == Some(card)));
    let members = u32::try_from(devices.len()).ok().filter(|members| *members > 0);
    let cluster = ClusterArguments::of(members, one_kind.as_ref().map(|card| card.name.clone()));
    let (about, rows) = match planned(config, &cluster) {
        Err(error) => (format!("Not predicted: {error}"), Vec::new()),
        Ok(plan) => {
            let about = match &one_kind {
                Some(card) => format!(
                    "What blip2 plan predicts for as many {} at 25 Gbit/s, beside the median of the measured steps.",
                    card.name
                ),
                None => {
                    "The members' devices are not of one kind that blip2 plan knows: measured steps alone."
                        .into()
                }
            };
            let of_stage = |stage: &StagePrediction| {
                let measured = median(&stage.name, config, records)?;
                Some((format!("stage {}", stage.name), scored(stage, measured, &plan, one_kind.is_some())))
            };
            (about, plan.stages.iter().filter_map(of_stage).collect())
        }
    };
    let empty = "No step was measured on this machine.".into();
    Table { id: "prediction", title: "Prediction".into(), about, rows, empty }
}

/// The middle of a stage's measured steps.
fn median(stage: &str, config: &RunConfig, records: &[StepRecord]) -> Option<f64> {
    let number = config.trained_stages().find(|numbered| numbered.name() == stage)?.number;
    let own = records.iter().filter(|record| record.stage == number && record.seconds > 0.0);
    let mut seconds: Vec<f64> = own.map(|record| record.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied()
}

fn scored(stage: &StagePrediction, measured: f64, plan: &Plan, is_known: bool) -> String {
    let workers = plan.cluster.workers as f64;
    let step = stage.operations_of_pair * stage.batch as f64;
    let rate = step.0 / measured / workers / 1e12;
    let took = format!("measured {measured:.3} s a step, {rate:.2} TFLOP/s a worker");
    if !is_known {
        return took;
    }
    let mfu = implied_mfu(step, Seconds(measured), workers, plan.cluster.card.bf16);
    format!(
        "{took}, {:.1} % of the peak in bf16; predicted {:.3} s, {:.2} of the measured",
        100.0 * mfu,
        stage.step.0,
        stage.step.0 / measured
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Layers;

    fn config() -> RunConfig {
        let mut layers = Layers::new().unwrap();
        let preset = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/pretrain-stage1-vit-g.toml");
        layers.apply_file(Path::new(preset)).unwrap();
        layers.finish().unwrap().config
    }

    fn records(seconds: &[f64]) -> Vec<StepRecord> {
        let record = |(step, seconds): (usize, &f64)| {
            let text = format!(
                r#"{{"step": {step}, "stage": 1, "epoch": 1, "values": {{}}, "seconds": {seconds},
                    "data_wait_seconds": 0.0, "samples": 1680}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        seconds.iter().enumerate().map(record).collect()
    }

    #[test]
    fn a_known_card_is_scored_and_another_is_measured_alone() {
        let (config, records) = (config(), records(&[9.0, 5.0, 4.0]));
        let known = table(&config, &["NVIDIA A100-SXM4-40GB"; 16], &records);
        let [(stage, words)] = &known.rows[..] else { panic!("{:?}", known.rows) };
        assert!(stage == "stage stage1" || stage.starts_with("stage "), "{stage}");
        // 1680 pairs of 0.7178 TFLOP in 5 s on 16 cards of 312 TFLOP/s.
        assert!(words.contains("measured 5.000 s") && words.contains("15.07 TFLOP/s"), "{words}");
        assert!(words.contains("4.8 % of the peak") && words.contains("predicted"), "{words}");
        for devices in [&["cpu", "cpu"][..], &["NVIDIA A100-SXM4-40GB", "NVIDIA H200"]] {
            let other = table(&config, devices, &records);
            assert!(!other.rows[0].1.contains("predicted"), "{:?}", other.rows);
        }
    }

    #[test]
    fn a_run_that_cannot_be_planned_says_why() {
        let mut config = config();
        config.model.image_encoder = "models/mine".into();
        let found = table(&config, &["cpu"], &records(&[1.0]));
        assert!(found.rows.is_empty() && found.about.contains("models/mine"), "{}", found.about);
    }
}
