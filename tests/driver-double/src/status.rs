//! What the driver's functions answer, by the driver's numbers.

use std::ffi::c_int;

pub(crate) const SUCCESS: c_int = 0;
pub(crate) const INVALID_VALUE: c_int = 1;
pub(crate) const OUT_OF_MEMORY: c_int = 2;
pub(crate) const INVALID_DEVICE: c_int = 101;
pub(crate) const INVALID_PTX: c_int = 218;
pub(crate) const NOT_FOUND: c_int = 500;
