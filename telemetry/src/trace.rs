//! What this process did when: the last steps as a trace that Chrome's and Perfetto's viewers open.
//!
//! The format is that of Chrome's trace events (JSON, an array of events with times in microseconds):
//! <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Steps that are remembered.
pub const STEPS: usize = 64;

/// What was done for some time.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The line of the trace it stands on.
    pub lane: &'static str,
    /// What was done.
    pub name: Cow<'static, str>,
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub time: Duration,
    /// Further facts, by name.
    pub facts: Vec<(&'static str, Value)>,
    /// Whether others of its lane may be under way at the same time.
    pub is_beside: bool,
}

/// What a step of a process was made of, as it is passed on.
#[derive(Debug, Clone, PartialEq)]
pub struct TracedStep {
    /// What the process is called.
    pub process: String,
    /// When each began, since 1970 by the clock that all machines share.
    pub spans: Vec<(Duration, Span)>,
}

/// The last steps of a process.
#[derive(Debug)]
pub(crate) struct Trace {
    name: String,
    steps: VecDeque<Vec<Span>>,
    /// One moment by both clocks: that which only goes on, and that which all machines share.
    moment: (Instant, Duration),
    /// Who else is told of every step.
    passed_on: Option<mpsc::Sender<TracedStep>>,
}

impl Trace {
    pub(crate) fn new(name: &str) -> Self {
        #[expect(clippy::disallowed_methods, reason = "it leaves the process and reaches no parameter")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let moment = (Instant::now(), now);
        Self { name: name.to_owned(), steps: VecDeque::new(), moment, passed_on: None }
    }

    pub(crate) fn call(&mut self, name: &str) {
        name.clone_into(&mut self.name);
    }

    pub(crate) fn pass_on(&mut self, to: mpsc::Sender<TracedStep>) {
        self.passed_on = Some(to);
    }

    /// Takes in what a step was made of; the oldest beyond [`STEPS`] is forgotten.
    pub(crate) fn push(&mut self, step: Vec<Span>) {
        if let Some(to) = &self.passed_on {
            let spans = step.iter().map(|span| (self.at(span.began), span.clone())).collect();
            // Who does not keep up misses steps: training waits for nobody that watches.
            let _ = to.try_send(TracedStep { process: self.name.clone(), spans });
        }
        if self.steps.len() == STEPS {
            self.steps.pop_front();
        }
        self.steps.push_back(step);
    }

    /// All that is remembered, as one process of a Chrome trace.
    pub(crate) fn chrome(&self) -> Value {
        let spans = || self.steps.iter().flatten();
        let lanes: Vec<&str> = spans().map(|span| span.lane).collect::<BTreeSet<_>>().into_iter().collect();
        let mut events = vec![named("process_name", 0, &self.name)];
        events.extend(lanes.iter().enumerate().map(|(lane, name)| named("thread_name", lane, name)));
        for (number, span) in spans().enumerate() {
            let lane = lanes.binary_search(&span.lane).unwrap_or_default();
            let facts: serde_json::Map<String, Value> =
                span.facts.iter().map(|(name, fact)| ((*name).to_owned(), fact.clone())).collect();
            let event = |phase: &str, at: f64| {
                json!({
                    "ph": phase, "name": span.name, "cat": span.lane, "pid": 1, "tid": lane, "ts": at, "args": facts,
                })
            };
            let (began, took) = (micros(self.at(span.began)), micros(span.time));
            if span.is_beside {
                for mut event in [event("b", began), event("e", began + took)] {
                    event["id"] = number.into();
                    events.push(event);
                }
            } else {
                let mut event = event("X", began);
                event["dur"] = took.into();
                events.push(event);
            }
        }
        json!({ "displayTimeUnit": "ms", "traceEvents": events })
    }

    /// Since 1970.
    fn at(&self, moment: Instant) -> Duration {
        let (instant, clock) = self.moment;
        match moment.checked_duration_since(instant) {
            Some(later) => clock + later,
            None => clock.saturating_sub(instant.duration_since(moment)),
        }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// What a process or a lane is called.
fn named(what: &str, lane: usize, name: &str) -> Value {
    json!({ "ph": "M", "name": what, "pid": 1, "tid": lane, "args": { "name": name } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(lane: &'static str, name: &str, began: Instant) -> Span {
        let (name, facts) = (name.to_owned().into(), vec![("step", json!(7))]);
        Span { lane, name, began, time: Duration::from_millis(2), facts, is_beside: lane == "exchange" }
    }

    #[test]
    fn spans_become_events_on_lanes_with_times_of_all_machines() {
        let mut trace = Trace::new("worker");
        trace.call("worker-3");
        let began = Instant::now();
        trace.push(vec![span("compute", "encoder", began), span("exchange", "all_reduce", began)]);
        let chrome = trace.chrome();
        let events = chrome["traceEvents"].as_array().unwrap();
        let of =
            |phase: &str| -> Vec<&Value> { events.iter().filter(|event| event["ph"] == phase).collect() };
        let names: Vec<&str> = of("M").iter().map(|event| event["args"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["worker-3", "compute", "exchange"]);
        let whole = of("X");
        assert_eq!((whole.len(), whole[0]["name"].as_str()), (1, Some("encoder")));
        assert_eq!((whole[0]["dur"].as_f64(), &whole[0]["args"]["step"]), (Some(2000.0), &json!(7)));
        let (begins, ends) = (of("b"), of("e"));
        assert_eq!((begins.len(), &begins[0]["id"]), (1, &ends[0]["id"]));
        let took = ends[0]["ts"].as_f64().unwrap() - begins[0]["ts"].as_f64().unwrap();
        assert!((took - 2000.0).abs() < 1.0, "{took}");
        // Both began at one moment of this century.
        assert_eq!(whole[0]["ts"], begins[0]["ts"]);
        assert!(whole[0]["ts"].as_f64().unwrap() > 1.6e15);
    }

    #[test]
    fn steps_are_passed_on_with_times_of_all_machines_and_who_is_slow_misses_some() {
        let mut trace = Trace::new("worker");
        let (to, mut passed_on) = mpsc::channel(1);
        trace.pass_on(to);
        let began = Instant::now();
        trace.push(vec![span("compute", "first", began)]);
        trace.push(vec![span("compute", "second", began)]);
        let step = passed_on.try_recv().unwrap();
        let (since_1970, first) = &step.spans[0];
        assert_eq!((step.process.as_str(), first.name.as_ref()), ("worker", "first"));
        assert!(since_1970.as_secs() > 1_600_000_000);
        assert!(passed_on.try_recv().is_err(), "there was no room");
        drop(passed_on);
        trace.push(vec![span("compute", "third", began)]);
        assert!(trace.chrome().to_string().contains("third"));
    }

    #[test]
    fn the_oldest_steps_are_forgotten() {
        let mut trace = Trace::new("worker");
        let began = Instant::now();
        for step in 0..STEPS + 3 {
            trace.push(vec![span("compute", &step.to_string(), began)]);
        }
        let chrome = trace.chrome();
        let events = chrome["traceEvents"].as_array().unwrap().iter();
        let steps: Vec<&str> =
            events.filter(|event| event["ph"] == "X").filter_map(|event| event["name"].as_str()).collect();
        assert_eq!((steps.len(), steps[0]), (STEPS, "3"));
    }
}
