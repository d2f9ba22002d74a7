//! Modules, their functions and launches, under the driver's own names.
#![allow(missing_docs, unreachable_pub, non_snake_case)]
#![expect(clippy::disallowed_macros, reason = "a library under a foreign name has no log")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use crate::execution::{self, Launch};
use crate::program::{Code, Program};
use crate::record::record;
use crate::settings::SETTINGS;
use crate::status::{INVALID_PTX, NOT_FOUND, SUCCESS};

/// A module: where kernels run, what of it is run.
pub struct Module(Option<Program>);

/// A function of a module.
pub struct Function {
    name: String,
    code: Option<Code>,
}

/// # Safety
/// `ptx` is text that ends with a zero, as for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut *mut Module, ptx: *const c_char) -> c_int {
    // SAFETY: the caller's.
    let text = unsafe { CStr::from_ptr(ptx) };
    record().loaded(text.to_bytes());
    let program = SETTINGS.compiled.as_ref().map(|folder| Program::load(&text.to_string_lossy(), folder));
    let program = match program.transpose() {
        Ok(program) => program,
        Err(reason) => {
            eprintln!("driver double: a module is refused: {reason}");
            return INVALID_PTX;
        }
    };
    // SAFETY: the caller's. It is never freed: modules stay for the life of a process.
    unsafe { module.write(Box::into_raw(Box::new(Module(program)))) };
    SUCCESS
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut *mut Function,
    module: *mut Module,
    name: *const c_char,
) -> c_int {
    // SAFETY: the caller's.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    // SAFETY: it is one that `cuModuleLoadData` gave.
    let code = match unsafe { &(*module).0 } {
        None => None,
        Some(program) => match program.code(&name) {
            None => return NOT_FOUND,
            some => some,
        },
    };
    // SAFETY: the caller's. It is never freed, as its module is not.
    unsafe { function.write(Box::into_raw(Box::new(Function { name, code }))) };
    SUCCESS
}

/// # Safety
/// As for the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: *mut Function,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    _stream: *mut c_void,
    arguments: *mut *mut c_void,
    _extra: *mut *mut c_void,
) -> c_int {
    // SAFETY: it is one that `cuModuleGetFunction` gave.
    let function = unsafe { &*function };
    record().launched(&function.name, shared_bytes);
    if let Some(code) = &function.code {
        let launch =
            Launch { blocks: [grid_x, grid_y, grid_z], threads: [block_x, block_y, block_z], shared_bytes };
        // SAFETY: the caller's.
        unsafe { execution::run(code, launch, arguments) };
    }
    SUCCESS
}
