//! Who keeps the records of committed steps, and how far that is.

use std::time::Duration;

use tokio::sync::watch;

/// How long a checkpoint waits for the records of its steps: they are worth less than it is.
const WITHIN: Duration = Duration::from_secs(5);

/// A coordinator's end: it says which records should be kept by now, and sees which are.
#[derive(Debug, Clone)]
pub struct Keeping {
    wanted: watch::Sender<u64>,
    kept: watch::Receiver<u64>,
}

/// The end of who keeps them, in steps from the first.
#[derive(Debug)]
pub struct Keeper {
    /// Records of so many steps are wanted to be kept soon.
    pub wanted: watch::Receiver<u64>,
    /// Records of so many steps are kept for good.
    pub kept: watch::Sender<u64>,
}

impl Keeping {
    /// Both ends.
    pub fn new() -> (Self, Keeper) {
        let (wanted, asked) = watch::channel(0);
        let (done, kept) = watch::channel(0);
        (Self { wanted, kept }, Keeper { wanted: asked, kept: done })
    }

    /// That of a run whose records nobody keeps.
    pub fn nobody() -> Self {
        Self::new().0
    }

    /// The next number of steps whose records are kept; never, where nobody keeps any.
    pub(crate) async fn next(&mut self) -> u64 {
        match self.kept.changed().await {
            Ok(()) => *self.kept.borrow_and_update(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until the records of so many steps are kept, for a while.
    pub(crate) async fn until(mut self, steps: u64) {
        self.wanted.send_if_modified(|wanted| {
            let more = steps > *wanted;
            *wanted = steps.max(*wanted);
            more
        });
        let kept = self.kept.wait_for(|kept| *kept >= steps);
        // Nobody who keeps any needs no waiting.
        if tokio::time::timeout(WITHIN, kept).await.is_err() {
            tracing::warn!(steps, "a checkpoint does not wait any longer for the records of its steps");
        }
    }
}

impl Keeper {
    /// Records of so many steps are kept for good.
    pub fn keep(&self, steps: u64) {
        self.kept.send_if_modified(|kept| {
            let more = steps > *kept;
            *kept = steps.max(*kept);
            more
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_checkpoint_waits_for_its_records_and_not_for_nobody() {
        let (mut keeping, keeper) = Keeping::new();
        let waiting = keeping.clone().until(3);
        let mut waiting = std::pin::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(*keeper.wanted.borrow(), 3);
        keeper.keep(2);
        assert!(futures::poll!(&mut waiting).is_pending());
        keeper.keep(3);
        waiting.await;
        assert_eq!(keeping.next().await, 3);
        Keeping::nobody().until(9).await;
    }
}
