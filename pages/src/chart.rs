//! A line chart as SVG: axes with units, raw values faint, their running mean strong, names at the line ends.

use std::fmt::Write as _;

use maud::{Markup, html};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 132.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 40.0;
/// Least distance of two names at the line ends.
const LABEL_GAP: f64 = 18.0;
/// Colours that the style sheet knows.
const COLOURS: usize = 4;
/// More points than pixels only make the file bigger.
const MAX_POINTS: usize = 600;

/// A named sequence of values, one for each step.
#[derive(Debug, Clone)]
pub struct Series {
    /// What it is called beside the chart.
    pub name: String,
    /// Step and value, by step.
    pub points: Vec<(u64, f64)>,
}

/// The losses of every step, stage by stage: titles with their lines.
pub(super) fn loss_curves(stages: &[(String, Vec<Series>)]) -> Markup {
    html! {
        section id="curves" {
            h2 { "Loss curves" }
            @if stages.is_empty() { p { "no step was recorded" } }
            @for (title, series) in stages {
                h3 { (title) }
                (line_chart(title, "loss, nats", series))
            }
            p class="note" { "Faint: every step. Strong: running mean, with its last value." }
        }
    }
}

/// The chart, or a sentence where there is nothing to draw.
pub(super) fn line_chart(title: &str, unit: &str, series: &[Series]) -> Markup {
    let drawable: Vec<(usize, &Series)> =
        series.iter().enumerate().filter(|(_, s)| s.points.iter().any(|p| p.1.is_finite())).collect();
    let steps = || drawable.iter().flat_map(|(_, s)| s.points.iter().map(|p| p.0));
    let (Some(first), Some(last)) = (steps().min(), steps().max()) else {
        return html! { p class="note" { (title) ": no step was recorded." } };
    };
    let highest = drawable
        .iter()
        .flat_map(|(_, s)| s.points.iter().map(|p| p.1))
        .filter(|value| value.is_finite())
        .fold(0.0, f64::max);
    let frame = Frame::new(first, last, highest);

    html! {
        svg class="chart" viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(title) {
            (frame.axes(unit))
            @for (colour, line) in &drawable {
                g class={ "s" (colour % COLOURS) } {
                    path class="raw" d=(frame.path(&line.points)) {}
                    path class="mean" d=(frame.path(&running_mean(&line.points))) {}
                }
            }
            (names(&frame, &drawable))
        }
    }
}

/// Where steps and values lie in the box.
struct Frame {
    first: f64,
    last: f64,
    top_value: f64,
    tick: f64,
}

impl Frame {
    fn new(first: u64, last: u64, highest: f64) -> Self {
        let tick = nice_step(highest.max(1e-9) / 4.0);
        let top_value = (highest / tick).ceil().max(1.0) * tick;
        Self { first: first as f64, last: (last + 1) as f64, top_value, tick }
    }

    fn x(&self, step: f64) -> f64 {
        LEFT + (step - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - value / self.top_value * (HEIGHT - TOP - BOTTOM)
    }

    fn axes(&self, unit: &str) -> Markup {
        let right = WIDTH - RIGHT;
        let rows = (self.top_value / self.tick).round() as usize;
        let values = (0..=rows).map(|row| row as f64 * self.tick);
        let step = nice_step((self.last - self.first) / 5.0).max(1.0);
        let first = (self.first / step).ceil() * step;
        let steps =
            std::iter::successors(Some(first), |at| Some(at + step)).take_while(|at| *at <= self.last);
        html! {
            @for value in values {
                path class="grid" d=(format!("M{LEFT} {:.1}H{right}", self.y(value))) {}
                text class="tick" x=(LEFT - 8.0) y=(format!("{:.1}", self.y(value) + 4.0)) text-anchor="end" {
                    (at_tick(value, self.tick))
                }
            }
            @for at in steps {
                text class="tick" x=(format!("{:.1}", self.x(at))) y=(HEIGHT - BOTTOM + 18.0) text-anchor="middle" {
                    (format!("{at:.0}"))
                }
            }
            text class="unit" x=(LEFT) y="14" text-anchor="start" { (unit) }
            text class="unit" x=(right) y=(HEIGHT - 6.0) text-anchor="end" { "step" }
        }
    }

    /// The line through the finite points, thinned to what a screen can show.
    fn path(&self, points: &[(u64, f64)]) -> String {
        let stride = points.len().div_ceil(MAX_POINTS).max(1);
        let mut path = String::new();
        let mut pen = 'M';
        for (index, (step, value)) in points.iter().enumerate() {
            let kept = index % stride == 0 || index + 1 == points.len();
            if !value.is_finite() {
                pen = 'M';
            } else if kept {
                // Writing to a String cannot fail.
                let _ = write!(path, "{pen}{:.1} {:.1}", self.x(*step as f64), self.y(*value));
                pen = 'L';
            }
        }
        path
    }
}

/// Names and last values at the right, moved apart where lines end close together.
fn names(frame: &Frame, drawable: &[(usize, &Series)]) -> Markup {
    let mut names: Vec<(f64, usize, String)> = drawable
        .iter()
        .filter_map(|(colour, line)| {
            let mean = running_mean(&line.points);
            let (_, value) = mean.iter().rev().find(|point| point.1.is_finite())?;
            Some((frame.y(*value) + 4.0, colour % COLOURS, format!("{} {}", line.name, at_end(*value))))
        })
        .collect();
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    let lowest = HEIGHT - BOTTOM + 4.0;
    let spare = names.len().saturating_sub(1) as f64 * LABEL_GAP;
    let mut floor = f64::NEG_INFINITY;
    for (index, (y, ..)) in names.iter_mut().enumerate() {
        let room_below = spare - index as f64 * LABEL_GAP;
        *y = y.min(lowest - room_below).max(floor);
        floor = *y + LABEL_GAP;
    }
    html! {
        @for (y, colour, text) in &names {
            text class={ "name s" (colour) } x=(WIDTH - RIGHT + 10.0) y=(format!("{y:.1}")) { (text) }
        }
    }
}

/// A value on an axis with this distance between two ticks.
fn at_tick(value: f64, tick: f64) -> String {
    let decimals = match tick {
        tick if tick >= 1.0 => 0,
        tick if tick >= 0.1 => 1,
        tick if tick >= 0.01 => 2,
        _ if value == 0.0 => 0,
        _ => return format!("{value:.0e}"),
    };
    format!("{value:.decimals$}")
}

/// A line's last value.
fn at_end(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 0.01 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.1e}"),
    }
}

/// Mean over about a fifteenth of the steps around each, so that the trend shows through the noise without
/// lagging.
fn running_mean(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let reach = points.len() / 30;
    let mut sums = vec![(0.0, 0usize)];
    for (_, value) in points {
        let (sum, count) = sums[sums.len() - 1];
        sums.push(if value.is_finite() { (sum + value, count + 1) } else { (sum, count) });
    }
    let mean_around = |index: usize| {
        let (before, after) = (index.saturating_sub(reach), (index + reach + 1).min(points.len()));
        let count = sums[after].1 - sums[before].1;
        if count == 0 { f64::NAN } else { (sums[after].0 - sums[before].0) / count as f64 }
    };
    points.iter().enumerate().map(|(index, (step, _))| (*step, mean_around(index))).collect()
}

/// The smallest of 1, 2, 5 times a power of ten that is at least `raw`.
fn nice_step(raw: f64) -> f64 {
    let power = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= raw).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, values: &[f64]) -> Series {
        Series {
            name: name.to_owned(),
            points: values.iter().enumerate().map(|(i, v)| (i as u64, *v)).collect(),
        }
    }

    fn chart(title: &str, unit: &str, series: &[Series]) -> String {
        line_chart(title, unit, series).into_string()
    }

    #[test]
    fn ticks_are_round_numbers() {
        for (raw, nice) in [(0.9, 1.0), (1.1, 2.0), (3.0, 5.0), (7.0, 10.0), (0.013, 0.02), (60.0, 100.0)] {
            assert!((nice_step(raw) - nice).abs() < 1e-12, "{raw}");
        }
    }

    #[test]
    fn small_numbers_are_not_shown_as_nothing() {
        assert_eq!([at_tick(2e-4, 1e-4), at_tick(0.0, 1e-4), at_tick(0.3, 0.1)], ["2e-4", "0", "0.3"]);
        assert_eq!([at_end(2.5e-4), at_end(0.5), at_end(1234.5)], ["2.5e-4", "0.50", "1234"]);
        let svg = chart("t", "rate", &[line("lr", &[1e-4, 2e-4])]);
        assert!(svg.contains("lr 1.5e-4") || svg.contains("lr 2.0e-4"), "{svg}");
    }

    #[test]
    fn a_chart_has_axes_lines_and_names_inside_its_box() {
        let series =
            [line("itc", &[4.0, 3.0, 2.5]), line("itm", &[0.7, 0.6, 0.6]), line("lm", &[2.6, 2.5, 2.5])];
        let svg = chart("Stage 1", "nats", &series);
        assert_eq!(svg.matches("class=\"mean\"").count(), 3);
        assert!(svg.contains(">nats<") && svg.contains(">step<") && svg.contains("itc 2.50"), "{svg}");
        let ys: Vec<f64> = svg
            .split("class=\"name")
            .skip(1)
            .map(|part| part.split("y=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        assert!(ys.iter().all(|y| (0.0..=HEIGHT).contains(y)), "{ys:?}");
        assert!(ys.windows(2).all(|pair| pair[1] - pair[0] >= LABEL_GAP - 0.11), "{ys:?}");
    }

    #[test]
    fn values_that_are_not_numbers_leave_a_gap() {
        let svg = chart("t", "nats", &[line("a", &[1.0, f64::NAN, 2.0, 1.0])]);
        assert!(!svg.contains("NaN"), "{svg}");
        assert!(chart("t", "nats", &[line("a", &[f64::NAN])]).contains("no step"));
        assert!(chart("t", "nats", &[]).contains("no step"));
    }

    #[test]
    fn long_runs_are_thinned() {
        let values: Vec<f64> = (0..100_000).map(|i| 1.0 + f64::from(i % 7)).collect();
        assert!(chart("t", "nats", &[line("a", &values)]).len() < 40_000);
    }
}
