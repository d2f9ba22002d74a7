//! Waiting for the end of whoever tells something.

use tokio::sync::watch;

/// Waits until nobody can send any more.
pub(crate) async fn gone<T>(mut sent: watch::Receiver<T>) {
    while sent.changed().await.is_ok() {}
}
