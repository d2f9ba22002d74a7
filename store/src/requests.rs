//! How often remote stores were asked, and how that ended. Counted for whoever watches this process; nothing
//! is decided on it.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    Head,
    GetRanges,
    Put,
    /// A write that does nothing where there is an object.
    Create,
    /// The beginning of a write in pieces.
    PutInPieces,
}

const OPERATIONS: [(Operation, &str); 6] = [
    (Operation::Get, "get"),
    (Operation::Head, "head"),
    (Operation::GetRanges, "get_ranges"),
    (Operation::Put, "put"),
    (Operation::Create, "create"),
    (Operation::PutInPieces, "put_in_pieces"),
];

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// There is no such object.
    Absent,
    /// There is one already, or it is another.
    Exists,
    Denied,
    Failed,
}

const OUTCOMES: [(Outcome, &str); 5] = [
    (Outcome::Done, "ok"),
    (Outcome::Absent, "absent"),
    (Outcome::Exists, "exists"),
    (Outcome::Denied, "denied"),
    (Outcome::Failed, "failed"),
];

static COUNTS: [[AtomicU64; OUTCOMES.len()]; OPERATIONS.len()] =
    [const { [const { AtomicU64::new(0) }; OUTCOMES.len()] }; OPERATIONS.len()];

/// Requests of this process to remote stores so far: what was asked, how it ended, how often. A request that
/// a client tried several times counts once.
pub fn counts() -> Vec<(&'static str, &'static str, u64)> {
    let of = |(row, (_, asked)): (&[AtomicU64; OUTCOMES.len()], &(Operation, &'static str))| {
        let ended = row.iter().zip(OUTCOMES);
        let ended = ended.map(|(count, (_, outcome))| (*asked, outcome, count.load(Ordering::Relaxed)));
        ended.collect::<Vec<_>>()
    };
    COUNTS.iter().zip(&OPERATIONS).flat_map(of).filter(|(_, _, count)| *count > 0).collect()
}

/// Why a try of a request came to nothing that the client makes again, up to a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// There is no connection.
    Unreachable,
    /// The connection, or the answer, breaks off.
    Broken,
    Timeout,
    /// The store asks for patience.
    Busy,
    /// The store has failed.
    Server,
}

const CAUSES: [(Cause, &str); 5] = [
    (Cause::Unreachable, "unreachable"),
    (Cause::Broken, "broken"),
    (Cause::Timeout, "timeout"),
    (Cause::Busy, "busy"),
    (Cause::Server, "server"),
];

static FAILED_TRIES: [AtomicU64; CAUSES.len()] = [const { AtomicU64::new(0) }; CAUSES.len()];

/// Tries of requests to remote stores, of this process so far, that came to nothing and that the client made
/// again, or would have made again: why, and how often. Requests for credentials are among them.
pub fn failed_tries() -> Vec<(&'static str, u64)> {
    let counts =
        FAILED_TRIES.iter().zip(CAUSES).map(|(count, (_, name))| (name, count.load(Ordering::Relaxed)));
    counts.filter(|(_, count)| *count > 0).collect()
}

/// Counts such a try.
pub(crate) fn count_failed_try(cause: Cause) {
    if let Some(index) = CAUSES.iter().position(|(own, _)| *own == cause) {
        FAILED_TRIES[index].fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts a request by its answer.
pub(crate) fn count<T>(operation: Operation, answer: &object_store::Result<T>) {
    use object_store::Error;
    let outcome = match answer {
        Ok(_) => Outcome::Done,
        Err(Error::NotFound { .. }) => Outcome::Absent,
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. }) => {
            Outcome::Exists
        }
        Err(Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) => Outcome::Denied,
        Err(_) => Outcome::Failed,
    };
    let row = OPERATIONS.iter().position(|(own, _)| *own == operation);
    let column = OUTCOMES.iter().position(|(own, _)| *own == outcome);
    if let (Some(row), Some(column)) = (row, column) {
        COUNTS[row][column].fetch_add(1, Ordering::Relaxed);
    }
}
