//! A member that cannot go on, as it told.

/// What a member said when it could not go on.
#[derive(Debug)]
pub(super) struct Complaint {
    pub(super) member: u32,
    pub(super) place: String,
    /// Members that had joined by then: one of a higher number at the same place is this one, started again.
    pub(super) joined: u32,
    pub(super) epoch: u64,
    pub(super) exit_code: u32,
    pub(super) message: String,
}

impl Complaint {
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.exit_code, &self.message) == (other.exit_code, &other.message)
    }
}

/// A worker's name and host: what stays the same when its process is started again.
pub(super) fn place(name: &str, address: &str) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    format!("{name} at {host}")
}
