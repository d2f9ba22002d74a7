//! Where a coordinator may be found: the addresses given, those that others name, and the newest epoch's.

use std::time::Duration;

use blip2_proto::transport::{ConnectError, Transport};
use blip2_run::epoch::EpochRecord;
use blip2_run::layout::{EPOCHS, epoch_object, parse_epoch_name};
use blip2_store::Location;

use super::stream::Stream;

/// How long a candidate may take to open a session.
const CONNECT: Duration = Duration::from_secs(2);
/// How long the store may take to say who leads.
const LOOK_UP: Duration = Duration::from_secs(2);
/// Candidates tried in one attempt at most, so that it comes to an end in time.
const MOST_TRIED: usize = 3;

/// What an attempt came to.
pub(super) struct Opening {
    pub(super) session: Result<Stream, ConnectError>,
    /// The newest epoch found.
    pub(super) leader: Option<EpochRecord>,
}

/// The candidates, most promising first.
pub(super) struct Candidates {
    transport: Transport,
    /// The run's token.
    token: String,
    given: Vec<String>,
    /// Named by a coordinator that does not lead.
    hint: String,
    leader: Option<EpochRecord>,
    run_root: Option<Location>,
}

impl Candidates {
    pub(super) fn new(given: Vec<String>, token: String, transport: Transport) -> Self {
        Self { transport, token, given, hint: String::new(), leader: None, run_root: None }
    }

    /// The run's folder, in which the epochs are.
    pub(super) fn run_root(&mut self, run_root: Location) {
        self.run_root = Some(run_root);
    }

    /// Another coordinator is said to lead.
    pub(super) fn hint(&mut self, address: &str) {
        address.clone_into(&mut self.hint);
    }

    /// A newer epoch was found.
    pub(super) fn found(&mut self, leader: Option<EpochRecord>) {
        let newest = self.leader.as_ref().map_or(0, |leader| leader.epoch);
        self.leader = leader.filter(|leader| leader.epoch > newest).or(self.leader.take());
    }

    /// Waits, looks up who leads, and opens a session with the first candidate that is there.
    pub(super) fn open(&mut self, attempt: u32, after: Duration) -> impl Future<Output = Opening> + use<> {
        let (transport, given, run_root) =
            (self.transport.clone(), self.given.clone(), self.run_root.clone());
        let (hint, known) = (std::mem::take(&mut self.hint), self.leader.clone());
        let token = self.token.clone();
        async move {
            tokio::time::sleep(after).await;
            let leader = match &run_root {
                Some(run_root) => tokio::time::timeout(LOOK_UP, newest_epoch(run_root)).await.ok().flatten(),
                None => None,
            };
            let is_news =
                leader.as_ref().map(|leader| leader.epoch) > known.as_ref().map(|known| known.epoch);
            let newest = leader.as_ref().or(known.as_ref());
            let newest = newest.map_or(String::new(), |leader| leader.address.clone());
            // Whoever has just begun to lead is tried before those who stood by a moment ago.
            let (named, turn) = if is_news { ([newest, hint], 0) } else { ([hint, newest], attempt) };
            let candidates = in_turn(named, &given, turn);
            let session = first_open(&transport, &token, candidates).await;
            Opening { session, leader }
        }
    }
}

/// The addresses without repetition, beginning with another one at every attempt.
fn in_turn(named: [String; 2], given: &[String], attempt: u32) -> Vec<String> {
    let mut candidates: Vec<String> = Vec::new();
    for address in named.iter().chain(given) {
        if !address.is_empty() && !candidates.contains(address) {
            candidates.push(address.clone());
        }
    }
    let first = attempt as usize % candidates.len().max(1);
    candidates.rotate_left(first);
    candidates
}

async fn first_open(
    transport: &Transport,
    token: &str,
    candidates: Vec<String>,
) -> Result<Stream, ConnectError> {
    let mut problems: Vec<ConnectError> = Vec::new();
    for address in candidates.iter().take(MOST_TRIED) {
        match Stream::open(transport, address, token, CONNECT).await {
            Ok(stream) => return Ok(stream),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        return Err("no coordinator is named; give --coordinator".to_owned().into());
    }
    let reasons: Vec<&str> = problems.iter().map(|problem| problem.reason.as_str()).collect();
    let untrusted = problems.iter().all(|problem| problem.untrusted);
    Err(ConnectError { reason: reasons.join("; "), untrusted })
}

/// Epochs in a row without content that a search for the next one passes over.
const MOST_UNREADABLE: u64 = 1;

/// The newest epoch's object; `None` when it cannot be read now.
async fn newest_epoch(run_root: &Location) -> Option<EpochRecord> {
    let objects = run_root.join(EPOCHS).list().await.ok()?;
    let number = |location: &Location| parse_epoch_name(location.file_name());
    let mut numbers: Vec<u64> = objects.iter().filter_map(|object| number(&object.location)).collect();
    numbers.sort_unstable();
    for epoch in numbers.into_iter().rev() {
        // One without content was left by a coordinator that is gone.
        if let Some(found) = read(run_root, epoch).await {
            return Some(found);
        }
    }
    None
}

async fn read(run_root: &Location, epoch: u64) -> Option<EpochRecord> {
    let object = epoch_object(run_root, epoch);
    let content = object.read().await.ok()??;
    EpochRecord::parse(&object.to_string(), &content).ok()
}

/// Waits until an epoch after `epoch` is of another coordinator than `epoch` is. A store that does not answer
/// says nothing.
pub(super) async fn other_leader(run_root: Location, mut epoch: u64, every: Duration) -> EpochRecord {
    let mut current: Option<EpochRecord> = None;
    loop {
        tokio::time::sleep(every).await;
        if current.is_none() {
            current = read(&run_root, epoch).await;
        }
        let Some(followed) = &current else { continue };
        let mut ahead = 1;
        while ahead <= MOST_UNREADABLE + 1 {
            match read(&run_root, epoch + ahead).await {
                Some(next) if next.coordinator != followed.coordinator => return next,
                Some(_) => (epoch, ahead) = (epoch + ahead, 1),
                None => ahead += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(candidates: &[&str]) -> Vec<String> {
        candidates.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn who_is_named_comes_first_and_every_candidate_gets_its_turn() {
        let given = names(&["http://a", "http://b"]);
        let turn = |named: [&str; 2], attempt| in_turn(named.map(String::from), &given, attempt);
        assert_eq!(turn(["", ""], 0), given);
        assert_eq!(turn(["", ""], 1), names(&["http://b", "http://a"]));
        assert_eq!(turn(["", "http://b"], 0), names(&["http://b", "http://a"]));
        assert_eq!(turn(["http://c", "http://b"], 0), names(&["http://c", "http://b", "http://a"]));
        assert_eq!(turn(["http://c", "http://b"], 2), names(&["http://a", "http://c", "http://b"]));
        assert!(in_turn([String::new(), String::new()], &[], 3).is_empty());
    }

    async fn write(root: &Location, epoch: u64, coordinator: &str) {
        let content = format!(
            r#"{{"epoch": {epoch}, "coordinator": "{coordinator}", "address": "http://{coordinator}", "step": 0, "members": []}}"#
        );
        epoch_object(root, epoch).put(content.into()).await.expect("written");
    }

    #[tokio::test]
    async fn the_newest_epoch_names_the_leader_and_a_change_is_noticed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = Location::parse(folder.path().to_str().expect("utf-8")).expect("a local path");
        assert_eq!(newest_epoch(&root).await, None);
        for (epoch, coordinator) in [(1, "a"), (2, "a"), (10, "a")] {
            write(&root, epoch, coordinator).await;
        }
        assert_eq!(newest_epoch(&root).await.map(|leader| leader.epoch), Some(10));

        #[expect(clippy::disallowed_methods, reason = "joined by the test")]
        let watch = tokio::spawn(other_leader(root.clone(), 10, Duration::from_millis(5)));
        write(&root, 11, "a").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!watch.is_finished(), "the same coordinator goes on");
        write(&root, 12, "b").await;
        let leader =
            tokio::time::timeout(Duration::from_secs(10), watch).await.expect("noticed").expect("no panic");
        assert_eq!((leader.epoch, leader.address.as_str()), (12, "http://b"));
    }
}
