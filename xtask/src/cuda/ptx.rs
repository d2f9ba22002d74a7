//! Kernels without a card: programs run on the driver's double, and all that they make is assembled.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::assembler::{self, Assembled};
use super::build::{self, said};
use super::counts::{Counts, StepCounts};
use super::scan::Numbers;
use super::toolchain::{Toolchain, create};
use crate::small_run;

/// Compute capabilities of A100, H100 and B200.
const CAPABILITIES: [usize; 3] = [80, 90, 100];
/// Counts do not depend on the capability much; they are taken on this one.
const COUNTED: usize = 90;
/// Steps of a run, and of one that is longer in one stage.
const STEPS: usize = 2;
const MORE_STEPS: usize = 4;

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    capabilities: Vec<usize>,
    counts: Option<PathBuf>,
    keep: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { capabilities: CAPABILITIES.to_vec(), counts: None, keep: None }
    }
}

impl Options {
    /// Takes one argument; `value` gives the one after it.
    pub(crate) fn take<'a>(
        &mut self,
        argument: &str,
        mut value: impl FnMut() -> Result<&'a str, String>,
    ) -> Result<(), String> {
        match argument {
            "--arch" => {
                let named = value()?;
                let known = CAPABILITIES.into_iter().find(|known| known.to_string() == named);
                self.capabilities = vec![known.ok_or("--arch takes 80, 90 or 100")?];
            }
            "--counts" => self.counts = Some(value()?.into()),
            "--keep" => self.keep = Some(value()?.into()),
            other => return Err(format!("unknown argument `{other}`")),
        }
        Ok(())
    }
}

/// Whether every kernel is taken, and the counts are those of the file.
pub(crate) fn run(toolchain: &Toolchain, options: &Options) -> Result<bool, String> {
    let scratch = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
    let folder = options.keep.as_deref().unwrap_or(scratch.path());
    let folder = std::path::absolute(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let double = Double { library: double(&folder)?, toolkit: toolchain.toolkit(), folder };
    let mut passed = true;
    println!(
        "| capability | kernels | refused | spill registers | most spilled | most shared memory |\n|---|---|---|---|---|---|"
    );
    let (mut spilling, mut numbers) = (Vec::new(), Vec::new());
    for &capability in &options.capabilities {
        let kernels = double.kernels(capability)?;
        let assembled = assembler::assemble(&toolchain.ptxas(), &kernels)?;
        passed &= !kernels.is_empty() && assembled.iter().all(|kernel| kernel.refusal.is_none());
        numbers.push((capability, Numbers::of_files(&kernels)?));
        println!("{}", row(capability, &assembled));
        spilling
            .extend(assembled.into_iter().filter(|kernel| kernel.refusal.is_some() || kernel.spilled > 0));
    }
    for kernel in spilling {
        println!("{kernel}");
    }
    for (capability, numbers) in numbers {
        println!("{capability}: {numbers}");
        passed &= numbers.are_exact();
    }
    if let Some(file) = &options.counts {
        passed &= double.counts()?.compare(file)?;
    }
    Ok(passed)
}

fn row(capability: usize, kernels: &[Assembled]) -> String {
    let most = |of: fn(&Assembled) -> u64| kernels.iter().map(of).max().unwrap_or(0);
    let number = |of: fn(&Assembled) -> bool| kernels.iter().filter(|kernel| of(kernel)).count();
    format!(
        "| {}.{} | {} | {} | {} | {} B | {} B |",
        capability / 10,
        capability % 10,
        kernels.len(),
        number(|kernel| kernel.refusal.is_some()),
        number(|kernel| kernel.spilled > 0),
        most(|kernel| kernel.spilled),
        most(|kernel| kernel.shared),
    )
}

/// Builds the double, and puts it into a folder under every name that the driver is looked for first.
fn double(folder: &Path) -> Result<PathBuf, String> {
    let mut cargo = small_run::cargo();
    cargo.args(["build", "--release", "--locked", "--package", "blip2-driver-double"]);
    let status = cargo.status().map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        return Err(format!("the driver's double: cargo build ended with {status}"));
    }
    let built = small_run::profile_folder()?.join("libblip2_driver_double.so");
    let library = folder.join("lib");
    create(&library)?;
    for name in ["libcuda.so", "libcuda.so.1"] {
        let link = library.join(name);
        super::toolchain::take(&built, &link)?;
    }
    Ok(library)
}

/// Runs of the CUDA binary on the driver's double.
struct Double {
    library: PathBuf,
    toolkit: PathBuf,
    folder: PathBuf,
}

impl Double {
    /// Every kernel of some steps of both stages, of writing and of curation on a card of this capability.
    fn kernels(&self, capability: usize) -> Result<Vec<PathBuf>, String> {
        let at = self.folder.join(capability.to_string());
        let [trained, exported, curated] = ["train", "export", "curated"].map(|name| at.join(name));
        self.train(capability, "steps", [STEPS; 2])?;
        std::fs::rename(self.run_folder(capability, "steps"), &trained).map_err(|error| error.to_string())?;
        let path = |path: &Path| path.display().to_string();
        self.blip2(
            capability,
            "export",
            &["checkpoint", "export", &path(&trained), "--out", &path(&exported)],
        )?;
        self.blip2(
            capability,
            "generate",
            &["generate", "--model", &path(&exported), "--image", "assets/sample.jpg", "--device", "cuda"],
        )?;
        let output = format!("curation.output={}", path(&curated));
        self.blip2(
            capability,
            "curate",
            &[
                "curate",
                "--config",
                "configs/curate-quickstart.toml",
                "--set",
                &output,
                "--set",
                "curation.models.device=cuda",
                "--set",
                "curation.workers=1",
                "--set",
                "curation.input=[\"assets/corpus/test-00000.parquet\"]",
            ],
        )?;
        kernels(&at)
    }

    /// What one step of each stage asks of the driver: the difference of runs that differ in their number.
    fn counts(&self) -> Result<StepCounts, String> {
        let of = |name: &str, steps| self.train(COUNTED, name, steps);
        let few = of("few", [STEPS, STEPS])?;
        let more = (MORE_STEPS - STEPS) as u64;
        Ok(StepCounts {
            stage1: of("more-1", [MORE_STEPS, STEPS])?.beyond(&few, more)?,
            stage2: of("more-2", [STEPS, MORE_STEPS])?.beyond(&few, more)?,
        })
    }

    fn train(&self, capability: usize, name: &str, steps: [usize; 2]) -> Result<Counts, String> {
        let mut program = self.program(capability, name)?;
        small_run::train(&mut program, "cuda", &self.run_folder(capability, name), steps);
        finish(name, program)?;
        Counts::of_run(&self.told(capability, name))
    }

    fn blip2(&self, capability: usize, name: &str, arguments: &[&str]) -> Result<(), String> {
        let mut program = self.program(capability, name)?;
        program.args(arguments);
        finish(name, program)
    }

    fn run_folder(&self, capability: usize, name: &str) -> PathBuf {
        self.folder.join(format!("run-{capability}-{name}"))
    }

    /// Where the double tells what it was asked for.
    fn told(&self, capability: usize, name: &str) -> PathBuf {
        self.folder.join(capability.to_string()).join(format!("told-{name}"))
    }

    fn program(&self, capability: usize, name: &str) -> Result<Command, String> {
        let told = self.told(capability, name);
        create(&told)?;
        let mut program = build::program(&build::folder()?.join("blip2"));
        program
            .env("LD_LIBRARY_PATH", &self.library)
            .env("CUDA_PATH", &self.toolkit)
            .env("BLIP2_LOG", "warn");
        program.env("CUDA_DOUBLE_FOLDER", told).env("CUDA_DOUBLE_CAPABILITY", capability.to_string());
        // Kernels that an earlier run has stored would not be made again.
        program.env("XDG_CACHE_HOME", self.folder.join(format!("cache-{capability}")));
        Ok(program)
    }
}

fn finish(name: &str, mut program: Command) -> Result<(), String> {
    let output = program.output().map_err(|error| format!("blip2: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name} on the driver's double ended with {}:\n{}", output.status, said(&output)))
}

/// The modules below a folder; each once, by the hash that is its name.
fn kernels(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let read = |folder: &Path| {
        let entries = folder.read_dir().map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok::<_, String>(entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>())
    };
    let mut found = std::collections::BTreeMap::new();
    for told in read(folder)?.into_iter().filter(|path| path.is_dir()) {
        for file in read(&told)?.into_iter().filter(|file| file.extension().is_some_and(|end| end == "ptx")) {
            found.insert(file.file_name().map(ToOwned::to_owned), file);
        }
    }
    Ok(found.into_values().collect())
}
