//! Which objects a name stands for: patterns, braces and folders, on this machine and in a bucket.

mod braces;
mod expand;
mod local_walk;
mod pattern;
#[cfg(test)]
mod tests;
