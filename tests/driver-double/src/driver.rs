//! The driver's functions that burn's CUDA backend calls, under the driver's own names. One that is missing
//! ends the program with its name.
#![allow(missing_docs, unreachable_pub, non_snake_case)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::{copy_nonoverlapping, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::memory::{ALIGNMENT, give_back, zeroed};
use crate::record::{Direction, record};
use crate::settings::SETTINGS;
use crate::status::{INVALID_DEVICE, INVALID_VALUE, OUT_OF_MEMORY, SUCCESS};

const CARD: &CStr = c"NVIDIA H100 80GB HBM3";
const VERSION: c_int = 13_000;

/// Something that only has to differ from the others.
fn handle() -> *mut c_void {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    (NEXT.fetch_add(1, Ordering::Relaxed) * ALIGNMENT) as *mut c_void
}

/// # Safety
/// `target` is where the caller wants the address.
unsafe fn reserve(target: *mut *mut c_void, bytes: usize) -> c_int {
    let mut record = record();
    if !record.has_room(bytes) {
        return OUT_OF_MEMORY;
    }
    let Some(address) = zeroed(bytes) else { return OUT_OF_MEMORY };
    record.allocated(address as usize, bytes);
    // SAFETY: the caller's.
    unsafe { target.write(address.cast()) };
    SUCCESS
}

/// # Safety
/// `address` is one that [`reserve`] gave.
unsafe fn release(address: *mut c_void) -> c_int {
    if record().freed(address as usize).is_none() {
        return INVALID_VALUE;
    }
    // SAFETY: it was reserved, and is forgotten now.
    unsafe { give_back(address.cast()) };
    SUCCESS
}

/// Counts a copy and makes it, unless what goes to the card is to be dropped.
///
/// # Safety
/// Both ends have `bytes` bytes.
unsafe fn copy(direction: Direction, target: *mut c_void, source: *const c_void, bytes: usize) -> c_int {
    record().copied(direction, bytes);
    if !matches!(direction, Direction::ToDevice) || SETTINGS.keeps_copies {
        // SAFETY: the caller's.
        unsafe { copy_nonoverlapping(source.cast::<u8>(), target.cast::<u8>(), bytes) };
    }
    SUCCESS
}

/// The functions that only answer: name, arguments, and what is written where.
macro_rules! answers {
    ($($name:ident($($argument:ident: $type:ty),*) $({ $($place:ident = $value:expr;)* })?)*) => {$(
        /// # Safety
        /// Pointers are valid, as for the driver.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> c_int {
            $($(
                // SAFETY: the caller's.
                unsafe { $place.write($value) };
            )*)?
            SUCCESS
        }
    )*};
}

answers! {
    cuInit(_flags: c_uint)
    cuDriverGetVersion(version: *mut c_int) { version = VERSION; }
    cuDeviceGetCount(count: *mut c_int) { count = SETTINGS.devices as c_int; }
    cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) { bytes = SETTINGS.memory; }
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize) { free = record().free_bytes(); total = SETTINGS.memory; }
    cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: c_int) { context = ((device + 1) as usize * 64) as *mut c_void; }
    cuDevicePrimaryCtxRelease_v2(_device: c_int)
    cuCtxSetCurrent(_context: *mut c_void)
    cuCtxGetCurrent(context: *mut *mut c_void) { context = 64 as *mut c_void; }
    cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) { least = 0; greatest = -5; }
    cuStreamCreate(stream: *mut *mut c_void, _flags: c_uint) { stream = handle(); }
    cuStreamCreateWithPriority(stream: *mut *mut c_void, _flags: c_uint, _priority: c_int) { stream = handle(); }
    cuStreamDestroy_v2(_stream: *mut c_void)
    cuStreamWaitEvent(_stream: *mut c_void, _event: *mut c_void, _flags: c_uint)
    cuEventDestroy_v2(_event: *mut c_void)
    cuFuncSetAttribute(_function: *mut c_void, _attribute: c_int, _value: c_int)
    cuModuleUnload(_module: *mut c_void)
    cuGetErrorName(_error: c_int, name: *mut *const c_char) { name = c"CUDA_ERROR_OF_THE_DOUBLE".as_ptr(); }
    cuGetErrorString(_error: c_int, text: *mut *const c_char) { text = c"an error of the driver's double".as_ptr(); }
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    if usize::try_from(ordinal).is_ok_and(|ordinal| ordinal < SETTINGS.devices) {
        // SAFETY: the caller's.
        unsafe { device.write(ordinal) };
        return SUCCESS;
    }
    INVALID_DEVICE
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, length: c_int, _device: c_int) -> c_int {
    // SAFETY: `name` has room for `length` characters.
    unsafe { text(name, length, CARD.to_bytes_with_nul()) }
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetPCIBusId(name: *mut c_char, length: c_int, device: c_int) -> c_int {
    let id = format!("0000:{:02x}:00.0\0", device + 1);
    // SAFETY: `name` has room for `length` characters.
    unsafe { text(name, length, id.as_bytes()) }
}

/// # Safety
/// `target` has room for `length` characters; `source` ends with a zero.
unsafe fn text(target: *mut c_char, length: c_int, source: &[u8]) -> c_int {
    if usize::try_from(length).is_ok_and(|length| length >= source.len()) {
        // SAFETY: the caller's, and there is room.
        unsafe { copy_nonoverlapping(source.as_ptr().cast(), target, source.len()) };
        return SUCCESS;
    }
    INVALID_VALUE
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: c_int) -> c_int {
    // SAFETY: the caller's.
    unsafe { uuid.write([device as u8; 16]) };
    SUCCESS
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _device: c_int) -> c_int {
    let answer = match attribute {
        1..=3 => 1024,
        4 => 64,
        5 => c_int::MAX,
        6 | 7 => 65_535,
        8 => 49_152,
        10 => 32,
        16 => 132,
        75 => (SETTINGS.capability / 10) as c_int,
        76 => (SETTINGS.capability % 10) as c_int,
        // Shared memory of a block, where it is asked for.
        97 if SETTINGS.capability == 80 => 166_912,
        97 => 232_448,
        _ => 1,
    };
    // SAFETY: the caller's.
    unsafe { value.write(answer) };
    SUCCESS
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut *mut c_void, bytes: usize) -> c_int {
    // SAFETY: the caller's.
    unsafe { reserve(address, bytes) }
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocAsync(
    address: *mut *mut c_void,
    bytes: usize,
    _stream: *mut c_void,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { reserve(address, bytes) }
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFree_v2(address: *mut c_void) -> c_int {
    // SAFETY: the caller's.
    unsafe { release(address) }
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeAsync(address: *mut c_void, _stream: *mut c_void) -> c_int {
    // SAFETY: the caller's.
    unsafe { release(address) }
}

/// Pinned memory is no memory of the card.
///
/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocHost_v2(address: *mut *mut c_void, bytes: usize) -> c_int {
    let Some(given) = zeroed(bytes) else { return OUT_OF_MEMORY };
    // SAFETY: the caller's pointer is valid.
    unsafe { address.write(given.cast()) };
    SUCCESS
}

/// # Safety
/// `address` is one that [`cuMemAllocHost_v2`] gave.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeHost(address: *mut c_void) -> c_int {
    // SAFETY: the caller's.
    unsafe { give_back(address.cast()) };
    SUCCESS
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    target: *mut c_void,
    source: *const c_void,
    bytes: usize,
    _stream: *mut c_void,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { copy(Direction::ToDevice, target, source, bytes) }
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    target: *mut c_void,
    source: *const c_void,
    bytes: usize,
    _stream: *mut c_void,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { copy(Direction::ToHost, target, source, bytes) }
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoDAsync_v2(
    target: *mut c_void,
    source: *const c_void,
    bytes: usize,
    _stream: *mut c_void,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { copy(Direction::OnDevice, target, source, bytes) }
}

/// One end of a copy of rows.
#[repr(C)]
pub struct Rows {
    x_bytes: usize,
    y: usize,
    memory_type: c_int,
    host: *mut u8,
    device: *mut u8,
    array: *mut c_void,
    pitch: usize,
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
pub struct Copy2d {
    source: Rows,
    target: Rows,
    width_bytes: usize,
    height: usize,
}

impl Rows {
    const HOST: c_int = 1;

    /// # Safety
    /// The rows are there.
    unsafe fn row(&self, row: usize) -> *mut u8 {
        let base = if self.memory_type == Self::HOST { self.host } else { self.device };
        // SAFETY: the caller's.
        unsafe { base.add((row + self.y) * self.pitch + self.x_bytes) }
    }
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpy2DAsync_v2(rows: *const Copy2d, _stream: *mut c_void) -> c_int {
    // SAFETY: the caller's.
    let rows = unsafe { &*rows };
    let direction = match (rows.source.memory_type, rows.target.memory_type) {
        (Rows::HOST, _) => Direction::ToDevice,
        (_, Rows::HOST) => Direction::ToHost,
        _ => Direction::OnDevice,
    };
    record().copied(direction, rows.width_bytes * rows.height);
    if !matches!(direction, Direction::ToDevice) || SETTINGS.keeps_copies {
        for row in 0..rows.height {
            // SAFETY: both ends have the rows that the caller names.
            unsafe { copy_nonoverlapping(rows.source.row(row), rows.target.row(row), rows.width_bytes) };
        }
    }
    SUCCESS
}

/// An event is the number of launches before it.
///
/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut *mut u64, _flags: c_uint) -> c_int {
    // SAFETY: the caller's. It is never freed: a check is short.
    unsafe { event.write(Box::into_raw(Box::new(0))) };
    SUCCESS
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventRecord(event: *mut u64, _stream: *mut c_void) -> c_int {
    // SAFETY: the caller's.
    unsafe { event.write(record().launches()) };
    SUCCESS
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventSynchronize(_event: *mut u64) -> c_int {
    record().waited();
    SUCCESS
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamSynchronize(_stream: *mut c_void) -> c_int {
    record().waited();
    SUCCESS
}

/// Each launch takes the same time, so that a choice by time depends on nothing else.
///
/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime_v2(
    milliseconds: *mut f32,
    from: *mut u64,
    to: *mut u64,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { milliseconds.write(0.001 + 0.02 * (to.read().saturating_sub(from.read())) as f32) };
    SUCCESS
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, from: *mut u64, to: *mut u64) -> c_int {
    // SAFETY: the caller's.
    unsafe { cuEventElapsedTime_v2(milliseconds, from, to) }
}

/// What waits for the card in its stream runs at once: all that is before it is done.
///
/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchHostFunc(
    _stream: *mut c_void,
    function: Option<unsafe extern "C" fn(*mut c_void)>,
    data: *mut c_void,
) -> c_int {
    let Some(function) = function else { return INVALID_VALUE };
    // SAFETY: the caller's.
    unsafe { function(data) };
    SUCCESS
}

/// Asked for by name, as `cudarc` and `nvidia-smi` do.
///
/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSynchronize() -> c_int {
    record().waited();
    SUCCESS
}

/// No pools of memory: an allocation is made at once.
///
/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetDefaultMemPool(pool: *mut *mut c_void, _device: c_int) -> c_int {
    // SAFETY: the caller's.
    unsafe { pool.write(null_mut()) };
    SUCCESS
}
