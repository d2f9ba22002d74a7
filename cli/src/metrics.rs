//! Committed steps as lines of charts.

use blip2_pages::chart::Series;
use blip2_records::StepRecord;

/// The named values of one stage as lines of a chart, steps counted from the stage's start.
pub(crate) fn series(records: &[StepRecord], stage: u32, names: &[(&str, &str)]) -> Vec<Series> {
    let own: Vec<&StepRecord> = records.iter().filter(|record| record.stage == stage).collect();
    let first = own.first().map_or(0, |record| record.step);
    names
        .iter()
        .map(|(key, name)| Series {
            name: (*name).to_owned(),
            points: own
                .iter()
                .filter_map(|record| {
                    let value = record.values.get(*key)?;
                    Some((record.step - first, value.unwrap_or(f64::NAN)))
                })
                .collect(),
        })
        .filter(|line: &Series| !line.points.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_line_has_the_steps_of_its_stage_and_a_gap_for_what_is_not_finite() {
        let record = |step: u64, loss: Option<f64>| StepRecord {
            step,
            stage: 1 + u32::from(step >= 3),
            values: BTreeMap::from([("loss".to_owned(), loss)]),
            ..StepRecord::default()
        };
        let records = [record(2, Some(1.0)), record(3, Some(2.0)), record(4, None)];
        let lines = series(&records, 2, &[("loss", "total"), ("itc", "contrastive")]);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].points[0], (0, 2.0));
        assert!(lines[0].points[1].1.is_nan());
    }
}
