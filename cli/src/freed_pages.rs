//! What the allocator does with the pages that a training step frees: they stay for the next step.

/// Milliseconds after which the allocator gives freed pages back to the system; -1 is never. It is read when
/// a process starts.
pub(crate) const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";

/// The delay that training has: a layer needs the pages that the one before has freed, and the system would
/// clear every page it gives anew.
pub(crate) const NEVER: &str = "-1";

/// Starts this program again, in this process, with an allocator that keeps freed pages; returns where
/// [`PURGE_DELAY`] is set already, or where that cannot be done.
#[cfg(unix)]
pub(crate) fn keep() {
    use std::os::unix::process::CommandExt;

    if std::env::var_os(PURGE_DELAY).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut again = std::process::Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    let error = again.args(arguments).env(PURGE_DELAY, NEVER).exec();
    tracing::warn!("freed pages are not kept, so steps take longer; set {PURGE_DELAY}={NEVER}: {error}");
}

/// Does nothing: where a process cannot be replaced, [`PURGE_DELAY`] is set by hand.
#[cfg(not(unix))]
pub(crate) fn keep() {}
