//! Kernels that this process had to make: each is compiled when it is first launched, which takes a tenth of a second and
//! more, so that a step in which many are made takes long.

#[cfg(any(feature = "cuda-unfused", feature = "vulkan-unfused"))]
use std::collections::HashSet;

#[cfg(any(feature = "cuda-unfused", feature = "vulkan-unfused"))]
use cubecl::launched::LaunchedKernels;

/// Counts the kernels made since it exists, on all devices of the process.
#[derive(Debug)]
pub struct KernelsMade {
    #[cfg(any(feature = "cuda-unfused", feature = "vulkan-unfused"))]
    launching: Option<LaunchedKernels>,
    #[cfg(any(feature = "cuda-unfused", feature = "vulkan-unfused"))]
    known: HashSet<cubecl::hash::StableHash>,
}

#[cfg(any(feature = "cuda-unfused", feature = "vulkan-unfused"))]
impl KernelsMade {
    /// Counts from now on.
    pub fn from_now_on() -> Self {
        Self { launching: Some(LaunchedKernels::new()), known: HashSet::new() }
    }

    /// How many there are by now.
    pub fn count(&mut self) -> usize {
        let launched = self.launching.replace(LaunchedKernels::new()).map(LaunchedKernels::finish);
        self.known.extend(launched.into_iter().flatten());
        self.known.len()
    }
}

#[cfg(not(any(feature = "cuda-unfused", feature = "vulkan-unfused")))]
impl KernelsMade {
    /// Counts from now on.
    pub fn from_now_on() -> Self {
        Self {}
    }

    /// How many there are by now: none on the CPU.
    pub fn count(&mut self) -> usize {
        0
    }
}
