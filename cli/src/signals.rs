//! SIGINT, SIGTERM and SIGHUP: the first asks this process to go, which saves or hands over what it has; a
//! later one ends it at once.
//!
//! One wish to stop often comes as several signals: `timeout` sends its own to the process and then to the
//! group, a terminal's Ctrl-C and a launcher's SIGTERM arrive together, a batch system tells every process of
//! a job. What comes within [`SAME_SIGNAL`] of the first is therefore the first. Slurm says a preemption
//! again every few seconds while the run is being saved, and ends a job that takes too long by SIGKILL: in a
//! job of it SIGTERM ends nothing at once.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::CliError;

/// A signal this soon after the first one is the same.
const SAME_SIGNAL: Duration = Duration::from_secs(2);

/// Slurm's name of the job that this process belongs to.
const SLURM_JOB: &str = "SLURM_JOB_ID";

/// The signals of this process, as two tokens.
#[derive(Debug)]
pub(crate) struct Signals {
    graceful: CancellationToken,
    forced: CancellationToken,
    listener: JoinHandle<()>,
}

impl Signals {
    /// Takes over SIGINT, SIGTERM and SIGHUP; the last not where it is ignored already, as `nohup` arranges.
    pub(crate) fn listen() -> Result<Self, CliError> {
        let register = |kind| {
            signal(kind).map_err(|error| CliError::failed(format!("cannot listen for signals: {error}")))
        };
        let hang_up = SignalKind::hangup();
        let mut taken = Taken {
            interrupt: register(SignalKind::interrupt())?,
            terminate: Some(register(SignalKind::terminate())?),
            hang_up: if is_ignored(hang_up) { None } else { Some(register(hang_up)?) },
        };
        let is_repeated = std::env::var_os(SLURM_JOB).is_some();
        let (graceful, forced) = (CancellationToken::new(), CancellationToken::new());
        let (first, second) = (graceful.clone(), forced.clone());
        #[expect(clippy::disallowed_methods, reason = "aborted when the signals are dropped")]
        let listener = tokio::spawn(async move {
            taken.next().await;
            let asked = Instant::now();
            let what = if is_repeated { "SIGINT" } else { "a second signal" };
            eprintln!(
                "asked to go: what is done so far is kept; {what}, {} s from now or later, ends at once",
                SAME_SIGNAL.as_secs()
            );
            first.cancel();
            if is_repeated {
                (taken.terminate, taken.hang_up) = (None, None);
            }
            while asked.elapsed() < SAME_SIGNAL {
                taken.next().await;
            }
            second.cancel();
        });
        Ok(Self { graceful, forced, listener })
    }

    /// Cancelled by the first signal.
    pub(crate) fn graceful(&self) -> CancellationToken {
        self.graceful.clone()
    }

    /// Cancelled by a second signal that is not the first once more.
    pub(crate) fn forced(&self) -> CancellationToken {
        self.forced.clone()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// The signals that are taken over, as long as they mean something.
struct Taken {
    interrupt: Signal,
    terminate: Option<Signal>,
    hang_up: Option<Signal>,
}

impl Taken {
    /// Waits for any of them.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            () = heard(&mut self.terminate) => {}
            () = heard(&mut self.hang_up) => {}
        }
    }
}

/// Waits for the signal; without one, for ever.
async fn heard(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Whether this process was started with a signal ignored, as far as the system tells.
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_known() {
        // Rust's runtime ignores SIGPIPE in every process.
        assert!(is_ignored(SignalKind::pipe()));
        assert!(!is_ignored(SignalKind::child()));
    }
}
