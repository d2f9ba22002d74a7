//! Committed steps as TensorBoard reads them: records with masked CRC-32C around three messages of its own.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::record::StepRecord;

/// What a file begins with.
const VERSION: &str = "brain.Event:2";
/// The status of a session that begins: what was said of its first step and of later ones holds no more.
const START: i32 = 1;
/// What TensorBoard adds to a rotated checksum.
const MASK: u32 = 0xa282_ead8;

/// `tensorflow.Event`.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

/// `tensorflow.Summary.Value` with a number.
#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, tag = "2")]
    simple_value: f32,
}

/// `tensorflow.SessionLog`.
#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The name of the file with the steps from `first` on, begun in `epoch`. TensorBoard takes files with
/// `tfevents` in their names, and reads them in the order of these.
pub(crate) fn event_name(epoch: u64, first: u64) -> String {
    format!("events.out.tfevents.{epoch:010}-{first:010}")
}

/// What a file begins with whose first step this is.
pub(crate) fn head(first: u64) -> Vec<u8> {
    let version = Event { wall_time: now(), file_version: Some(VERSION.into()), ..Event::default() };
    let start = SessionLog { status: START };
    let begin = Event { wall_time: now(), step: first as i64, session_log: Some(start), ..Event::default() };
    [framed(&version), framed(&begin)].concat()
}

/// The numbers of a committed step: those of the stage under its name, those on held-out rows as
/// `held_out/…`.
pub(crate) fn event_of(record: &StepRecord) -> Vec<u8> {
    let tag = |name: &str| match name.strip_prefix("eval_") {
        Some(measured) => format!("held_out/{measured}"),
        None => format!("{}/{name}", record.stage_name),
    };
    let scalar = |tag: String, value: f64| Scalar { tag, simple_value: value as f32 };
    let values = record.values.iter().map(|(name, value)| scalar(tag(name), value.unwrap_or(f64::NAN)));
    let rate = if record.seconds > 0.0 { record.samples as f64 / record.seconds } else { 0.0 };
    let times = [
        ("speed/step_seconds", record.seconds),
        ("speed/data_wait_seconds", record.data_wait_seconds),
        ("speed/samples_per_second", rate),
    ];
    let times = times.map(|(tag, value)| scalar(tag.to_owned(), value));
    let summary = Summary { value: values.chain(times).collect() };
    framed(&Event { wall_time: now(), step: record.step as i64, summary: Some(summary), ..Event::default() })
}

/// Length, its checksum, the message, its checksum.
fn framed(event: &Event) -> Vec<u8> {
    let data = event.encode_to_vec();
    let length = (data.len() as u64).to_le_bytes();
    let sum = |bytes: &[u8]| masked(crc32c::crc32c(bytes)).to_le_bytes();
    [&length[..], &sum(&length), &data, &sum(&data)].concat()
}

fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(MASK)
}

/// Seconds since 1970, for the axis of those who look at the curves by time.
fn now() -> f64 {
    #[expect(clippy::disallowed_methods, reason = "it is shown and reaches no parameter")]
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn checksums_are_those_that_tensorboard_computes() {
        // Of CRC-32C's own definition, and of a length of 24 as TensorFlow writes it.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(
            masked(crc32c::crc32c(&24u64.to_le_bytes())),
            u32::from_le_bytes([0xa3, 0x7f, 0x4b, 0x22])
        );
    }

    #[test]
    fn a_step_is_an_event_with_its_values_under_the_stages_name() {
        let bytes = event_of(&record(3, 2.5));
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(bytes.len(), length + 16);
        let event = Event::decode(&bytes[12..12 + length]).unwrap();
        let values = event.summary.unwrap().value;
        assert_eq!(event.step, 3);
        assert!(values.iter().any(|value| value.tag == "generate/loss" && value.simple_value == 2.5));
        assert!(
            values.iter().any(|value| value.tag == "speed/samples_per_second" && value.simple_value == 128.0)
        );
    }
}
