//! What goes wrong with what is kept elsewhere.

/// `Result` of this crate.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// What goes wrong between a name and its bytes: what, where, and what to do about it.
///
/// Causes are kept as text so that one failed read can be reported to everyone who waits for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A location cannot be understood.
    #[error("cannot use location `{location}`: {reason}")]
    Location {
        /// As it was written.
        location: String,
        /// Why not.
        reason: String,
    },
    /// Nothing is stored at a location.
    #[error("`{location}` does not exist; check the path or URL")]
    NotFound {
        /// The missing object.
        location: String,
    },
    /// Several of the names that braces stand for are missing.
    #[error("`{first}` and {others} others of `{pattern}` do not exist; check the numbers in its braces")]
    MissingFiles {
        /// The first of them.
        first: String,
        /// How many more there are.
        others: usize,
        /// As it was written.
        pattern: String,
    },
    /// A pattern matches nothing, or no source was given.
    #[error(
        "no file matches `{pattern}`; patterns are `*`, `?`, `[a-z]`, `**` over folders, `{{a,b}}` and `{{000..127}}`"
    )]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
    /// A link that leads nowhere, among the files that are named: leaving it out would be another corpus.
    #[error("`{link}` is a link to `{target}`, which is not there; restore it, or remove the link")]
    DanglingLink {
        /// The link.
        link: String,
        /// What it leads to.
        target: String,
    },
    /// A folder that stands for the files in it has none of their kind.
    #[error("the folder `{folder}` has no {wanted}, neither in it nor below it")]
    EmptyFolder {
        /// The folder.
        folder: String,
        /// What is looked for.
        wanted: String,
    },
    /// The object store refused or failed, after its own retries.
    #[error("cannot {action} `{location}`: {reason}")]
    Failed {
        /// The object.
        location: String,
        /// `read`, `write`, `list`, `delete`.
        action: &'static str,
        /// What the store said.
        reason: String,
    },
    /// The object store does not let in whoever asks.
    #[error("cannot {action} `{location}`: {reason}")]
    Denied {
        /// The object.
        location: String,
        /// `read`, `write`, `list`, `delete`.
        action: &'static str,
        /// What the store said.
        reason: String,
    },
    /// A model cannot be brought to this machine.
    #[error("cannot fetch `{location}`: {reason}")]
    Fetch {
        /// Its URL.
        location: String,
        /// Why not.
        reason: String,
    },
    /// What lies at a URL is not what was asked for.
    #[error(
        "`{location}` has the hash {found} instead of {expected}: it is other content than what was asked for"
    )]
    OtherContent {
        /// The URL.
        location: String,
        /// The hash asked for.
        expected: String,
        /// Its hash.
        found: String,
    },
    /// A file is not the one the manifest was made from.
    #[error("`{file}` changed since the manifest was made ({reason}); start a new run for the new corpus")]
    Changed {
        /// The file.
        file: String,
        /// The difference.
        reason: String,
    },
    /// A record is not what it should be, or cannot be written as JSON.
    #[error("cannot read the {what}: {reason}")]
    Malformed {
        /// What the record is.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A bug: a thread that looks through folders panicked.
    #[error("a loader thread failed: {reason}")]
    Thread {
        /// What is known.
        reason: String,
    },
}

impl StoreError {
    /// Whether what was named is at fault (the same call fails again) and not storage, time or the machine.
    pub fn is_bad_input(&self) -> bool {
        !matches!(self, Self::Failed { .. } | Self::Denied { .. } | Self::Fetch { .. } | Self::Thread { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_wrongly_is_told_from_stores_that_fail() {
        assert!(StoreError::NotFound { location: "a".into() }.is_bad_input());
        let failed = StoreError::Failed { location: "a".into(), action: "read", reason: "timeout".into() };
        assert!(!failed.is_bad_input());
        assert_eq!(failed.to_string(), "cannot read `a`: timeout");
    }
}
