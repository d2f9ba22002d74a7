//! A value of the configuration, and where it came from.

use std::fmt;
use std::path::PathBuf;

use blip2_store::secret_url::redacted;
use toml::Value;

use super::keys::Key;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Environment { name: String },
    Argument,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => formatter.write_str("default"),
            Origin::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Origin::Environment { name } => write!(formatter, "environment {name}"),
            Origin::Argument => formatter.write_str("--set"),
        }
    }
}

/// One value of the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// Dotted key, as it is kept.
    pub(crate) key: String,
    /// As it was written: a stage's key has more than one name.
    pub(crate) written: String,
    pub(crate) value: Value,
    pub(crate) origin: Origin,
    /// What is known of the key.
    pub(crate) known: Key,
}

/// The value without the credentials of URLs.
pub(super) fn shown(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(redacted(text)),
        Value::Array(items) => Value::Array(items.iter().map(shown).collect()),
        other => other.clone(),
    }
}
