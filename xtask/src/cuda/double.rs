//! Programs on the driver's double, in place of the driver.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::build::{self, said};
use super::toolchain::Toolchain;
use crate::files::{create, take};
use crate::repository;

/// The double in a folder under the driver's names.
pub(crate) struct Double {
    library: PathBuf,
    toolkit: PathBuf,
    folder: PathBuf,
    /// Where kernels lie compiled for the host, where they are run.
    compiled: Option<PathBuf>,
}

impl Double {
    /// Builds it; what it tells and what programs store goes below `folder`. Kernels do nothing.
    pub(crate) fn new(toolchain: &Toolchain, folder: PathBuf) -> Result<Self, String> {
        let mut cargo = repository::cargo();
        cargo.args(["build", "--release", "--locked", "--package", "blip2-driver-double"]);
        let status = cargo.status().map_err(|error| format!("cargo: {error}"))?;
        if !status.success() {
            return Err(format!("the driver's double: cargo build ended with {status}"));
        }
        let built = repository::profile_folder()?.join("libblip2_driver_double.so");
        let library = folder.join("lib");
        // The names that are looked for first and last.
        for name in ["libcuda.so", "libcuda.so.1"] {
            take(&built, &library.join(name))?;
        }
        Ok(Self { library, toolkit: toolchain.toolkit(), folder, compiled: None })
    }

    /// The double whose kernels are run by the host's processor; `compiled` keeps what is compiled for that.
    pub(crate) fn running_kernels(self, compiled: PathBuf) -> Self {
        Self { compiled: Some(compiled), ..self }
    }

    /// A program on a card of this capability.
    pub(crate) fn run(&self, program: &Path, capability: usize, name: &str) -> Result<Command, String> {
        let told = self.told(capability, name);
        create(&told)?;
        let mut program = build::program(program);
        program
            .env("LD_LIBRARY_PATH", &self.library)
            .env("CUDA_PATH", &self.toolkit)
            .env("BLIP2_LOG", "warn");
        program.env("CUDA_DOUBLE_FOLDER", told).env("CUDA_DOUBLE_CAPABILITY", capability.to_string());
        if let Some(compiled) = &self.compiled {
            program.env("CUDA_DOUBLE_COMPILED", compiled);
        }
        // Kernels that an earlier run has stored would not be made again.
        self.share_kernels(&mut program, capability, name);
        Ok(program)
    }

    /// Lets a program find the kernels of others that have the same `name` here.
    pub(crate) fn share_kernels(&self, program: &mut Command, capability: usize, name: &str) {
        program.env("XDG_CACHE_HOME", self.folder.join(format!("cache-{capability}-{name}")));
    }

    /// Where the double keeps the modules of a program and tells what it was asked for.
    pub(crate) fn told(&self, capability: usize, name: &str) -> PathBuf {
        self.folder.join(capability.to_string()).join(name)
    }

    /// Everything that programs left.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Runs a program to its end; what it said.
pub(crate) fn finish(name: &str, mut program: Command) -> Result<String, String> {
    let output = program.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(said(&output));
    }
    Err(format!("{name} on the driver's double ended with {}:\n{}", output.status, said(&output)))
}
