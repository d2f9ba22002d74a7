//! How long the texts of messages may be. A process passes on, keeps and logs nothing longer, whoever sent
//! it.
//!
//! What *names* something (an address, a checkpoint, a hash) is refused when it is too long or no line of
//! text: cut, it would name something else. What is *said* to people (a reason, a key) is cut and made
//! visible.

use crate::text::{MAX_TEXT, is_invisible, visible};
use crate::v1::coordinator_message::Kind as FromCoordinator;
use crate::v1::worker_message::Kind as FromWorker;
use crate::v1::{
    Assignment, Commit, CommittedStep, Hello, Ledger, NamedValue, Quarantined, StatusReply, StepDone,
    Welcome, assignment,
};

/// Longest message between a worker and a coordinator, in bytes: a ledger names every row quarantined since a
/// checkpoint.
pub const MAX_CONTROL_MESSAGE: usize = 32 << 20;
/// Longest message of one that has not shown the run's token, in bytes: a Hello without a ledger.
pub const MAX_STRANGER_MESSAGE: usize = 8 << 10;
/// Longest name, address or hash, in bytes.
pub const MAX_IDENTIFIER: usize = 256;
/// Longest token, as in token files.
const MAX_TOKEN: usize = 4096;
/// Longest URL of a folder or file, signature included.
const MAX_URL: usize = 8192;
/// Longest key of a row that is kept.
const MAX_KEY: usize = 1024;
/// Most named values of a step.
const MAX_VALUES: usize = 256;
/// Most records of steps that a ledger has.
pub const MAX_RECORDS: usize = 4096;
/// Most members of an epoch, and reports on them.
const MAX_MEMBERS: usize = 65_536;

/// A text that is too long or no line of text, or a list that is too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} has {length} where at most {most} are taken, and no control characters")]
pub struct TooLong {
    /// The field of the message.
    pub field: &'static str,
    /// Bytes or entries it has.
    pub length: usize,
    /// Bytes or entries it may have.
    pub most: usize,
}

/// Whether `text` may name something: a line of at most [`MAX_IDENTIFIER`] bytes.
pub fn is_identifier(text: &str) -> bool {
    named("", text, MAX_IDENTIFIER).is_ok()
}

fn named(field: &'static str, text: &str, most: usize) -> Result<(), TooLong> {
    if text.len() > most || text.chars().any(is_invisible) {
        return Err(TooLong { field, length: text.len(), most });
    }
    Ok(())
}

fn all_named<const N: usize>(texts: [(&'static str, &str); N]) -> Result<(), TooLong> {
    texts.into_iter().try_for_each(|(field, text)| named(field, text, MAX_IDENTIFIER))
}

fn few<T>(field: &'static str, list: &[T], most: usize) -> Result<(), TooLong> {
    if list.len() > most { Err(TooLong { field, length: list.len(), most }) } else { Ok(()) }
}

fn say(text: &mut String, most: usize) {
    // Nearly every text is short and visible.
    if text.len() > most || text.chars().any(is_invisible) {
        *text = visible(text, most);
    }
}

/// A worker's message with its texts within bounds.
///
/// # Errors
/// What names something is too long, or no line of text.
pub fn bounded_from_worker(mut message: FromWorker) -> Result<FromWorker, TooLong> {
    match &mut message {
        FromWorker::Hello(hello) => greeting(hello)?,
        FromWorker::StepDone(done) => step_done(done)?,
        FromWorker::StepFailed(failed) => {
            few("suspects", &failed.suspects, MAX_MEMBERS)?;
            say(&mut failed.reason, MAX_TEXT);
        }
        FromWorker::PartWritten(part) => {
            all_named([("checkpoint", &part.checkpoint), ("part", &part.part), ("blake3", &part.blake3)])?;
        }
        FromWorker::PartFailed(failed) => {
            all_named([("checkpoint", &failed.checkpoint)])?;
            say(&mut failed.reason, MAX_TEXT);
        }
        FromWorker::Failed(failed) => say(&mut failed.message, MAX_TEXT),
        FromWorker::Ready(ready) => {
            if let Some(device) = &ready.device {
                all_named([("device", &device.device), ("uuid of the device", &device.uuid)])?;
            }
        }
        FromWorker::Heartbeat(_) | FromWorker::Leaving(_) => {}
    }
    Ok(message)
}

fn greeting(hello: &mut Hello) -> Result<(), TooLong> {
    named("token", &hello.token, MAX_TOKEN)?;
    all_named([
        ("binary", &hello.binary),
        ("exchange_address", &hello.exchange_address),
        ("name", &hello.name),
        ("config_hash", &hello.config_hash),
        ("run_id", &hello.run_id),
    ])?;
    hello.ledger.as_mut().map_or(Ok(()), ledger)
}

fn step_done(done: &mut StepDone) -> Result<(), TooLong> {
    values(&done.values)?;
    if let Some(non_finite) = &mut done.non_finite {
        say(&mut non_finite.term, MAX_TEXT);
        few("slots", &non_finite.slots, MAX_MEMBERS)?;
        for slot in &mut non_finite.slots {
            few("keys of a slot", &slot.keys, MAX_VALUES)?;
            slot.keys.iter_mut().for_each(|key| say(key, MAX_KEY));
        }
    }
    rows(&mut done.quarantined)
}

fn ledger(ledger: &mut Ledger) -> Result<(), TooLong> {
    few("records", &ledger.records, MAX_RECORDS)?;
    ledger.records.iter().try_for_each(step_record)?;
    rows(&mut ledger.quarantined)
}

fn step_record(record: &CommittedStep) -> Result<(), TooLong> {
    all_named([("stage_name", &record.stage_name), ("task", &record.task)])?;
    values(&record.values)
}

fn values(values: &[NamedValue]) -> Result<(), TooLong> {
    few("values", values, MAX_VALUES)?;
    values.iter().try_for_each(|value| named("name of a value", &value.name, MAX_IDENTIFIER))
}

fn rows(rows: &mut [Quarantined]) -> Result<(), TooLong> {
    for row in rows {
        // The name of a file may have any letters.
        if row.file.len() > MAX_URL {
            return Err(TooLong { field: "file of a row", length: row.file.len(), most: MAX_URL });
        }
        say(&mut row.key, MAX_KEY);
        say(&mut row.reason, MAX_TEXT);
    }
    Ok(())
}

/// A coordinator's message with its texts within bounds.
///
/// # Errors
/// What names something is too long, or no line of text.
pub fn bounded_from_coordinator(mut message: FromCoordinator) -> Result<FromCoordinator, TooLong> {
    match &mut message {
        FromCoordinator::Welcome(welcome) => welcomed(welcome)?,
        FromCoordinator::Refused(refused) => {
            named("leader", &refused.leader, MAX_URL)?;
            say(&mut refused.reason, MAX_TEXT);
        }
        FromCoordinator::Assignment(assignment) => assigned(assignment)?,
        FromCoordinator::Commit(commit) => committed(commit)?,
        FromCoordinator::Abort(abort) => say(&mut abort.reason, MAX_TEXT),
        FromCoordinator::Stop(stop) => say(&mut stop.reason, MAX_TEXT),
    }
    Ok(message)
}

fn welcomed(welcome: &Welcome) -> Result<(), TooLong> {
    named("run_root", &welcome.run_root, MAX_URL)?;
    all_named([
        ("run_id", &welcome.run_id),
        ("config_hash", &welcome.config_hash),
        ("manifest_hash", &welcome.manifest_hash),
    ])
}

fn assigned(assignment: &mut Assignment) -> Result<(), TooLong> {
    few("members", &assignment.members, MAX_MEMBERS)?;
    for member in &assignment.members {
        all_named([("exchange_address", &member.exchange_address)])?;
    }
    match &assignment.state {
        Some(assignment::State::Checkpoint(name)) => all_named([("checkpoint", name)])?,
        Some(assignment::State::Peer(address)) => all_named([("peer", address)])?,
        Some(assignment::State::Fresh(_)) | None => {}
    }
    assignment.ledger.as_mut().map_or(Ok(()), ledger)
}

fn committed(commit: &mut Commit) -> Result<(), TooLong> {
    all_named([("save_checkpoint", &commit.save_checkpoint)])?;
    commit.record.as_ref().map_or(Ok(()), step_record)?;
    rows(&mut commit.quarantined)
}

/// A status with its texts within bounds: it is shown whatever they are.
pub fn bounded_status(mut status: StatusReply) -> StatusReply {
    status.values.truncate(MAX_VALUES);
    status.members.truncate(MAX_MEMBERS);
    status.faults.truncate(MAX_VALUES);
    status.held_out.truncate(MAX_VALUES);
    say_in_a_line(&mut status.run_root, MAX_URL);
    let devices = status.members.iter_mut().filter_map(|member| member.device.as_mut());
    for text in devices.flat_map(|device| [&mut device.device, &mut device.uuid]) {
        say_in_a_line(text, MAX_IDENTIFIER);
    }
    let names = status.values.iter_mut().chain(&mut status.held_out).map(|value| &mut value.name);
    let members =
        status.members.iter_mut().flat_map(|member| [&mut member.name, &mut member.exchange_address]);
    let stage = [&mut status.stage_name, &mut status.task];
    let own = [&mut status.run_id, &mut status.state, &mut status.last_checkpoint];
    for text in names.chain(members).chain(own).chain(stage) {
        say_in_a_line(text, MAX_IDENTIFIER);
    }
    for fault in &mut status.faults {
        say(fault, MAX_TEXT);
    }
    status
}

fn say_in_a_line(text: &mut String, most: usize) {
    say(text, most);
    if text.contains(['\n', '\t']) {
        *text = text.replace('\n', "\\n").replace('\t', "\\t");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{
        Failed, MemberStatus, NamedValue, NonFinite, PartWritten, Ready, Refused, SlotSamples, Stop,
        WorkerDevice,
    };

    fn long() -> String {
        "x".repeat(1 << 20)
    }

    #[test]
    fn names_that_are_too_long_or_no_line_are_refused() {
        let refused = |message: FromWorker| bounded_from_worker(message).expect_err("refused").field;
        let hello = |name: &str| FromWorker::Hello(Hello { name: name.into(), ..Hello::default() });
        assert_eq!(refused(hello(&long())), "name");
        assert_eq!(refused(hello("two\nlines")), "name");
        assert_eq!(refused(hello("\x1b[2J")), "name");
        assert!(bounded_from_worker(hello("host-1 (rack ä)")).is_ok());
        assert_eq!(refused(FromWorker::Hello(Hello { token: long(), ..Hello::default() })), "token");
        let value = NamedValue { name: long(), value: 1.0 };
        assert_eq!(
            refused(FromWorker::StepDone(StepDone { values: vec![value], ..StepDone::default() })),
            "name of a value"
        );
        let part = PartWritten { part: long(), ..PartWritten::default() };
        assert_eq!(refused(FromWorker::PartWritten(part)), "part");
        let device = Some(WorkerDevice { uuid: "two\nlines".into(), ..WorkerDevice::default() });
        assert_eq!(refused(FromWorker::Ready(Ready { device })), "uuid of the device");
        let leader = Refused { leader: long(), ..Refused::default() };
        assert_eq!(
            bounded_from_coordinator(FromCoordinator::Refused(leader)).expect_err("long").field,
            "leader"
        );
    }

    #[test]
    fn what_is_said_is_cut_and_visible() {
        let failed = Failed { exit_code: 1, message: format!("\x1b[31m{}", long()) };
        let Ok(FromWorker::Failed(failed)) = bounded_from_worker(FromWorker::Failed(failed)) else {
            panic!()
        };
        assert!(failed.message.len() <= MAX_TEXT && failed.message.starts_with("\\u{1b}[31mxx"));
        let row = Quarantined { key: long(), reason: long(), ..Quarantined::default() };
        let slot = SlotSamples { keys: vec![long()], ..SlotSamples::default() };
        let non_finite = Some(NonFinite { term: long(), slots: vec![slot] });
        let done = StepDone { quarantined: vec![row], non_finite, ..StepDone::default() };
        let Ok(FromWorker::StepDone(done)) = bounded_from_worker(FromWorker::StepDone(done)) else {
            panic!()
        };
        assert!(done.quarantined[0].key.len() <= MAX_KEY && done.quarantined[0].reason.len() <= MAX_TEXT);
        let non_finite = done.non_finite.expect("told");
        assert!(non_finite.term.len() <= MAX_TEXT && non_finite.slots[0].keys[0].len() <= MAX_KEY);
        // The ledger of a member comes back to a coordinator that takes over: nothing changes on the way.
        let commit =
            FromCoordinator::Commit(Commit { quarantined: done.quarantined.clone(), ..Commit::default() });
        assert_eq!(bounded_from_coordinator(commit.clone()), Ok(commit));
        let stop = Stop { reason: long(), ..Stop::default() };
        let Ok(FromCoordinator::Stop(stop)) = bounded_from_coordinator(FromCoordinator::Stop(stop)) else {
            panic!()
        };
        assert!(stop.reason.len() <= MAX_TEXT);
    }

    #[test]
    fn a_status_is_shown_within_bounds() {
        let device = Some(WorkerDevice { device: long(), ..WorkerDevice::default() });
        let member = MemberStatus { name: "a\nb\x1b".into(), device, ..MemberStatus::default() };
        let status = StatusReply {
            run_id: long(),
            members: vec![member],
            faults: vec![long(); 1000],
            ..StatusReply::default()
        };
        let status = bounded_status(status);
        assert!(status.run_id.len() <= MAX_IDENTIFIER && status.faults.len() == MAX_VALUES);
        assert_eq!(status.members[0].name, "a\\nb\\u{1b}");
        assert!(status.members[0].device.as_ref().expect("told").device.len() <= MAX_IDENTIFIER);
        assert!(status.faults[0].len() <= MAX_TEXT);
    }
}
