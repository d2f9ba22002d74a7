//! Flags that can be given by environment variables: of every command that a scheduler starts, all that it
//! must know. `docs/networking.md` has the table.

use std::ffi::OsStr;

/// What every variable's name begins with.
const PREFIX: &str = "BLIP2_";

/// The commands that schedulers start, by their words: every flag of theirs has a variable.
pub(crate) const STARTED_BY_SCHEDULERS: [&str; 5] =
    ["coordinator", "worker", "curate", "curate worker", "eval worker"];
/// Commands that ask the processes of a run, and what such a question needs.
const ASKING: [&str; 3] = ["status", "stop", "trace"];
const NEEDED_TO_ASK: [&str; 5] = ["token-file", "tls-ca", "tls-cert", "tls-key", "tls-server-name"];

/// The flag of every command for the format of log lines; `BLIP2_LOG` is their filter.
pub(crate) const LOG_FORMAT: &str = "BLIP2_LOG_FORMAT";

/// What workers that a command starts beside itself must not inherit: they are told all they need.
pub(crate) const NOT_INHERITED: [&str; 16] = [
    LOG_FORMAT,
    "BLIP2_ADVERTISE",
    "BLIP2_COORDINATOR",
    "BLIP2_DEVICE",
    "BLIP2_JOIN_TIMEOUT",
    "BLIP2_LISTEN",
    "BLIP2_METRICS_LISTEN",
    "BLIP2_NAME",
    "BLIP2_PATIENCE",
    "BLIP2_RECONNECT_TIMEOUT",
    "BLIP2_THREADS",
    "BLIP2_TLS_CA",
    "BLIP2_TLS_CERT",
    "BLIP2_TLS_KEY",
    "BLIP2_TLS_SERVER_NAME",
    "BLIP2_TOKEN_FILE",
];

/// The variable of a command's flag (`--token-file` is `token-file`), if it has one.
pub(crate) fn variable(command: &str, flag: &str) -> Option<String> {
    let is_known = match flag {
        "log" if command.is_empty() => return Some(LOG_FORMAT.to_owned()),
        "help" | "version" | "log" => false,
        // Every key of the configuration has a variable of its own, with two underscores.
        "set" => false,
        // A worker takes the configuration from its coordinator, whose variable it may share.
        "config" if command == "worker" => false,
        _ if ASKING.contains(&command) => NEEDED_TO_ASK.contains(&flag),
        _ => STARTED_BY_SCHEDULERS.contains(&command),
    };
    is_known.then(|| format!("{PREFIX}{}", flag.replace('-', "_").to_uppercase()))
}

/// Whether a variable says something: an empty one is as good as none.
pub(crate) fn is_given(value: Option<&OsStr>) -> bool {
    value.is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_has_a_variable_where_a_scheduler_gives_it() {
        for (command, flag, expected) in [
            ("worker", "coordinator", Some("BLIP2_COORDINATOR")),
            ("worker", "tls-server-name", Some("BLIP2_TLS_SERVER_NAME")),
            ("worker", "config", None),
            ("worker", "set", None),
            ("coordinator", "config", Some("BLIP2_CONFIG")),
            ("coordinator", "standby", Some("BLIP2_STANDBY")),
            ("curate", "shard", Some("BLIP2_SHARD")),
            ("eval worker", "token-file", Some("BLIP2_TOKEN_FILE")),
            ("status", "token-file", Some("BLIP2_TOKEN_FILE")),
            ("status", "json", None),
            ("train", "workers", None),
            ("worker", "log", None),
            ("", "log", Some("BLIP2_LOG_FORMAT")),
            ("worker", "help", None),
        ] {
            assert_eq!(variable(command, flag).as_deref(), expected, "{command} --{flag}");
        }
        assert!(is_given(Some("x".as_ref())) && !is_given(Some("".as_ref())) && !is_given(None));
    }
}
