//! Kernels without a card: programs run on the driver's double, and all that they make is assembled.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::assembler::{self, Assembled};
use super::build;
use super::counts::{Counts, StepCounts, of_processes};
use super::double::{Double, finish};
use super::kept;
use super::repeated;
use super::scan::Numbers;
use super::toolchain::Toolchain;
use crate::files::{ends_with, listed};
use crate::small_run::{self, SmallRun};

/// Compute capabilities of A100, H100 and B200.
const CAPABILITIES: [usize; 3] = [80, 90, 100];
/// Counts do not depend on the capability much; they are taken on this one.
const COUNTED: usize = 90;
/// Steps of a run, and of one that is longer in one stage.
const STEPS: usize = 2;
const MORE_STEPS: usize = 4;
/// A few pictures on the device.
const CURATION: [&str; 3] = [
    "curation.input=[\"assets/corpus/test-00000.parquet\"]",
    "curation.models.device=cuda",
    "curation.models.captions=3",
];

/// Steps on the device, but for their number.
const STEP: [&str; 7] = ["bench", "step", "--preset", "stage1-quickstart", "--batch", "8", "--device=cuda"];

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
    let double = Double::new(toolchain, folder)?;
    let mut passed = true;
    println!(
        "| capability | kernels | refused | spill registers | most spilled | most shared memory |\n|---|---|---|---|---|---|"
    );
    let (mut spilling, mut numbers) = (Vec::new(), Vec::new());
    for &capability in &options.capabilities {
        let kernels = kernels(&double, capability)?;
        let assembled = assembler::assemble(&toolchain.ptxas(), &kernels)?;
        passed &= !kernels.is_empty() && assembled.iter().all(|kernel| kernel.refusal.is_none());
        numbers.push((capability, Numbers::of_files(&kernels)?));
        println!("{}", row(capability, &assembled, most_shared(&double, capability)?));
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
    if let Some(&capability) = options.capabilities.first() {
        passed &= kept::are_found_again(kept(&double, capability)?, kept(&double, capability)?)?;
        passed &= repeated(&double, capability)?;
    }
    if let Some(file) = &options.counts {
        passed &= counts(&double)?.compare(file)?;
    }
    Ok(passed)
}

fn row(capability: usize, kernels: &[Assembled], most_shared: u64) -> String {
    let number = |of: fn(&Assembled) -> bool| kernels.iter().filter(|kernel| of(kernel)).count();
    format!(
        "| {}.{} | {} | {} | {} | {} B | {} B |",
        capability / 10,
        capability % 10,
        kernels.len(),
        number(|kernel| kernel.refusal.is_some()),
        number(|kernel| kernel.spilled > 0),
        kernels.iter().map(|kernel| kernel.spilled).max().unwrap_or(0),
        most_shared,
    )
}

/// Every kernel of some steps of both stages, of writing and of curation on a card of this capability.
fn kernels(double: &Double, capability: usize) -> Result<Vec<PathBuf>, String> {
    let at = |name: &str| double.folder().join(format!("{name}-{capability}"));
    let text = |path: &Path| path.display().to_string();
    train(double, capability, "train", [STEPS; 2])?;
    let trained = text(&run_folder(double, capability, "train"));
    let exported = text(&at("exported"));
    let written = format!("curation.output={}", text(&at("curated")));
    let programs: [(&str, &[&str]); 3] = [
        ("export", &["checkpoint", "export", &trained, "--out", &exported]),
        ("generate", &["generate", "--model", &exported, "--image", "assets/sample.jpg", "--device", "cuda"]),
        (
            "curate",
            &["curate", "--config", "configs/curate-quickstart.toml", "--workers", "1", "--set", &written],
        ),
    ];
    for (name, arguments) in programs {
        let mut program = double.run(&build::folder()?.join("blip2"), capability, name)?;
        program.args(arguments);
        if name == "curate" {
            // What is read back where a kernel should have written must be no id of the other model's table.
            program.env("CUDA_DOUBLE_COPIES", "drop");
            program.args(CURATION.iter().flat_map(|setting| ["--set", setting]));
        }
        finish(name, program)?;
    }
    modules(&double.folder().join(capability.to_string()))
}

/// A program that finds the kernels of the one before.
fn kept(double: &Double, capability: usize) -> Result<Command, String> {
    let mut program = double.run(&build::folder()?.join("blip2"), capability, "kept")?;
    program.env("CUDA_DOUBLE_COPIES", "drop").args(STEP).args(["--steps", "1"]);
    Ok(program)
}

/// Whether processes that find all kernels on disk, as those of a long run do, launch the same ones.
fn repeated(double: &Double, capability: usize) -> Result<bool, String> {
    let names: Vec<String> = (0..=repeated::PROCESSES).map(|process| format!("again-{process}")).collect();
    for name in &names {
        let mut program = double.run(&build::folder()?.join("blip2"), capability, name)?;
        double.share_kernels(&mut program, capability, "again");
        program.env("CUDA_DOUBLE_COPIES", "drop").args(STEP).args(["--steps", "4"]);
        finish(name, program)?;
    }
    // The first has compiled what the others found.
    repeated::are_the_same(double, capability, &names[1..])
}

/// What one step of each stage asks of the driver: the difference of runs that differ in their number.
fn counts(double: &Double) -> Result<StepCounts, String> {
    let of = |name: &str, steps| train(double, COUNTED, name, steps);
    let few = of("few", [STEPS, STEPS])?;
    let more = (MORE_STEPS - STEPS) as u64;
    Ok(StepCounts {
        stage1: of("more-1", [MORE_STEPS, STEPS])?.beyond(&few, more)?,
        stage2: of("more-2", [STEPS, MORE_STEPS])?.beyond(&few, more)?,
    })
}

fn train(double: &Double, capability: usize, name: &str, steps: [usize; 2]) -> Result<Counts, String> {
    let mut program = double.run(&build::folder()?.join("blip2"), capability, name)?;
    // A loss that is no number would end the run.
    program.env("CUDA_DOUBLE_COPIES", "drop");
    let root = run_folder(double, capability, name);
    small_run::train(&mut program, &SmallRun { device: "cuda", workers: 1, root: &root, steps });
    finish(name, program)?;
    Counts::of_run(&double.told(capability, name))
}

fn run_folder(double: &Double, capability: usize, name: &str) -> PathBuf {
    double.folder().join(format!("run-{capability}-{name}"))
}

/// The largest shared memory that a block of the programs on this capability was launched with, in bytes.
fn most_shared(double: &Double, capability: usize) -> Result<u64, String> {
    let folder = double.folder().join(capability.to_string());
    let mut most = 0;
    for told in listed(&folder)? {
        let processes = of_processes::<Counts>(&told)?;
        most = processes.iter().map(|process| process.most_shared_bytes).fold(most, u64::max);
    }
    Ok(most)
}

/// The modules that programs left below a folder; each once, by the hash that is its name.
fn modules(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = BTreeMap::new();
    for told in listed(folder)? {
        for file in listed(&told)?.into_iter().filter(|file| ends_with(file, "ptx")) {
            found.insert(file.file_name().map(ToOwned::to_owned), file);
        }
    }
    Ok(found.into_values().collect())
}
