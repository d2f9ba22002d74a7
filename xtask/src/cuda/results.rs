//! What CUDA kernels compute, without a card: the driver's double runs them on the host, thread by thread.
//! Their results are held against those of the references and of the CPU.

use std::path::{Path, PathBuf};

use super::build;
use super::double::{Double, finish};
use super::golden::{self, Ended};
use super::toolchain::Toolchain;
use crate::files::listed;
use crate::losses::Losses;
use crate::report::{self, Found, timed};
use crate::small_run::{self, SmallRun};

/// Steps of each stage: the double takes a second and more for one.
const STEPS: usize = 3;
/// Largest differences of a step's loss to that of the CPU, relative to it.
const FLOAT32: f64 = 1e-4;
const BF16: f64 = 2e-2;
/// Compiled kernels that are kept for the next time; where there are more the folder is begun anew.
const MOST_KEPT: usize = 6000;

const IN_FLOAT32: [&str; 1] = ["model.frozen_dtype=f32"];
const IN_BF16: [&str; 2] = ["model.frozen_dtype=bf16", "train.compute=bf16"];

/// Whether everything passed; the report is on standard output.
pub(crate) fn run(toolchain: &Toolchain) -> Result<bool, String> {
    let golden = golden::build(toolchain)?;
    let scratch = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
    let compiled = kept_folder()?;
    let double = Double::new(toolchain, scratch.path().to_path_buf())?.running_kernels(compiled);
    let runs = Runs { double, folder: scratch.path().to_path_buf() };
    let rows = [
        timed("golden tests", || golden_tests(&golden, &runs.double)),
        timed("float32 beside the CPU", || {
            runs.train("cpu", "cpu", 1, &IN_FLOAT32, false)?;
            runs.train("one", "cuda", 1, &IN_FLOAT32, false)?;
            runs.near("one", FLOAT32)
        }),
        timed("two workers, threads and blocks in reverse", || {
            runs.train("two", "cuda", 2, &IN_FLOAT32, true)?;
            runs.same_bits("one", "two")
        }),
        timed("bf16 beside the CPU in float32", || {
            runs.train("bf16", "cuda", 1, &IN_BF16, false)?;
            runs.near("bf16", BF16)
        }),
    ];
    Ok(report::print("check", &rows))
}

/// Where compiled kernels stay from one time to the next.
fn kept_folder() -> Result<PathBuf, String> {
    let folder = build::folder()?.with_file_name("cuda-on-host");
    if folder.exists() && listed(&folder)?.len() > MOST_KEPT {
        std::fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    Ok(folder)
}

fn golden_tests(golden: &Path, double: &Double) -> Found {
    let Ended { passed, failed, said } = golden::run(golden, double)?;
    if !failed.is_empty() || passed.is_empty() {
        eprintln!("{said}");
    }
    Ok((format!("{} passed, {} failed", passed.len(), failed.len()), failed.is_empty() && !passed.is_empty()))
}

/// Training runs of a few steps.
struct Runs {
    double: Double,
    folder: PathBuf,
}

impl Runs {
    fn root(&self, name: &str) -> PathBuf {
        self.folder.join(format!("run-{name}"))
    }

    fn train(
        &self,
        name: &str,
        device: &str,
        workers: usize,
        settings: &[&str],
        reversed: bool,
    ) -> Result<(), String> {
        let mut program = self.double.run(&build::folder()?.join("blip2"), 90, name)?;
        self.double.share_kernels(&mut program, 90, "runs");
        let root = self.root(name);
        small_run::train(&mut program, &SmallRun { device, workers, root: &root, steps: [STEPS; 2] });
        program.args(settings.iter().flat_map(|setting| ["--set", setting]));
        if workers > 1 {
            program.args(["--set", "launch.share_devices=true"]);
        }
        if reversed {
            program.env("CUDA_DOUBLE_ORDER", "reversed");
        }
        finish(name, program).map(drop)
    }

    /// Whether the losses of a run are near those of the CPU.
    fn near(&self, name: &str, tolerance: f64) -> Found {
        let losses = |name: &str| Losses::read(&self.root(name).join("metrics.jsonl"));
        let (cpu, own) = (losses("cpu")?, losses(name)?);
        let apart = own.apart(&cpu, 1, STEPS)?.max(own.apart(&cpu, 2, STEPS)?);
        let said =
            format!("losses of {STEPS} steps of each stage within {apart:.1e}, allowed {tolerance:.0e}");
        Ok((said, apart <= tolerance))
    }

    /// Whether two runs end with the same parameters and moments.
    fn same_bits(&self, one: &str, other: &str) -> Found {
        let [one, other] = [one, other].map(|name| {
            let mut program = build::program(&build::folder()?.join("blip2"));
            program.args(["checkpoint", "digest"]).arg(self.root(name));
            finish(name, program)
        });
        let same = one? == other?;
        Ok((if same { "the bits of one worker".into() } else { "other bits than one worker".into() }, same))
    }
}
