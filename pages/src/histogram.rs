//! Counts by range, as bars.

use maud::Markup;

use crate::bars::{Bar, group};

/// Counts by range of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// Stable name, for programs.
    pub name: &'static str,
    title: String,
    /// Each label with its count, from the left.
    pub bars: Vec<(String, u64)>,
}

impl Histogram {
    /// `bounds` cut the values; the first bar is below the first of them, the last one from the last on.
    pub fn new(
        name: &'static str,
        title: impl Into<String>,
        bounds: &[f64],
        values: impl Iterator<Item = f64>,
    ) -> Self {
        let mut counts = vec![0; bounds.len() + 1];
        for value in values {
            counts[bounds.partition_point(|bound| *bound <= value)] += 1;
        }
        let label = |bar: usize| match (bar.checked_sub(1).map(|low| bounds[low]), bounds.get(bar)) {
            (None, Some(high)) => format!("< {high}"),
            (Some(low), Some(high)) => format!("{low} – {high}"),
            (Some(low), None) => format!("≥ {low}"),
            (None, None) => String::new(),
        };
        let bars = counts.into_iter().enumerate().map(|(bar, count)| (label(bar), count)).collect();
        Self { name, title: title.into(), bars }
    }

    /// Bars with their counts.
    pub fn render(&self) -> Markup {
        let full = self.bars.iter().map(|(_, count)| *count).max().unwrap_or_default() as f64;
        let bar = |(label, count): &'_ (String, u64)| (label.clone(), *count as f64);
        let counted: Vec<_> = self.bars.iter().map(bar).collect();
        let bars: Vec<_> =
            counted.iter().map(|(label, value)| Bar { label, value: *value, kind: "ours" }).collect();
        group(&self.title, &bars, full, 0)
    }
}
