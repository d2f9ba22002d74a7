//! The curves of a run in lines of blocks, for a terminal.

use blip2_proto::v1::StatusReply;
use blip2_records::StepRecord;
use blip2_worker::task::TaskSettings;

use crate::figures::number;

/// Steps that are remembered at most; of more every second one goes.
const MOST_POINTS: usize = 1024;
/// Blocks from the lowest value to the highest.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Columns of a curve at most, and at least: with fewer there is none.
const WIDEST: usize = 64;
const NARROWEST: usize = 8;
/// What the curve of the speed is called.
const SPEED: &str = "samples/s";

/// The steps of the stage at hand, as far as they are known.
#[derive(Debug)]
pub(super) struct Curves {
    stage: u32,
    task: String,
    /// Every so many steps are kept.
    stride: u64,
    points: Vec<Point>,
}

#[derive(Debug)]
struct Point {
    /// Committed steps, this one included.
    step: u64,
    values: Vec<(String, f64)>,
    samples_per_s: f64,
}

impl Default for Curves {
    fn default() -> Self {
        Self { stage: 0, task: String::new(), stride: 1, points: Vec::new() }
    }
}

impl Curves {
    /// Takes in steps that were committed before anybody watched.
    pub(super) fn begin(&mut self, records: &[StepRecord]) {
        for record in records {
            self.enter(record.stage, &record.task);
            let values = record.values.iter().map(|(name, value)| (name.clone(), value.unwrap_or(f64::NAN)));
            let samples_per_s =
                if record.seconds > 0.0 { record.samples as f64 / record.seconds } else { f64::NAN };
            self.push(Point { step: record.step + 1, values: values.collect(), samples_per_s });
        }
    }

    /// Takes in the newest step of a run.
    pub(super) fn take(&mut self, status: &StatusReply) {
        self.enter(status.stage, &status.task);
        if !status.values.is_empty() {
            let values = status.values.iter().map(|named| (named.name.clone(), named.value)).collect();
            self.push(Point { step: status.step, values, samples_per_s: status.samples_per_s });
        }
    }

    /// Another stage has other losses.
    fn enter(&mut self, stage: u32, task: &str) {
        if stage != self.stage {
            *self = Self { stage, task: task.to_owned(), ..Self::default() };
        }
    }

    fn push(&mut self, point: Point) {
        // A run that was set back does steps again.
        while self.points.last().is_some_and(|last| last.step > point.step) {
            self.points.pop();
        }
        if self.points.last().is_some_and(|last| point.step - last.step < self.stride) {
            return;
        }
        self.points.push(point);
        if self.points.len() > MOST_POINTS {
            self.stride *= 2;
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
    }

    /// A line for each loss and one for the speed, in so many columns; nothing where they are too few, or no
    /// two steps are known.
    pub(super) fn lines(&self, width: usize) -> String {
        let mut curves: Vec<(&str, Vec<f64>)> = Vec::new();
        for name in self.losses() {
            let value = |point: &Point| Some(point.values.iter().find(|(own, _)| own == name)?.1);
            let values: Vec<f64> = self.points.iter().filter_map(value).collect();
            curves.push((name, values));
        }
        curves.push((SPEED, self.points.iter().map(|point| point.samples_per_s).collect()));
        curves.retain(|(_, values)| values.iter().filter(|value| value.is_finite()).count() >= 2);
        let names = curves.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let ends: Vec<String> = curves.iter().map(|(_, values)| ends(values)).collect();
        let longest = ends.iter().map(String::len).max().unwrap_or(0);
        // Two columns before, and two gaps of two.
        let columns = width.saturating_sub(names + longest + 6).min(WIDEST);
        if columns < NARROWEST {
            return String::new();
        }
        let line = |((name, values), ends): ((&str, Vec<f64>), String)| {
            format!("  {name:<names$}  {:<columns$}  {ends}\n", blocks(&values, columns))
        };
        curves.into_iter().zip(ends).map(line).collect()
    }

    fn losses(&self) -> Vec<&'static str> {
        TaskSettings::named(&self.task)
            .map_or(Vec::new(), |task| task.losses().iter().map(|loss| loss.name).collect())
    }
}

/// The first value and the last one.
fn ends(values: &[f64]) -> String {
    let mut finite = values.iter().filter(|value| value.is_finite());
    let (first, last) = (finite.next(), finite.next_back());
    [first, last].into_iter().flatten().map(|value| number(*value)).collect::<Vec<_>>().join(" to ")
}

/// The values in so many columns, each the mean of its share of them; a gap where none is finite.
fn blocks(values: &[f64], columns: usize) -> String {
    let columns = columns.min(values.len());
    let mean = |column: usize| {
        let share = &values[column * values.len() / columns..(column + 1) * values.len() / columns];
        let (sum, count) = share
            .iter()
            .filter(|value| value.is_finite())
            .fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
        (count > 0).then(|| sum / f64::from(count))
    };
    let means: Vec<Option<f64>> = (0..columns).map(mean).collect();
    let lowest = means.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let highest = means.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
    let block = |value: f64| {
        let share = if highest > lowest { (value - lowest) / (highest - lowest) } else { 0.0 };
        BLOCKS[((share * (BLOCKS.len() - 1) as f64).round() as usize).min(BLOCKS.len() - 1)]
    };
    means.into_iter().map(|mean| mean.map_or(' ', block)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use blip2_proto::v1::NamedValue;

    use super::*;

    fn status(step: u64, loss: f64) -> StatusReply {
        let named = |name: &str, value| NamedValue { name: name.into(), value };
        StatusReply {
            stage: 1,
            task: "contrast".into(),
            step,
            values: vec![named("loss", loss), named("loss_itc", 1.0), named("learning_rate", 1e-4)],
            samples_per_s: 100.0 + step as f64,
            ..StatusReply::default()
        }
    }

    fn watched(losses: &[f64]) -> Curves {
        let mut curves = Curves::default();
        for (step, loss) in (1..).zip(losses) {
            curves.take(&status(step, *loss));
        }
        curves
    }

    #[test]
    fn each_loss_has_a_line_of_blocks_with_its_ends_and_so_has_the_speed() {
        let text = watched(&[8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]).lines(80);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(
            lines[0].starts_with("  loss       █▇▆▅▄▃▂▁ ") && lines[0].ends_with("  8.000 to 1.000"),
            "{text}"
        );
        assert!(
            lines[1].starts_with("  loss_itc   ▁▁▁▁▁▁▁▁ ") && lines[1].ends_with("  1.000 to 1.000"),
            "{text}"
        );
        assert!(lines[2].starts_with("  samples/s  ▁▂▃▄▅▆▇█ "), "{text}");
        assert!(!text.contains("learning_rate"));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_a_narrow_one_has_none() {
        let curves = watched(&(0..500).map(f64::from).collect::<Vec<_>>());
        for width in 0..120 {
            let text = curves.lines(width);
            assert!(text.lines().all(|line| console::measure_text_width(line) <= width), "{width}\n{text}");
        }
        assert_eq!(curves.lines(30), "");
        assert!(curves.lines(60).lines().count() == 3);
    }

    #[test]
    fn gaps_are_left_and_one_step_is_no_curve() {
        assert_eq!(watched(&[3.0]).lines(80), "");
        assert_eq!(blocks(&[1.0, f64::NAN, 2.0], 10), "▁ █");
        assert_eq!(blocks(&[0.0, 2.0, 5.0, 7.0], 2), "▁█");
        assert_eq!((blocks(&[], 9), blocks(&[4.0], 9)), (String::new(), "▁".into()));
    }

    #[test]
    fn a_long_run_is_remembered_by_some_of_its_steps_and_a_stage_begins_anew() {
        let mut curves = watched(&vec![1.0; 5000]);
        assert!(curves.points.len() <= MOST_POINTS && curves.points.len() > MOST_POINTS / 4);
        assert_eq!(curves.points[0].step, 1);
        // Set back, the later steps are forgotten.
        curves.take(&status(400, 2.0));
        assert!(curves.points.iter().all(|point| point.step <= 400));
        curves.take(&StatusReply { stage: 2, task: "generate".into(), ..status(5001, 1.0) });
        assert_eq!((curves.points.len(), curves.task.as_str()), (1, "generate"));
    }

    #[test]
    fn steps_before_anybody_watched_are_shown() {
        let record = |step: u64| StepRecord {
            step,
            stage: 1,
            task: "contrast".into(),
            values: BTreeMap::from([("loss".to_owned(), Some(9.0 - step as f64))]),
            samples: 64,
            seconds: 0.5,
            ..StepRecord::default()
        };
        let mut curves = Curves::default();
        curves.begin(&[0, 1, 2].map(record));
        curves.take(&status(4, 5.0));
        let text = curves.lines(80);
        assert!(text.contains("  9.000 to 5.000\n") && text.contains("  128.0 to 104.0\n"), "{text}");
    }
}
