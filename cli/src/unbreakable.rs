//! Words on standard error that a reader who went away cannot turn into a panic.
//!
//! The standard library's macros of these names panic when the write fails, as in
//! `blip2 train 2>&1 | head -1`. These take their place in the whole crate: a run goes on when nobody listens
//! any more.

macro_rules! eprintln {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        // Nobody is left to be told.
        let _ = std::writeln!(std::io::stderr(), $($words)*);
    }};
}

macro_rules! eprint {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        // Nobody is left to be told.
        let _ = std::write!(std::io::stderr(), $($words)*);
    }};
}
