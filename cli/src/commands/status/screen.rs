//! What `status --watch` shows: in place on a terminal, lines with news elsewhere.

use std::io::IsTerminal as _;

use blip2_records::StepRecord;
use console::Term;

use super::curves::Curves;
use super::text::live_lines;
use crate::commands::print_text;
use crate::commands::run_source::Known;
use crate::error::CliError;
use crate::progress::{StatusLog, status_line};

/// Standard output, as it is.
pub(super) enum Screen {
    /// So many lines of what is shown now are above the cursor.
    Terminal {
        term: Term,
        lines: usize,
        /// None until the steps are known that were committed before.
        curves: Option<Curves>,
    },
    Lines {
        log: StatusLog,
        last: String,
    },
}

impl Screen {
    pub(super) fn new() -> Self {
        match std::io::stdout().is_terminal() {
            true => Self::Terminal { term: Term::stdout(), lines: 0, curves: None },
            false => Self::Lines { log: StatusLog::default(), last: String::new() },
        }
    }

    /// Whether there are curves to draw, and nothing is known of earlier steps.
    pub(super) fn wants_earlier_steps(&self) -> bool {
        matches!(self, Self::Terminal { curves: None, .. })
    }

    /// Takes in the steps that were committed before.
    pub(super) fn show_earlier(&mut self, records: &[StepRecord]) {
        if let Self::Terminal { curves, .. } = self {
            curves.get_or_insert_default().begin(records);
        }
    }

    pub(super) fn show(&mut self, known: &Known) -> Result<(), CliError> {
        if matches!(known, Known::Stored(stored) if stored.has_ended()) {
            // The end itself is said by the one who watches.
            return Ok(());
        }
        match self {
            Self::Terminal { term, lines, curves } => {
                let (height, width) = term.size();
                let text = match known {
                    Known::Live(status) => {
                        let curves = curves.get_or_insert_default();
                        curves.take(status);
                        live_lines(status, &curves.lines(usize::from(width)))
                    }
                    Known::Stored(stored) => format!("{}\n", stored.line()),
                };
                let frame = fitted_lines(&text, usize::from(width), usize::from(height));
                let drawn = term.clear_last_lines(*lines).and_then(|()| term.write_str(&frame));
                *lines = frame.lines().count();
                drawn.map_err(|error| CliError::failed(format!("cannot write to standard output: {error}")))
            }
            Self::Lines { log, last } => {
                let line = match known {
                    Known::Live(status) if log.is_due(status) => status_line(status),
                    Known::Live(_) => return Ok(()),
                    Known::Stored(stored) => stored.line(),
                };
                if *last == line {
                    return Ok(());
                }
                last.clone_from(&line);
                print_text(&format!("{line}\n"))
            }
        }
    }
}

/// The text cut to what a terminal shows without wrapping or scrolling.
fn fitted_lines(text: &str, width: usize, height: usize) -> String {
    let shown = text.lines().take(height.saturating_sub(2).max(1));
    shown.map(|line| format!("{}\n", console::truncate_str(line, width.max(1), "…"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_wraps_and_no_screen_scrolls() {
        let text = "a line that is long\nshort\nthird\nfourth\n";
        assert_eq!(fitted_lines(text, 10, 5), "a line th…\nshort\nthird\n");
        assert_eq!(fitted_lines(text, 80, 50), text);
        assert_eq!(fitted_lines(text, 0, 0).lines().count(), 1);
    }
}
