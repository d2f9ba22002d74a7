//! One line for every committed step of a run: in `metrics.jsonl` where the run lies on this machine, else in
//! segments in its store. Beside them the same for TensorBoard.

mod event_file;
mod file;
mod keeping;
mod record;
mod segments;
mod tensorboard;

use blip2_pages::chart::Series;

pub(crate) use self::file::read;
pub(crate) use self::keeping::MetricsLog;
pub(crate) use self::record::StepRecord;
pub(crate) use self::segments::{are_there, read_all, read_newest};

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
