//! A module that the host runs: its C, compiled once and loaded.

use std::ffi::c_void;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use libloading::Library;

use crate::translation::{self, Kernel, PREFIX};

/// What a kernel's C function takes: a `struct thread` of `machine.h`, and the addresses of its parameters.
pub(crate) type Entry = unsafe extern "C" fn(thread: *mut c_void, parameters: *mut *mut c_void);

/// What tells where constants start and end.
type Constants = unsafe extern "C" fn(start: *mut u64, end: *mut u64);

/// A loaded module.
pub(crate) struct Program {
    library: Library,
    kernels: Vec<Kernel>,
}

/// A kernel of a loaded module, which stays for the life of the process.
#[derive(Debug, Clone)]
pub(crate) struct Code {
    pub(crate) kernel: Kernel,
    pub(crate) entry: Entry,
    /// Addresses of the module's constants.
    pub(crate) constants: (u64, u64),
}

impl Program {
    /// Translates the module, and compiles it unless `folder` has it compiled.
    pub(crate) fn load(module: &str, folder: &Path) -> Result<Self, String> {
        let translation = translation::translate(module)?;
        let compiled = compiled(&translation.source, folder)?;
        // SAFETY: it was made of a translation, which has no initialisers.
        let library = unsafe { Library::new(&compiled) };
        let library = library.map_err(|error| format!("{}: {error}", compiled.display()))?;
        Ok(Self { library, kernels: translation.kernels })
    }

    /// The kernel of that name.
    pub(crate) fn code(&self, name: &str) -> Option<Code> {
        let kernel = self.kernels.iter().find(|kernel| kernel.name == name)?.clone();
        // SAFETY: the translation gave every kernel this signature.
        let entry = unsafe { self.library.get::<Entry>(format!("{PREFIX}{name}").as_bytes()) }.ok()?;
        let mut constants = (0, 0);
        // SAFETY: the translation gave the function this signature.
        unsafe {
            let told = self.library.get::<Constants>(translation::CONSTANTS.as_bytes()).ok()?;
            told(&raw mut constants.0, &raw mut constants.1);
        }
        Some(Code { kernel, entry: *entry, constants })
    }
}

/// What the compiler is given besides names: results are those of one order of operations on every host.
fn options() -> Vec<&'static str> {
    let mut options =
        vec!["-std=gnu11", "-w", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-fno-math-errno"];
    // A product and sum rounded once is a call of a function without it.
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("fma") {
        options.push("-mfma");
    }
    options
}

/// The shared library of that C source, below `folder` under its hash. Several processes may ask at once.
fn compiled(source: &str, folder: &Path) -> Result<PathBuf, String> {
    let mut hasher = DefaultHasher::new();
    (source, options()).hash(&mut hasher);
    let hash = hasher.finish();
    let library = folder.join(format!("{hash:016x}.so"));
    if library.exists() {
        return Ok(library);
    }
    let said = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    std::fs::create_dir_all(folder).map_err(|error| said(folder, error))?;
    let part = |ending: &str| folder.join(format!("{hash:016x}.{}.{ending}", std::process::id()));
    let (text, made) = (part("c"), part("part"));
    std::fs::write(&text, source).map_err(|error| said(&text, error))?;
    let output = Command::new("cc").args(options()).arg("-o").args([&made, &text]).arg("-lm").output();
    let output = output.map_err(|error| format!("cc, which compiles what kernels are in C: {error}"))?;
    if !output.status.success() {
        return Err(format!("cc on {}:\n{}", text.display(), String::from_utf8_lossy(&output.stderr)));
    }
    std::fs::rename(&made, &library).map_err(|error| said(&library, error))?;
    std::fs::remove_file(&text).map_err(|error| said(&text, error))?;
    Ok(library)
}
