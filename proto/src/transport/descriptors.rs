//! The descriptors that this process may have.

/// Raises the limit of this process to what the system allows it, and gives that.
pub fn raise_descriptor_limit() -> std::io::Result<u64> {
    rlimit::increase_nofile_limit(u64::MAX)
}

/// How many it may have now.
pub(super) fn limit() -> usize {
    // A system without such a limit has no small one.
    let limit = rlimit::Resource::NOFILE.get_soft().unwrap_or(u64::from(u16::MAX));
    usize::try_from(limit).unwrap_or(usize::MAX)
}
