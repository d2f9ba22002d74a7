//! Words on standard error that a reader who went away cannot turn into a panic.
//!
//! The standard library's macros of these names panic when the write fails, as in
//! `blip2 train 2>&1 | head -1`. These take their place in the whole crate: a run goes on when nobody listens
//! any more. With `--log json` they say JSON lines.

macro_rules! eprintln {
    ($($words:tt)*) => {
        $crate::logging::say(format_args!($($words)*))
    };
}

macro_rules! eprint {
    ($($words:tt)*) => {
        $crate::logging::say_on(format_args!($($words)*))
    };
}
