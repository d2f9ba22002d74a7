//! A step as OpenTelemetry knows it: one trace for all members, in which each has a span with its parts
//! below.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use blip2_telemetry::trace::{Span, TracedStep};
use blip2_telemetry::trace_id;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

/// The fact by which a span says of which step it is.
const STEP: &str = "step";

/// Where a process stands in its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The run by its name.
    pub run: String,
    /// The newest membership epoch.
    pub epoch: u64,
    /// The number that the coordinator gave this worker.
    pub member: Option<u32>,
}

/// The spans of a step as a collector takes them; none of what does not say which step it is.
pub(crate) fn span_data(traced: &TracedStep, place: &Place) -> Vec<SpanData> {
    let Some(step) = traced.spans.iter().find_map(|(_, span)| fact(span, STEP)?.as_u64()) else {
        return Vec::new();
    };
    let trace = TraceId::from_bytes(trace_id(&place.run, place.epoch, step));
    let member = Member { trace, step, process: &traced.process, place };
    let mut spans = vec![member.whole(&traced.spans)];
    let root = spans[0].span_context.span_id();
    spans.extend((1..).zip(&traced.spans).map(|(number, span)| member.part(root, number, span)));
    spans
}

fn fact<'s>(span: &'s Span, name: &str) -> Option<&'s serde_json::Value> {
    span.facts.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// One member's side of a step.
struct Member<'s> {
    trace: TraceId,
    step: u64,
    process: &'s str,
    place: &'s Place,
}

impl Member<'_> {
    /// The span around all others, named by the process.
    fn whole(&self, spans: &[(Duration, Span)]) -> SpanData {
        let began = spans.iter().map(|(began, _)| *began).min().unwrap_or_default();
        let ended = spans.iter().map(|(began, span)| *began + span.time).max().unwrap_or_default();
        let Place { run, epoch, member } = self.place;
        let mut attributes = vec![KeyValue::new("blip2.run", run.clone())];
        let numbers = [("epoch", Some(*epoch)), (STEP, Some(self.step)), ("member", member.map(u64::from))];
        attributes.extend(numbers.into_iter().filter_map(|(name, number)| {
            Some(KeyValue::new(format!("blip2.{name}"), i64::try_from(number?).ok()?))
        }));
        self.span(self.id(0), SpanId::INVALID, self.process.to_owned(), (began, ended), attributes)
    }

    /// One of them.
    fn part(&self, root: SpanId, number: u64, (began, span): &(Duration, Span)) -> SpanData {
        let mut attributes = vec![KeyValue::new("blip2.lane", span.lane)];
        let facts = span.facts.iter().filter(|(name, _)| *name != STEP);
        attributes
            .extend(facts.map(|(name, value)| KeyValue::new(format!("blip2.{name}"), attribute(value))));
        self.span(self.id(number), root, span.name.to_string(), (*began, *began + span.time), attributes)
    }

    fn span(
        &self,
        id: SpanId,
        parent_span_id: SpanId,
        name: String,
        (began, ended): (Duration, Duration),
        attributes: Vec<KeyValue>,
    ) -> SpanData {
        let at = |since: Duration| -> SystemTime { UNIX_EPOCH + since };
        SpanData {
            span_context: SpanContext::new(self.trace, id, TraceFlags::SAMPLED, false, TraceState::NONE),
            parent_span_id,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: at(began),
            end_time: at(ended),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::builder("blip2")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }
    }

    /// The id of the span of a number: another one on every member.
    fn id(&self, number: u64) -> SpanId {
        let mut hash = blake3::Hasher::new();
        hash.update(&self.trace.to_bytes()).update(&number.to_le_bytes());
        hash.update(&self.place.member.unwrap_or(u32::MAX).to_le_bytes()).update(self.process.as_bytes());
        let mut id = [0; 8];
        id.copy_from_slice(&hash.finalize().as_bytes()[..8]);
        SpanId::from_bytes(id)
    }
}

fn attribute(value: &serde_json::Value) -> Value {
    match (value.as_i64(), value.as_f64(), value.as_str()) {
        (Some(whole), _, _) => Value::from(whole),
        (_, Some(number), _) => Value::from(number),
        (_, _, Some(text)) => Value::from(text.to_owned()),
        _ => Value::from(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::json;

    use super::*;

    fn step() -> TracedStep {
        let span = |lane, name: &str, milliseconds, more: Vec<(&'static str, serde_json::Value)>| Span {
            lane,
            name: name.to_owned().into(),
            began: Instant::now(),
            time: Duration::from_millis(milliseconds),
            facts: [vec![("step", json!(7))], more].concat(),
            is_beside: false,
        };
        let at = |milliseconds| Duration::from_secs(1_700_000_000) + Duration::from_millis(milliseconds);
        TracedStep {
            process: "worker-3".into(),
            spans: vec![
                (at(0), span("step", "step 7", 40, vec![])),
                (at(10), span("exchange", "all_reduce 1", 50, vec![("bytes", json!(4096))])),
            ],
        }
    }

    fn place(member: u32) -> Place {
        Place { run: "run".into(), epoch: 2, member: Some(member) }
    }

    #[test]
    fn a_step_is_one_trace_for_all_members_with_a_span_for_each_and_its_parts_below() {
        let [here, there] = [0, 1].map(|member| span_data(&step(), &place(member)));
        let expected = TraceId::from_bytes(trace_id("run", 2, 7));
        assert!(here.iter().chain(&there).all(|span| span.span_context.trace_id() == expected));
        let root = here[0].span_context.span_id();
        assert_eq!(
            (here.len(), here[0].name.as_ref(), here[0].parent_span_id),
            (3, "worker-3", SpanId::INVALID)
        );
        assert!(here[1..].iter().all(|span| span.parent_span_id == root));
        let ids: std::collections::BTreeSet<String> =
            here.iter().chain(&there).map(|span| span.span_context.span_id().to_string()).collect();
        assert_eq!(ids.len(), 6, "of two members, each its own");
        let took = |span: &SpanData| span.end_time.duration_since(span.start_time).unwrap().as_millis();
        assert_eq!([took(&here[0]), took(&here[1]), took(&here[2])], [60, 40, 50]);
        assert!(here[2].attributes.contains(&KeyValue::new("blip2.bytes", 4096_i64)));
        assert!(here[0].attributes.contains(&KeyValue::new("blip2.member", 0_i64)));
    }

    #[test]
    fn of_no_step_nothing_is_said() {
        assert!(span_data(&TracedStep { spans: Vec::new(), ..step() }, &place(0)).is_empty());
    }
}
