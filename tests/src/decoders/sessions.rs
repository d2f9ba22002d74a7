//! Messages of workers, coordinators and peers, fed to the state machines that production runs.

use blip2_collective::read_bulk_messages;
use blip2_proto::v1;
use prost::Message;

use super::script::records;

pub(super) mod with_coordinator;
pub(super) mod with_member;

use with_coordinator::CoordinatorScene;
use with_member::MemberScene;

/// Largest bulk message.
const LARGEST_MESSAGE: usize = 1 << 16;
/// Things that happen in one script; a longer one is cut.
const MAX_RECORDS: usize = 2048;

/// Workers' messages and the store's answers: whether a step was committed.
pub(super) fn coordinator(bytes: &[u8]) -> bool {
    let mut scene = CoordinatorScene::new();
    for record in records(bytes).take(MAX_RECORDS) {
        scene.happens(record);
    }
    scene.has_committed()
}

/// A coordinator's messages and compute's answers: whether a step was applied.
pub(super) fn member(bytes: &[u8]) -> bool {
    let mut scene = MemberScene::new();
    for record in records(bytes).take(MAX_RECORDS) {
        scene.happens(record);
    }
    scene.has_applied()
}

/// A stream of the peers' bulk messages, or one small message; the first byte says which, and in what pieces
/// it comes.
pub(super) fn exchange(bytes: &[u8]) -> bool {
    let Some((kind, message)) = bytes.split_first() else { return false };
    match kind % 8 {
        0 => v1::PushHeader::decode(message).is_ok(),
        2 => v1::FetchStateRequest::decode(message).is_ok(),
        4 => v1::StateHeader::decode(message).is_ok(),
        _ => read_bulk_messages(message, usize::from(*kind), LARGEST_MESSAGE).is_ok(),
    }
}
