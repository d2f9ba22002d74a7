//! SIGINT and SIGTERM: the first asks the run to save and stop, the second ends it at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::CliError;

/// The signals of this process, as two tokens.
#[derive(Debug)]
pub(crate) struct Signals {
    graceful: CancellationToken,
    forced: CancellationToken,
    listener: JoinHandle<()>,
}

impl Signals {
    /// Takes over SIGINT and SIGTERM.
    pub(crate) fn listen() -> Result<Self, CliError> {
        let register = |kind| {
            signal(kind).map_err(|error| CliError::failed(format!("cannot listen for signals: {error}")))
        };
        let (mut interrupt, mut terminate) =
            (register(SignalKind::interrupt())?, register(SignalKind::terminate())?);
        let (graceful, forced) = (CancellationToken::new(), CancellationToken::new());
        let (first, second) = (graceful.clone(), forced.clone());
        let listener = tokio::spawn(async move {
            next(&mut interrupt, &mut terminate).await;
            first.cancel();
            next(&mut interrupt, &mut terminate).await;
            second.cancel();
        });
        Ok(Self { graceful, forced, listener })
    }

    /// Cancelled by the first signal.
    pub(crate) fn graceful(&self) -> CancellationToken {
        self.graceful.clone()
    }

    /// Cancelled by the second signal.
    pub(crate) fn forced(&self) -> CancellationToken {
        self.forced.clone()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
