//! Lines for programs: one JSON object each, with the time, the level, what is said, and where this process
//! stands.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::standing::Standing;

/// Writes events as such lines.
#[derive(Debug)]
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        writer.write_str(&line(*metadata.level(), metadata.target(), fields.0, Standing::now()))
    }
}

/// A line, with its end.
pub(super) fn line(level: Level, target: &str, fields: Map<String, Value>, standing: Standing) -> String {
    let mut line = Map::new();
    line.insert("timestamp".into(), rfc3339_now().into());
    line.insert("level".into(), level.as_str().into());
    standing.tell(&mut line);
    line.insert("fields".into(), fields.into());
    line.insert("target".into(), target.into());
    format!("{}\n", Value::from(line))
}

/// The time, as RFC 3339 writes it.
pub(crate) fn rfc3339_now() -> String {
    let mut time = String::new();
    // Into a string it cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    time
}

/// Levels as the words that lines for people begin with.
const LEVELS: [(&str, Level); 2] = [("error: ", Level::ERROR), ("warning: ", Level::WARN)];

/// What a line of a log says: of one for programs the message, after its level where that is no mere
/// information; one for people says itself.
pub(crate) fn words_of(line: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(line).ok();
    let said = parsed.as_ref().and_then(|line| Some((line["fields"]["message"].as_str()?, &line["level"])));
    let Some((message, level)) = said else { return line.to_owned() };
    let named = LEVELS.into_iter().find(|(_, own)| level == own.as_str());
    format!("{}{message}", named.map_or("", |(name, _)| name))
}

/// Words that are said outside the log: their first one may be a level.
pub(super) fn said(words: &str) -> String {
    let words = words.trim_end();
    let named = LEVELS.into_iter().find_map(|(name, level)| Some((words.strip_prefix(name)?, level)));
    let (message, level) = named.unwrap_or((words, Level::INFO));
    let fields = Map::from_iter([("message".to_owned(), Value::from(message))]);
    line(level, env!("CARGO_CRATE_NAME"), fields, Standing::now())
}

/// The fields of an event.
#[derive(Debug, Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    /// One that is not finite is no number of JSON's: null.
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_a_line_with_its_fields() {
        let written = Written::default();
        let sink = written.clone();
        let subscriber =
            tracing_subscriber::fmt().event_format(JsonLines).with_writer(move || sink.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(
                worker = 3,
                share = 0.5,
                late = true,
                name = "a \"b\"",
                odd = f64::NAN,
                "two\nlines"
            );
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["level"], &line["fields"]["message"]), (&"WARN".into(), &"two\nlines".into()));
        assert_eq!((&line["fields"]["worker"], &line["fields"]["share"]), (&3.into(), &0.5.into()));
        assert_eq!((&line["fields"]["late"], &line["fields"]["name"]), (&true.into(), &"a \"b\"".into()));
        assert_eq!(line["fields"]["odd"], Value::Null);
        assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
    }

    #[test]
    fn a_line_says_where_the_process_stands_as_far_as_that_is_known() {
        let nowhere: Value =
            serde_json::from_str(&line(Level::INFO, "here", Map::new(), Standing::default())).unwrap();
        for name in ["run", "epoch", "step", "member"] {
            assert_eq!(nowhere.get(name), None);
        }
        let standing = Standing { run: "first".into(), epoch: Some(4), step: Some(0), member: Some(2) };
        let there: Value = serde_json::from_str(&line(Level::INFO, "here", Map::new(), standing)).unwrap();
        assert_eq!((&there["run"], &there["epoch"]), (&"first".into(), &4.into()));
        assert_eq!((&there["step"], &there["member"]), (&0.into(), &2.into()));
    }

    #[test]
    fn what_is_said_has_the_level_that_it_begins_with() {
        for (words, level, message) in [
            ("error: no such run\n", "ERROR", "no such run"),
            ("warning: a row", "WARN", "a row"),
            ("task 3/8: 40 rows", "INFO", "task 3/8: 40 rows"),
        ] {
            let line: Value = serde_json::from_str(&said(words)).unwrap();
            assert_eq!((&line["level"], &line["fields"]["message"]), (&level.into(), &message.into()));
            assert_eq!(words_of(&said(words)), words.trim_end());
        }
        assert_eq!(words_of("error: for people"), "error: for people");
        assert_eq!(words_of("{\"step\":1}"), "{\"step\":1}");
    }
}
