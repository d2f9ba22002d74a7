//! Kernels that this process had to make: each is compiled when it is first launched, which takes a tenth of
//! a second and more, so that a step in which many are made takes long.

#[cfg(any(feature = "cuda-unfused", feature = "vulkan-unfused"))]
use std::collections::BTreeSet;

#[cfg(any(feature = "cuda-unfused", feature = "vulkan-unfused"))]
use cubecl::launched::LaunchedKernels;

/// Counts the kernels that are made while it exists, on all devices of the process.
#[derive(Debug)]
pub struct KernelsMade {
    #[cfg(any(feature = "cuda-unfused", feature = "vulkan-unfused"))]
    launching: Option<LaunchedKernels>,
    #[cfg(any(feature = "cuda-unfused", feature = "vulkan-unfused"))]
    known: BTreeSet<cubecl::hash::StableHash>,
}

#[cfg(any(feature = "cuda-unfused", feature = "vulkan-unfused"))]
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

#[cfg(not(any(feature = "cuda-unfused", feature = "vulkan-unfused")))]
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
