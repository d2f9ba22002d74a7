//! What a collective can fail with.

/// Result of this crate.
pub type Result<T> = std::result::Result<T, CollectiveError>;

/// Why a collective did not complete.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CollectiveError {
    /// The deadline passed.
    #[error("step {step}, {tag}: members {waiting_for:?} did not answer within {seconds:.1} s")]
    Timeout {
        /// Step of the collective.
        step: u64,
        /// Tag of the collective.
        tag: String,
        /// Members that had not sent, or not taken, all of their data.
        waiting_for: Vec<u32>,
        /// The deadline in seconds.
        seconds: f64,
    },
    /// The connection to a member is gone and could not be made again.
    #[error("member {member} at {address} cannot be reached: {reason}")]
    PeerLost {
        /// The member.
        member: u32,
        /// Its Exchange address.
        address: String,
        /// What the transport said.
        reason: String,
    },
    /// The epoch was aborted, or a newer one began.
    #[error("epoch {epoch} was aborted: {reason}")]
    Aborted {
        /// The epoch that ended.
        epoch: u64,
        /// Why.
        reason: String,
    },
    /// A member answered, with a refusal.
    #[error("member {member} refused: {reason}")]
    Refused {
        /// The member.
        member: u32,
        /// Its reason.
        reason: String,
    },
    /// A member sent something else than the collective needs.
    #[error("member {member} sent {got} bytes for {tag} of step {step} where {expected} were due")]
    WrongLength {
        /// The member.
        member: u32,
        /// Step of the collective.
        step: u64,
        /// Tag of the collective.
        tag: String,
        /// Bytes due.
        expected: u64,
        /// Bytes received.
        got: u64,
    },
    /// A member sent other content than the collective needs.
    #[error("member {member} sent something else for {tag} of step {step}: {reason}")]
    Unexpected {
        /// The member.
        member: u32,
        /// Step of the collective.
        step: u64,
        /// Tag of the collective.
        tag: String,
        /// What it is and what was due.
        reason: String,
    },
    /// The state of a peer could not be fetched.
    #[error("fetching the state of step {step} from {address}: {reason}")]
    State {
        /// Exchange address of the peer.
        address: String,
        /// The step asked for.
        step: u64,
        /// What happened.
        reason: String,
    },
    /// A collective was called before the first world was set.
    #[error("no world is set: call set_world with the coordinator's assignment first")]
    NoWorld,
    /// The caller's arguments do not fit the world or the tree.
    #[error("invalid call: {0}")]
    Invalid(String),
    /// The listener could not be bound.
    #[error("cannot listen on {address}: {reason}")]
    Bind {
        /// Address asked for.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The exchange is shut down.
    #[error("the exchange is shut down")]
    Closed,
}

/// How the system names the lack of descriptors, of this process and of the machine.
const NO_DESCRIPTORS: [&str; 2] = ["os error 24", "os error 23"];

impl CollectiveError {
    /// Whether it is this process that has no more means to reach others.
    pub fn is_own(&self) -> bool {
        let lacks = |reason: &str| NO_DESCRIPTORS.iter().any(|name| reason.contains(name));
        match self {
            Self::PeerLost { reason, .. } | Self::State { reason, .. } | Self::Bind { reason, .. } => {
                lacks(reason)
            }
            _ => false,
        }
    }

    /// Members to blame, for the report to the coordinator; empty when nobody is.
    pub fn suspects(&self) -> Vec<u32> {
        match self {
            Self::Timeout { waiting_for, .. } => waiting_for.clone(),
            Self::PeerLost { member, .. }
            | Self::WrongLength { member, .. }
            | Self::Unexpected { member, .. } => vec![*member],
            _ => Vec::new(),
        }
    }
}
