//! Log lines on standard error.

use std::io::{self, IsTerminal as _, Write};

use blip2_dataset::redacted_text;
use tracing_subscriber::EnvFilter;

use crate::arguments::LogFormat;

/// Environment variable with the filter, in `tracing`'s syntax.
const FILTER_VARIABLE: &str = "BLIP2_LOG";

/// Starts logging for the whole process.
pub(crate) fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new("warn"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Redacting)
        // Words about a line that could not be written would go the same way, and panic.
        .log_internal_errors(false);
    // Fails only when logging was started before, which serves as well.
    let _ = match format {
        LogFormat::Text => builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

/// Standard error, with the credentials of URLs left out of every line.
struct Redacting;

impl Write for Redacting {
    /// The subscriber writes whole lines.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(line) {
            Ok(text) if text.contains("://") => io::stderr().write_all(redacted_text(text).as_bytes())?,
            _ => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
