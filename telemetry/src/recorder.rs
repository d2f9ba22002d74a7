//! The numbers of this process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

use crate::metric::{self, Kind, Metric, PREFIX, SECONDS};
use crate::process::resident_memory_bytes;
use crate::readiness::Readiness;
use crate::trace::{Span, Trace, TracedStep};

/// Names of labels with their values.
type Labels = Vec<(&'static str, String)>;
type NewHistogram = fn() -> Histogram;

/// What a metric's numbers are kept in.
#[derive(Debug)]
enum Numbers {
    Counter(Family<Labels, Counter<f64, AtomicU64>>),
    Gauge(Family<Labels, Gauge<f64, AtomicU64>>),
    Histogram(Family<Labels, Histogram, NewHistogram>),
}

/// What is asked for numbers whenever all are shown.
type Source = Box<dyn Fn(&Telemetry) + Send + Sync>;

/// The numbers of this process; clones are the same ones.
///
/// To record is to look a name up and to add to it: microseconds a step in all. What is recorded under
/// another kind or with other labels than the metric has is dropped, and says so in a debug build.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    numbers: BTreeMap<&'static str, Numbers>,
    registry: Registry,
    readiness: Mutex<Readiness>,
    trace: Mutex<Trace>,
    sources: Mutex<BTreeMap<&'static str, Source>>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Telemetry").field("readiness", &self.readiness()).finish_non_exhaustive()
    }
}

/// That of a process nobody asks.
impl Default for Telemetry {
    fn default() -> Self {
        Self::new("", "")
    }
}

impl Telemetry {
    /// That of a process which is a `role` (`coordinator`, `worker` …) of this version.
    pub fn new(role: &str, version: &str) -> Self {
        let mut registry = Registry::default();
        let mut numbers = BTreeMap::new();
        for metric in metric::ALL {
            numbers.insert(metric.name, registered(&mut registry, metric));
        }
        let sources = Mutex::new(BTreeMap::new());
        let (readiness, trace) = (Mutex::default(), Mutex::new(Trace::new(role)));
        let telemetry = Self(Arc::new(Inner { numbers, registry, readiness, trace, sources }));
        telemetry.set(&metric::BUILD_INFO, &[version, role], 1.0);
        telemetry
    }

    /// Adds to a counter.
    pub fn add(&self, metric: &Metric, labels: &[&str], by: f64) {
        if let Some((Numbers::Counter(family), labels)) = self.find(metric, Kind::Counter, labels) {
            family.get_or_create(&labels).inc_by(by.max(0.0));
        }
    }

    /// Brings a counter to a total that is counted elsewhere; it never goes back.
    pub fn raise(&self, metric: &Metric, labels: &[&str], total: f64) {
        if let Some((Numbers::Counter(family), labels)) = self.find(metric, Kind::Counter, labels) {
            let counter = family.get_or_create(&labels);
            counter.inc_by((total - counter.get()).max(0.0));
        }
    }

    /// Sets a gauge.
    pub fn set(&self, metric: &Metric, labels: &[&str], value: f64) {
        if let Some((Numbers::Gauge(family), labels)) = self.find(metric, Kind::Gauge, labels) {
            family.get_or_create(&labels).set(value);
        }
    }

    /// Sets a gauge of times to the moment that was so long ago.
    pub fn set_moment(&self, metric: &Metric, ago: Duration) {
        #[expect(clippy::disallowed_methods, reason = "it leaves the process and reaches no parameter")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.set(metric, &[], now.saturating_sub(ago).as_secs_f64());
    }

    /// Puts a value into a histogram.
    pub fn observe(&self, metric: &Metric, labels: &[&str], value: f64) {
        if let Some((Numbers::Histogram(family), labels)) = self.find(metric, Kind::Histogram, labels) {
            family.get_or_create(&labels).observe(value);
        }
    }

    /// Drops the series of a gauge: what they speak of is gone.
    pub fn forget(&self, metric: &Metric) {
        if let Some(Numbers::Gauge(family)) = self.0.numbers.get(metric.name) {
            family.clear();
        }
    }

    /// Asks `source` for numbers whenever all are shown, in the place of an earlier one of this name.
    pub fn ask(&self, name: &'static str, source: impl Fn(&Self) + Send + Sync + 'static) {
        lock(&self.0.sources).insert(name, Box::new(source));
    }

    /// This process can do its part.
    pub fn ready(&self) {
        *lock(&self.0.readiness) = Readiness::Ready;
    }

    /// This process cannot do its part, for a reason that fits on a line.
    pub fn not_ready(&self, why: impl Into<String>) {
        *lock(&self.0.readiness) = Readiness::NotReady(why.into());
    }

    /// Whether it can.
    pub fn readiness(&self) -> Readiness {
        lock(&self.0.readiness).clone()
    }

    /// What this process is called in a trace.
    pub fn call(&self, name: &str) {
        lock(&self.0.trace).call(name);
    }

    /// Passes on what each step from now on is made of; where there is no room, a step is left out.
    pub fn pass_on(&self, to: mpsc::Sender<TracedStep>) {
        lock(&self.0.trace).pass_on(to);
    }

    /// Takes in what a step was made of.
    pub fn trace(&self, step: Vec<Span>) {
        lock(&self.0.trace).push(step);
    }

    /// The last steps as a Chrome trace, in JSON.
    pub fn chrome_trace(&self) -> String {
        lock(&self.0.trace).chrome().to_string()
    }

    /// All numbers as OpenMetrics text.
    pub fn text(&self) -> String {
        if let Some(bytes) = resident_memory_bytes() {
            self.set(&metric::RESIDENT_MEMORY_BYTES, &[], bytes as f64);
        }
        for source in lock(&self.0.sources).values() {
            source(self);
        }
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.0.registry);
        text
    }

    fn find(&self, metric: &Metric, kind: Kind, values: &[&str]) -> Option<(&Numbers, Labels)> {
        let fits = metric.kind == kind && metric.labels.len() == values.len();
        debug_assert!(fits, "{} is recorded as it is not declared", metric.name);
        let labels = metric.labels.iter().zip(values).map(|(name, value)| (*name, (*value).to_owned()));
        fits.then_some((self.0.numbers.get(metric.name)?, labels.collect()))
    }
}

fn registered(registry: &mut Registry, metric: &Metric) -> Numbers {
    // The text has `_total` behind every counter and a full stop behind every help.
    let name = format!("{PREFIX}{}", metric.name.trim_end_matches("_total"));
    let help = metric.help.trim();
    match metric.kind {
        Kind::Counter => {
            let family = Family::default();
            registry.register(name, help, family.clone());
            Numbers::Counter(family)
        }
        Kind::Gauge => {
            let family = Family::default();
            registry.register(name, help, family.clone());
            Numbers::Gauge(family)
        }
        Kind::Histogram => {
            let family = Family::new_with_constructor((|| Histogram::new(SECONDS)) as NewHistogram);
            registry.register(name, help, family.clone());
            Numbers::Histogram(family)
        }
    }
}

/// What is behind a lock that is only ever held for a moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_shown_under_its_name() {
        let telemetry = Telemetry::new("coordinator", "1.2.3");
        telemetry.add(&metric::STEPS_REDONE_TOTAL, &["member_lost"], 1.0);
        telemetry.add(&metric::STEPS_REDONE_TOTAL, &["member_lost"], 1.0);
        telemetry.raise(&metric::SAMPLES_TOTAL, &[], 96.0);
        telemetry.raise(&metric::SAMPLES_TOTAL, &[], 64.0);
        telemetry.set(&metric::LOSS, &["contrast", "itc"], f64::NAN);
        telemetry.observe(&metric::STEP_DURATION_SECONDS, &[], 0.2);
        telemetry.ask("epoch", |telemetry| telemetry.set(&metric::EPOCH, &[], 7.0));
        let text = telemetry.text();
        for line in [
            "# TYPE blip2_steps_redone counter",
            "blip2_steps_redone_total{reason=\"member_lost\"} 2.0",
            "blip2_samples_total 96.0",
            "blip2_loss{task=\"contrast\",term=\"itc\"} NaN",
            "blip2_step_duration_seconds_bucket{le=\"0.25\"} 1",
            "blip2_step_duration_seconds_count 1",
            "blip2_epoch 7.0",
            "blip2_build_info{version=\"1.2.3\",role=\"coordinator\"} 1.0",
            "# EOF",
        ] {
            assert!(text.lines().any(|own| own == line), "{line}\n{text}");
        }
        assert!(!text.contains("blip2_learning_rate "), "what was never recorded is not there\n{text}");
        telemetry.forget(&metric::LOSS);
        assert!(!telemetry.text().contains("blip2_loss{"));
    }

    #[test]
    fn every_metric_is_shown_as_the_series_it_names() {
        let telemetry = Telemetry::default();
        for metric in metric::ALL {
            let labels = vec!["x"; metric.labels.len()];
            match metric.kind {
                Kind::Counter => telemetry.add(metric, &labels, 1.0),
                Kind::Gauge => telemetry.set(metric, &labels, 1.0),
                Kind::Histogram => telemetry.observe(metric, &labels, 1.0),
            }
        }
        let text = telemetry.text();
        let shown = |series: &str| {
            text.lines().any(|line| {
                let rest = line.strip_prefix(series);
                rest.is_some_and(|rest| rest.starts_with([' ', '{']))
            })
        };
        for series in metric::ALL.iter().flat_map(Metric::series) {
            assert!(shown(&series), "{series}\n{text}");
        }
    }
}
