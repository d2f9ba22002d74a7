//! Log lines on standard error, and everything else that is said there.

mod json_lines;
pub(crate) mod standing;

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use blip2_store::secret_url::redacted_text;
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

use self::json_lines::{JsonLines, said};
pub(crate) use self::json_lines::{rfc3339_now, words_of};

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Environment variable with the filter, in `tracing`'s syntax.
const FILTER_VARIABLE: &str = "BLIP2_LOG";

/// What the targets of this project's crates begin with.
const OWN: &str = "blip2";

/// Whether standard error takes JSON lines and nothing else.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Whether standard error takes JSON lines and nothing else.
pub(crate) fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// What processes that are started beside this one are told of the format.
pub(crate) fn handed_on() -> &'static [&'static str] {
    if is_json() { &["--log", "json"] } else { &[] }
}

/// Starts logging for the whole process; what runs `unattended` says by itself what it does, and so does
/// everything whose lines a program keeps.
pub(crate) fn start(format: LogFormat, unattended: bool) {
    if format == LogFormat::Json {
        say_json();
    }
    let asked = std::env::var(FILTER_VARIABLE).ok().and_then(|asked| filter(&asked).ok());
    let usual = if unattended || is_json() { "info" } else { "warn" };
    let filter = asked.or_else(|| filter(usual).ok()).unwrap_or_default();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Redacting)
        // Words about a line that could not be written would go the same way, and panic.
        .log_internal_errors(false);
    // Fails only when logging was started before, which serves as well.
    let _ = match format {
        LogFormat::Text => builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.event_format(JsonLines).try_init(),
    };
}

/// From now on everything on standard error is a JSON line, panics included.
pub(crate) fn say_json() {
    if !IS_JSON.swap(true, Ordering::Relaxed) {
        std::panic::set_hook(Box::new(|panic| say(format_args!("error: {panic}"))));
    }
}

/// Says a line on standard error. Nobody may be left to be told.
pub(crate) fn say(words: fmt::Arguments<'_>) {
    let _ = if is_json() { say_as_json(words) } else { writeln!(io::stderr(), "{words}") };
}

/// The same without the end of the line, which the words may have.
pub(crate) fn say_on(words: fmt::Arguments<'_>) {
    let _ = if is_json() { say_as_json(words) } else { write!(io::stderr(), "{words}") };
}

fn say_as_json(words: fmt::Arguments<'_>) -> io::Result<()> {
    let words = words.to_string();
    if words.trim().is_empty() {
        return Ok(());
    }
    io::stderr().write_all(said(&redacted_text(&words)).as_bytes())
}

/// The filter that `directives` ask for. A level without a target is that of this project's crates: the
/// others say no more than warnings unless a directive names them. The kernels' compiler alone writes
/// hundreds of megabytes at `info`.
fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    let mut capped = Vec::new();
    for directive in directives.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        match directive.parse::<LevelFilter>() {
            Ok(level) => capped.push(format!("{},{OWN}={level}", level.min(LevelFilter::WARN))),
            Err(_) => capped.push(directive.to_owned()),
        }
    }
    EnvFilter::builder().parse(capped.join(","))
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

#[cfg(test)]
mod tests {
    use tracing::Level;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// Whether lines of a level are written: of this project, of the kernels' compiler, of an HTTP client.
    fn written(directives: &str, level: Level) -> [bool; 3] {
        let subscriber = tracing_subscriber::registry().with(filter(directives).unwrap());
        tracing::subscriber::with_default(subscriber, || match level {
            Level::INFO => [
                tracing::enabled!(target: "blip2_worker::compute", Level::INFO),
                tracing::enabled!(target: "pliron::pass", Level::INFO),
                tracing::enabled!(target: "hyper_util::client", Level::INFO),
            ],
            _ => [
                tracing::enabled!(target: "blip2_worker::compute", Level::WARN),
                tracing::enabled!(target: "pliron::pass", Level::WARN),
                tracing::enabled!(target: "hyper_util::client", Level::WARN),
            ],
        })
    }

    #[test]
    fn a_level_is_that_of_this_project_and_others_say_more_where_they_are_named() {
        for (directives, info, warn) in [
            ("info", [true, false, false], [true; 3]),
            ("DEBUG", [true, false, false], [true; 3]),
            ("trace,pliron=info", [true, true, false], [true; 3]),
            (" info , hyper_util=debug", [true, false, true], [true; 3]),
            ("pliron=off,info", [true, false, false], [true, false, true]),
            ("info,blip2_worker=warn", [false, false, false], [true; 3]),
            ("warn", [false; 3], [true; 3]),
            ("error", [false; 3], [false; 3]),
            ("off,pliron=info", [false, true, false], [false, true, false]),
            ("blip2=info", [true, false, false], [true, false, false]),
        ] {
            assert_eq!(written(directives, Level::INFO), info, "{directives}: info");
            assert_eq!(written(directives, Level::WARN), warn, "{directives}: warn");
        }
        assert!(filter("pliron=loud").is_err());
    }
}
