//! The steps of a worker as traces for a collector of OpenTelemetry, by OTLP over gRPC, in the clear or over
//! TLS.
//!
//! A step is one trace, whose id every member computes alike ([`blip2_telemetry::trace_id()`]): a span for
//! each member, and below it what the step was made of there. [`TraceExport`] sends them beside the training,
//! which never waits for it: what a collector does not take is left out.
//!
//! | module | holds |
//! |---|---|
//! | `exporting` | the task that sends |
//! | `spans` | a step in OpenTelemetry's form |

mod exporting;
mod spans;

pub use exporting::{CollectorTls, OtlpError, TraceExport};
pub use spans::Place;
