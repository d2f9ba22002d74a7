//! Kernels of cards, kept on disk once they are compiled: a process finds those that earlier ones made.
//!
//! ```text
//! <folder>/<host>/<build>/f32.db     tf32.db where products of float32 may be in TF32
//!                         used       changed whenever a process begins with the build
//! ```
//!
//! A kernel is kept under what it was made for, not under what it does. So each build of the program has a
//! folder of its own, and a program that carries no mark of its build keeps nothing: it would take what
//! another one made. Processes of a host share a database, which two hosts cannot on every file system.

#[cfg(any(feature = "cuda", test))]
mod builds;

use std::path::PathBuf;
use std::sync::OnceLock;

#[cfg(feature = "cube")]
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

/// Where kernels are kept, if anywhere.
static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Names the folder in which kernels are kept, before the first device is opened: nothing is kept where none
/// is named. The first name holds.
pub fn keep_kernels(folder: PathBuf) {
    FOLDER.get_or_init(|| folder);
}

/// Begins to keep kernels, and to look for them, where a folder is named; before a device is opened. What
/// CubeCL would read from the working directory is left out: no file there changes what is computed.
#[cfg(feature = "cube")]
pub(super) fn begin(tf32: bool) {
    let config = CubeClRuntimeConfig::default().override_from_env();
    CubeClRuntimeConfig::try_set(keeping(config, tf32));
}

#[cfg(feature = "cuda")]
fn keeping(mut config: CubeClRuntimeConfig, tf32: bool) -> CubeClRuntimeConfig {
    let folder = FOLDER.get().map(|folder| builds::folder_of_build(folder, &host(), buildid::build_id()));
    match folder {
        Some(Ok(folder)) => {
            config.compilation.cache = true;
            config.environment.name = if tf32 { "tf32" } else { "f32" }.into();
            config.environment.path = cubecl::config::cache::CacheConfig::Directory(folder);
        }
        Some(Err(error)) => tracing::warn!(error, "compiled kernels are not kept on disk"),
        None => {}
    }
    config
}

/// Kernels are kept for cards alone.
#[cfg(all(feature = "cube", not(feature = "cuda")))]
fn keeping(config: CubeClRuntimeConfig, _: bool) -> CubeClRuntimeConfig {
    config
}

/// The name of this machine.
#[cfg(feature = "cuda")]
fn host() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = read.trim();
    if name.is_empty() || name.contains('/') { "host".into() } else { name.into() }
}
