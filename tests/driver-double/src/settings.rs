//! What the environment asks of the double.

use std::path::PathBuf;
use std::sync::LazyLock;

/// The settings of this process.
pub(crate) static SETTINGS: LazyLock<Settings> = LazyLock::new(|| Settings {
    folder: std::env::var_os("CUDA_DOUBLE_FOLDER").map(PathBuf::from),
    capability: number("CUDA_DOUBLE_CAPABILITY", 90),
    devices: number("CUDA_DOUBLE_DEVICES", 1),
    memory: number("CUDA_DOUBLE_MEMORY", 80 << 30),
    compiled: std::env::var_os("CUDA_DOUBLE_COMPILED").map(PathBuf::from),
    reversed: std::env::var_os("CUDA_DOUBLE_ORDER").is_some_and(|value| value == "reversed"),
    keeps_copies: std::env::var_os("CUDA_DOUBLE_COPIES").is_none_or(|value| value != "drop"),
});

pub(crate) struct Settings {
    /// Where modules and counts go.
    pub(crate) folder: Option<PathBuf>,
    /// Ten times the major number and the minor one.
    pub(crate) capability: usize,
    pub(crate) devices: usize,
    /// Bytes of a card.
    pub(crate) memory: usize,
    /// Where kernels lie that the host's compiler has compiled; without it they do nothing.
    pub(crate) compiled: Option<PathBuf>,
    /// Whether threads and blocks run in reverse.
    pub(crate) reversed: bool,
    /// Whether what the host sends arrives.
    pub(crate) keeps_copies: bool,
}

/// # Panics
/// The variable is no number: a check that is set up wrongly must not pass.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name)
        .map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}
