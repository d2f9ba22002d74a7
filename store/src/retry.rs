//! Requests to a store, made again where they break: a store's client tries requests again, not the bodies of
//! their answers.

use std::future::Future;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How often a request is tried, and how long is waited in between. The pauses are a function of these
/// numbers alone; whoever drops the future ends the trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Tries in all; at least one is made.
    pub tries: u32,
    /// Before the second try; each later one waits twice as long as the one before.
    pub first_pause: Duration,
}

impl Retries {
    /// Asks until there is an answer, an error that is not `transient`, or no try left. `again` is told each
    /// error that another try follows.
    pub async fn run<T, E, F: Future<Output = Result<T, E>>>(
        self,
        ask: impl FnMut() -> F,
        transient: impl FnMut(&E) -> bool,
        mut again: impl FnMut(&E),
    ) -> Result<T, E> {
        ask.retry(self.pauses()).when(transient).notify(|error, _| again(error)).await
    }

    fn pauses(self) -> ExponentialBuilder {
        ExponentialBuilder::new()
            .with_factor(2.0)
            .with_min_delay(self.first_pause)
            .with_max_delay(LONGEST_PAUSE)
            .with_max_times(self.tries.saturating_sub(1) as usize)
    }
}

/// Whether the same request may succeed later. Connections that break have no kind of their own.
pub fn is_transient(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::Generic { .. } | object_store::Error::JoinError { .. })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use backon::BackoffBuilder as _;

    use super::*;

    const RETRIES: Retries = Retries { tries: 6, first_pause: Duration::from_millis(1) };

    fn broken() -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: "the body ends early".into() }
    }

    #[tokio::test]
    async fn what_breaks_off_is_asked_for_again_so_many_times() {
        let (asked, told) = (Cell::new(0), Cell::new(0));
        let ask = |whole: u32| {
            asked.set(asked.get() + 1);
            let answer = if asked.get() < whole { Err(broken()) } else { Ok(asked.get()) };
            async move { answer }
        };
        let answered = RETRIES.run(|| ask(3), is_transient, |_| told.set(told.get() + 1)).await;
        assert_eq!((answered.unwrap(), told.get()), (3, 2));
        asked.set(0);
        RETRIES.run(|| ask(100), is_transient, |_| ()).await.unwrap_err();
        assert_eq!(asked.get(), 6);
        asked.set(0);
        Retries { tries: 0, ..RETRIES }.run(|| ask(100), is_transient, |_| ()).await.unwrap_err();
        assert_eq!(asked.get(), 1);
    }

    #[tokio::test]
    async fn what_is_refused_is_not_asked_for_again() {
        let asked = Cell::new(0);
        let refused = || {
            asked.set(asked.get() + 1);
            let source = "no".into();
            async { Err::<(), _>(object_store::Error::PermissionDenied { path: "a".into(), source }) }
        };
        RETRIES.run(refused, is_transient, |_| ()).await.unwrap_err();
        assert_eq!(asked.get(), 1);
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_are_the_same_every_time() {
        let retries = Retries { tries: 9, first_pause: Duration::from_millis(100) };
        let millis: Vec<u128> = retries.pauses().build().map(|pause| pause.as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1600, 3200, 6400, 10_000]);
    }
}
