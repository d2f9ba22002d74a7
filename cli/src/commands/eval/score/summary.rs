//! The scores with their intervals, as a table and as a line of JSON.

use blip2_evaluation::metrics::bootstrap::{Difference, Draws, Interval, ScoreName, Scored};
use blip2_evaluation::metrics::rounding::two_decimals;
use serde::Serialize;

use super::references::Judged;
use crate::error::CliError;

/// What was scored.
#[derive(Debug, Clone, Serialize)]
pub(in crate::commands::eval) struct Files {
    pub(in crate::commands::eval) task: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::commands::eval) mode: Option<String>,
    pub(in crate::commands::eval) results: String,
    pub(in crate::commands::eval) references: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::commands::eval) against: Option<String>,
}

/// All that is said of the results.
#[derive(Debug, Clone, Serialize)]
pub(in crate::commands::eval) struct Summary {
    #[serde(flatten)]
    pub(in crate::commands::eval) files: Files,
    pub(in crate::commands::eval) images: usize,
    pub(in crate::commands::eval) draws: usize,
    pub(in crate::commands::eval) seed: u64,
    pub(in crate::commands::eval) notes: Vec<String>,
    pub(in crate::commands::eval) scores: Vec<Score>,
}

/// One score.
#[derive(Debug, Clone, Serialize)]
pub(in crate::commands::eval) struct Score {
    pub(in crate::commands::eval) name: &'static str,
    /// What kind of part it is of (`answer type`), and which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::commands::eval) kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::commands::eval) part: Option<String>,
    pub(in crate::commands::eval) items: usize,
    /// With two decimals.
    pub(in crate::commands::eval) score: f64,
    /// As computed.
    pub(in crate::commands::eval) exact: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::commands::eval) interval: Option<Interval>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::commands::eval) against: Option<Against>,
}

/// The other model's score, and how much better this one is.
#[derive(Debug, Clone, Serialize)]
pub(in crate::commands::eval) struct Against {
    pub(in crate::commands::eval) score: f64,
    pub(in crate::commands::eval) exact: f64,
    pub(in crate::commands::eval) difference: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::commands::eval) interval: Option<Interval>,
    /// Share of the draws in which this model is better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::commands::eval) better: Option<f64>,
}

impl Summary {
    /// The scores of `results`, and of a model that it is compared with.
    pub(in crate::commands::eval) fn new(
        files: Files,
        notes: Vec<String>,
        draws: Draws,
        results: &Judged,
        against: Option<&Judged>,
    ) -> Result<Self, CliError> {
        let scored = results.scored.as_ref();
        let against =
            against.map(|against| compared(&files, draws, scored, against.scored.as_ref())).transpose()?;
        let mut against = against.unwrap_or_default().into_iter();
        let numbers = scored.values().into_iter().zip(scored.items()).zip(draws.intervals(scored));
        let scores = scored.names().iter().zip(numbers).map(|(name, ((exact, items), interval))| {
            let ScoreName { name, part } = name.clone();
            let (kind, part) = part.unzip();
            Score {
                name,
                kind,
                part,
                items,
                score: two_decimals(exact),
                exact,
                interval,
                against: against.next(),
            }
        });
        let scores = scores.collect();
        Ok(Self { files, images: scored.images(), draws: draws.count, seed: draws.seed, notes, scores })
    }

    /// As a table.
    pub(in crate::commands::eval) fn table(&self) -> String {
        let mut lines = vec![self.heading()];
        lines.extend(self.scores.iter().map(Score::columns));
        let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            lines
                .iter()
                .filter_map(|line| line.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for line in &lines {
            for (place, (cell, width)) in line.iter().zip(&widths).enumerate() {
                match place {
                    0 => text.push_str(&format!("{cell:<width$}")),
                    _ => text.push_str(&format!("  {cell:>width$}")),
                }
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        text
    }

    fn heading(&self) -> Vec<String> {
        let first = ["", "score", "items", "95 % interval"];
        let second = ["against", "difference", "95 % interval", "better in"];
        let second = second.into_iter().filter(|_| self.files.against.is_some());
        first.into_iter().chain(second).map(str::to_owned).collect()
    }
}

/// What the second model scores, and how much better the first is.
fn compared(
    files: &Files,
    draws: Draws,
    scored: &dyn Scored,
    against: &dyn Scored,
) -> Result<Vec<Against>, CliError> {
    if scored.names() != against.names() || scored.images() != against.images() {
        let other = files.against.as_deref().unwrap_or_default();
        return Err(CliError::BadInput(format!("{other}: has other scores than {}", files.results)));
    }
    let differences = draws.differences(against, scored);
    let compared = against.values().into_iter().zip(differences).map(|(exact, difference)| {
        let Difference { value, interval, above } = difference;
        Against { score: two_decimals(exact), exact, difference: value, interval, better: above }
    });
    Ok(compared.collect())
}

impl Score {
    /// What it is of, in words.
    pub(in crate::commands::eval) fn label(&self) -> String {
        match (self.kind, &self.part) {
            (Some(kind), Some(part)) => format!("{}, {kind} {part}", self.name),
            _ => self.name.to_owned(),
        }
    }

    fn columns(&self) -> Vec<String> {
        let mut columns =
            vec![self.label(), format!("{:.2}", self.score), self.items.to_string(), shown(self.interval)];
        if let Some(against) = &self.against {
            let better = against.better.map(|share| format!("{:.1} %", 100.0 * share));
            columns.extend([
                format!("{:.2}", against.score),
                format!("{:+.2}", against.difference),
                shown(against.interval),
                better.unwrap_or_default(),
            ]);
        }
        columns
    }
}

/// An interval in words.
pub(in crate::commands::eval) fn shown(interval: Option<Interval>) -> String {
    interval.map(|Interval { low, high }| format!("{low:.2} to {high:.2}")).unwrap_or_default()
}
