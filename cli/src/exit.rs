//! The exit codes of the command line, which scripts and schedulers rely on.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// Something failed that is none of the classes below.
    Failed = 1,
    /// The command line itself is wrong; `clap` exits with the same code.
    Usage = 2,
    /// The corpus or an image cannot be used.
    BadInput = 3,
    /// Refused: token, run or version do not match.
    Refused = 4,
    /// Stopped by a signal, with a checkpoint saved.
    Interrupted = 5,
    /// The configuration is wrong.
    BadConfig = 78,
}

impl Exit {
    /// The class that belongs to a code which another process or crate reported.
    pub(crate) fn from_code(code: i32) -> Self {
        match code {
            0 => Exit::Done,
            2 => Exit::Usage,
            3 => Exit::BadInput,
            4 => Exit::Refused,
            5 => Exit::Interrupted,
            78 => Exit::BadConfig,
            _ => Exit::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_survives_the_way_through_its_code() {
        for exit in [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::BadInput,
            Exit::Refused,
            Exit::Interrupted,
            Exit::BadConfig,
        ] {
            assert_eq!(Exit::from_code(exit as i32), exit);
        }
        assert_eq!(Exit::from_code(137), Exit::Failed);
    }
}
