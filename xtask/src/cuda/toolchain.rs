//! The folder with all that a CUDA build needs beyond cargo.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::llvm;
use super::wheels::{Error, Wheel, unpacked};
use crate::files::{create, executable, take, write};

/// Static archives and headers of LLVM; the second has the back ends beyond the host's.
const LLVM: [Wheel; 2] = [
    Wheel {
        name: "mlc-llvm-static",
        version: "23.1.1.post0",
        sha256: "dcfec888abfaa418be77d41af585805f31463584cf9c90582992c00f392c1ac5",
    },
    Wheel {
        name: "mlc-llvm-static-extra-targets",
        version: "23.1.1.post0",
        sha256: "c36e834d9a4e9cf9759f27fece65711ece7a2fc2b5a96dbb15d66f5e9e787929",
    },
];

/// The toolkit's parts: functions that kernels are linked with, and the assembler.
const TOOLKIT: [Wheel; 2] = [
    Wheel {
        name: "nvidia-nvvm",
        version: "13.0.88",
        sha256: "c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0",
    },
    Wheel {
        name: "nvidia-cuda-nvcc",
        version: "13.0.88",
        sha256: "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03",
    },
];

const LIBDEVICE: &str = "nvvm/libdevice/libdevice.10.bc";
const PTXAS: &str = "bin/ptxas";

/// Where `tracel-llvm-bundler` looks below the user's data folder, and the file by which it knows that all is
/// there.
const PREFIX: &str = "tracel/tracel-llvm-23.1.0-4";
const INSTALLED: &str = ".tracel-llvm-installed";

/// The CUDA version whose functions are bound: the oldest driver that runs the binary is that of this
/// toolkit.
const CUDA_VERSION: &str = "13000";

/// A folder that this command alone writes to.
pub(crate) struct Toolchain {
    folder: PathBuf,
}

impl Toolchain {
    /// At `folder`, or below the user's cache folder.
    pub(crate) fn at(folder: Option<PathBuf>) -> Result<Self, Error> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err(Error::Unavailable("there are wheels for Linux on x86_64 alone".into()));
        }
        let cache = || {
            let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            named.or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        };
        let folder = folder.or_else(|| cache().map(|cache| cache.join("blip2-cuda")));
        let folder = folder.ok_or_else(|| String::from("there is no home folder: name one with --folder"))?;
        Ok(Self { folder: std::path::absolute(&folder).map_err(|error| error.to_string())? })
    }

    /// Lays out what is not there yet, and says so. A second call does nothing.
    pub(crate) fn set_up(&self, wheels: Option<&Path>) -> Result<(), Error> {
        let prefix = self.folder.join(PREFIX);
        let installed = prefix.join(INSTALLED);
        if installed.is_file() && self.libdevice().is_file() && self.ptxas().is_file() {
            eprintln!("CUDA build parts: there already, in {}", self.folder.display());
            return Ok(());
        }
        create(&self.folder)?;
        let scratch = tempfile::Builder::new().prefix("part-").tempdir_in(&self.folder);
        let scratch = scratch.map_err(|error| format!("{}: {error}", self.folder.display()))?;
        if !installed.is_file() {
            let parts = unpacked(&LLVM, wheels, scratch.path())?;
            let archives = llvm::lay_out(&parts, &prefix)?;
            // Last: without it, the next call begins anew.
            write(&installed, "")?;
            eprintln!("LLVM {} ({archives} archives): {}", LLVM[0].version, prefix.display());
        }
        if !self.libdevice().is_file() || !self.ptxas().is_file() {
            let parts = unpacked(&TOOLKIT, wheels, scratch.path())?;
            for (part, name, target) in
                [(&parts[0], LIBDEVICE, self.libdevice()), (&parts[1], PTXAS, self.ptxas())]
            {
                take(&part.join("nvidia/cu13").join(name), &target)?;
                eprintln!("CUDA {}: {}", TOOLKIT[0].version, target.display());
            }
            executable(&self.ptxas())?;
        }
        Ok(())
    }

    /// The toolkit's folder, as `CUDA_PATH` names it.
    pub(crate) fn toolkit(&self) -> PathBuf {
        self.folder.join("toolkit")
    }

    /// The file that kernels are linked with.
    pub(crate) fn libdevice(&self) -> PathBuf {
        self.toolkit().join(LIBDEVICE)
    }

    /// The assembler.
    pub(crate) fn ptxas(&self) -> PathBuf {
        self.toolkit().join(PTXAS)
    }

    /// Points a build at this folder.
    pub(crate) fn choose(&self, cargo: &mut Command) {
        cargo.env("XDG_DATA_HOME", &self.folder).env("CUDARC_CUDA_VERSION", CUDA_VERSION);
    }
}
