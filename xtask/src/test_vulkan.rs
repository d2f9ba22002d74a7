//! Golden tests and a short training run on a Vulkan device.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::driver;
use crate::losses::Losses;
use crate::root::Root;

/// Steps of each stage.
const STEPS: usize = 10;

/// Largest difference of a step's loss to that of the CPU, relative to it. Adam turns the noise in gradients near zero
/// into whole steps, so that later steps agree less.
const LOSS_TOLERANCE: f64 = 5e-3;

/// A small run of both stages on the corpus of the quick start.
const SETTINGS: [&str; 9] = [
    "train.slots=2",
    "stage1.batch=8",
    "stage2.batch=8",
    "stage1.optimizer.warmup_steps=2",
    "stage2.optimizer.warmup_steps=2",
    "model.qformer.layers=2",
    "checkpoint.every_steps=100",
    "launch.threads_per_worker=2",
    "launch.restarts=0",
];

/// What is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    builds: Vec<&'static str>,
    golden: bool,
    train: bool,
    system_driver: bool,
    root: Option<Root>,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self {
            builds: vec!["vulkan", "vulkan-unfused"],
            golden: true,
            train: true,
            system_driver: false,
            root: None,
        };
        let mut rest = arguments.iter().map(String::as_str);
        while let Some(argument) = rest.next() {
            match argument {
                "--build" => {
                    options.builds = match rest.next() {
                        Some("fused") => vec!["vulkan"],
                        Some("unfused") => vec!["vulkan-unfused"],
                        other => return Err(format!("--build takes `fused` or `unfused`, not {other:?}")),
                    }
                }
                "--only" => match rest.next() {
                    Some("golden") => options.train = false,
                    Some("train") => options.golden = false,
                    other => return Err(format!("--only takes `golden` or `train`, not {other:?}")),
                },
                "--root" => options.root = Some(Root::open(rest.next().ok_or("--root takes a folder")?)?),
                "--system-driver" => options.system_driver = true,
                other => return Err(format!("unknown argument `{other}`")),
            }
        }
        Ok(options)
    }
}

/// One line of the report.
struct Row {
    build: &'static str,
    check: &'static str,
    result: String,
    passed: bool,
    seconds: f64,
}

/// Whether everything passed; the report is on standard output.
pub(crate) fn run(options: Options) -> Result<bool, String> {
    let root = options.root.as_ref().map_or(Path::new("/"), Root::folder);
    let driver = if options.system_driver { None } else { Some(driver::software(root)?) };
    let scratch = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
    let runner = options.root.as_ref().map(runner).transpose()?;
    let machine = Machine { driver, runner, scratch };
    let mut rows = Vec::new();
    for build in options.builds {
        if options.golden {
            rows.push(timed(build, "golden tests", || machine.golden(build)));
        }
        if options.train {
            rows.extend(machine.train(build));
        }
    }
    print(&rows);
    Ok(rows.iter().all(|row| row.passed))
}

fn timed(
    build: &'static str,
    check: &'static str,
    work: impl FnOnce() -> Result<(String, bool), String>,
) -> Row {
    let started = Instant::now();
    let (result, passed) = work().unwrap_or_else(|reason| (reason, false));
    Row { build, check, result, passed, seconds: started.elapsed().as_secs_f64() }
}

fn print(rows: &[Row]) {
    println!("| build | check | result | | seconds |\n|---|---|---|---|---|");
    for Row { build, check, result, passed, seconds } in rows {
        let verdict = if *passed { "passed" } else { "FAILED" };
        println!("| {build} | {check} | {result} | {verdict} | {seconds:.0} |");
    }
}

/// How commands are run.
struct Machine {
    driver: Option<PathBuf>,
    /// Cargo's setting of how to run what it builds.
    runner: Option<String>,
    scratch: tempfile::TempDir,
}

impl Machine {
    fn cargo(&self, build: &str, command: &str) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(workspace());
        // One choice of packages, so that both commands share a build.
        cargo.args(self.runner.iter().flat_map(|runner| ["--config", runner]));
        cargo.args([command, "--release", "--workspace", "--features", &format!("blip2/{build}")]);
        if let Some(driver) = &self.driver {
            // The loader's newer and older name of the same variable.
            cargo.env("VK_DRIVER_FILES", driver).env("VK_ICD_FILENAMES", driver);
        }
        cargo
    }

    fn golden(&self, build: &str) -> Result<(String, bool), String> {
        let mut cargo = self.cargo(build, "test");
        cargo.args(["--no-fail-fast", "--test", "golden", "--", "--test-threads=1"]);
        let output = cargo
            .env("BLIP2_TEST_DEVICE", "vulkan")
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("cargo: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        eprintln!("{text}");
        let summary = text.lines().find_map(|line| line.strip_prefix("test result: "));
        let summary = summary.and_then(|line| line.split("; 0 ignored").next()).unwrap_or("did not run");
        Ok((summary.to_string(), output.status.success()))
    }

    /// The same steps on the CPU and on the Vulkan device, by one binary.
    fn train(&self, build: &'static str) -> Vec<Row> {
        let mut runs = Vec::new();
        let trained = timed(build, "training runs", || {
            for device in ["cpu", "vulkan"] {
                runs.push(self.losses(build, device)?);
            }
            Ok(("cpu and vulkan ran to their end".into(), true))
        });
        let mut rows = vec![trained];
        if let [cpu, vulkan] = &runs[..] {
            rows.extend([("stage 1, 10 steps", 1), ("stage 2, 10 steps", 2)].map(|(check, stage)| {
                timed(build, check, || {
                    let apart = vulkan.apart(cpu, stage, STEPS)?;
                    let result =
                        format!("losses within {apart:.1e} of the CPU's, allowed {LOSS_TOLERANCE:.0e}");
                    Ok((result, apart <= LOSS_TOLERANCE))
                })
            }));
        }
        rows
    }

    fn losses(&self, build: &str, device: &str) -> Result<Losses, String> {
        let root = self.scratch.path().join(format!("{build}-{device}"));
        let mut cargo = self.cargo(build, "run");
        cargo.args([
            "--bin",
            "blip2",
            "--",
            "train",
            "--config",
            "configs/quickstart.toml",
            "--workers",
            "1",
        ]);
        cargo.args(["--device", device, "--set", &format!("run.root={}", root.display())]);
        cargo.args(["--set", &format!("stage1.steps={STEPS}"), "--set", &format!("stage2.steps={STEPS}")]);
        for setting in SETTINGS {
            cargo.args(["--set", setting]);
        }
        let status = cargo.status().map_err(|error| format!("cargo: {error}"))?;
        if !status.success() {
            return Err(format!("the run on {device} ended with {status}"));
        }
        Losses::read(&root.join("metrics.jsonl"))
    }
}

/// The setting that runs programs in `root`, where the folders they use are visible.
fn runner(root: &Root) -> Result<String, String> {
    let workspace = workspace().canonicalize().map_err(|error| format!("the workspace: {error}"))?;
    let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    // This program lies in the profile's folder of the target folder.
    let target = program.parent().and_then(Path::parent).ok_or("this program lies in no target folder")?;
    Ok(root.runner([&workspace, target, &std::env::temp_dir()]))
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Options::parse(&arguments.iter().map(|argument| argument.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn both_builds_and_both_checks_unless_said_otherwise() {
        let all = parse(&[]).unwrap();
        assert_eq!(all.builds, ["vulkan", "vulkan-unfused"]);
        assert!(all.golden && all.train && !all.system_driver);
        let some = parse(&["--build", "unfused", "--only", "golden", "--system-driver"]).unwrap();
        assert_eq!(some.builds, ["vulkan-unfused"]);
        assert!(some.golden && !some.train && some.system_driver);
        assert!(parse(&["--build", "both"]).unwrap_err().contains("`fused` or `unfused`"));
        assert!(parse(&["--only"]).is_err());
        assert!(parse(&["--root"]).unwrap_err().contains("folder"));
        assert!(parse(&["--root", "/no/such"]).unwrap_err().contains("/no/such"));
        assert!(parse(&["--fast"]).unwrap_err().contains("--fast"));
    }
}
