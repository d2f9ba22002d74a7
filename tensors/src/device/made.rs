//! Kernels that this process had to make: each is compiled when it is first launched, which takes a tenth of
//! a second and more, so that a step in which many are made takes long; or it is found on disk, where an
//! earlier process has compiled it.

#[cfg(feature = "cube")]
use std::collections::BTreeSet;

#[cfg(feature = "cube")]
use cubecl::launched::LaunchedKernels;

/// Counts the kernels that are made while it exists, on all devices of the process.
#[derive(Debug)]
pub struct KernelsMade {
    #[cfg(feature = "cube")]
    launching: Option<LaunchedKernels>,
    #[cfg(feature = "cube")]
    known: BTreeSet<cubecl::hash::StableHash>,
}

#[cfg(feature = "cube")]
impl KernelsMade {
    /// Counts from now on.
    pub fn from_now_on() -> Self {
        Self { launching: Some(LaunchedKernels::new()), known: BTreeSet::new() }
    }

    /// How many were made since the last call, or since the beginning.
    pub fn take(&mut self) -> usize {
        let before = self.known.len();
        let launched = self.launching.replace(LaunchedKernels::new()).map(LaunchedKernels::finish);
        self.known.extend(launched.into_iter().flatten());
        self.known.len() - before
    }
}

#[cfg(not(feature = "cube"))]
impl KernelsMade {
    /// Counts from now on.
    pub fn from_now_on() -> Self {
        Self {}
    }

    /// How many were made since the last call: none on the CPU.
    pub fn take(&mut self) -> usize {
        0
    }
}
