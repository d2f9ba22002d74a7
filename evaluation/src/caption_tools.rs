//! The user's own copies of the caption toolkit's Java programs: Stanford's tokenizer, METEOR and SPICE.
//!
//! Nothing of them is shipped: they and their tables have licences of their own. A folder is the one that
//! holds the program's jar, or the toolkit's package (`pycocoevalcap`) that has the folder inside. Each
//! program runs as `java` with pipes, must say something within a deadline, and is stopped with whoever waits
//! for it.

pub mod java;
pub mod meteor;
pub mod ptb;
pub mod spice;
