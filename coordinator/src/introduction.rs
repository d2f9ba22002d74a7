//! What a connection has to say first, and what it is told that says something else.

use std::time::Duration;

/// How long a connection may take to introduce itself.
pub(crate) const HELLO_DEADLINE: Duration = Duration::from_secs(10);

/// What everyone is told who does not show the run's token.
pub(crate) const WRONG_TOKEN: &str = "the token is not this run's; start it with the run's token file";
