//! Devices by name: where tensors live.
//!
//! Every tensor of a process is put on a device that was chosen here; nothing asks for a default device,
//! which would be a GPU wherever one is compiled in, present or not.

pub mod card;
pub mod cast;
pub mod compute;
pub mod failure;
mod kernel_cache;
mod libdevice;
mod made;
mod name;
#[cfg(feature = "cube")]
mod narrowing;
pub mod placement;
mod queue;
pub mod read_back;
pub mod seat;

pub use kernel_cache::keep_kernels;
pub use libdevice::find as find_libdevice;
pub use made::KernelsMade;
pub use name::{DeviceError, DeviceName, Present, TOOLKIT_VARIABLE, VulkanKind, toolkit_beside};
pub use queue::Queue;
