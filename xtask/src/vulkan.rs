//! Operations beside their compositions, golden tests and a short training run on a Vulkan device.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::driver;
use crate::losses::Losses;
use crate::report::{self, Found, Row};
use crate::repository::{self, workspace};
use crate::root::{Root, setting};
use crate::small_run::{self, SmallRun};

/// Steps of each stage.
const STEPS: usize = 10;

/// Largest difference of a step's loss to that of the CPU, relative to it; 2e-7 at most when it was written.
/// Adam turns the noise in gradients near zero into whole steps, so that later steps may agree less.
const LOSS_TOLERANCE: f64 = 1e-4;

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
            builds: vec!["vulkan", "vulkan-fused"],
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
                        Some("fused") => vec!["vulkan-fused"],
                        Some("unfused") => vec!["vulkan"],
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

/// Whether everything passed; the report is on standard output.
pub(crate) fn run(options: Options) -> Result<bool, String> {
    let root = options.root.as_ref().map_or(Path::new("/"), Root::folder);
    let driver = if options.system_driver { None } else { Some(driver::software(root)?) };
    let scratch = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
    let runner = options.root.as_ref().map(runner).transpose()?.unwrap_or_default();
    let machine = Machine { driver, runner, scratch };
    let mut rows = Vec::new();
    for build in options.builds {
        let built = timed(build, "build", || machine.build(build));
        let failed = !built.passed;
        rows.push(built);
        if failed {
            continue;
        }
        if options.golden {
            rows.push(timed(build, "operations", || machine.operations(build)));
            rows.push(timed(build, "golden tests", || machine.golden(build)));
        }
        if options.train {
            rows.extend(machine.train(build));
        }
    }
    Ok(report::print("build | check", &rows))
}

/// The line of a check of one build.
fn timed(build: &str, check: &str, work: impl FnOnce() -> Found) -> Row {
    report::timed(format!("{build} | {check}"), work)
}

/// How commands are run.
struct Machine {
    driver: Option<PathBuf>,
    /// The command before a program; empty to run it as it is.
    runner: Vec<String>,
    scratch: tempfile::TempDir,
}

impl Machine {
    /// Cargo, whose programs run on the device.
    fn on_device(&self) -> Command {
        let mut cargo = repository::cargo();
        if !self.runner.is_empty() {
            cargo.args(["--config", &setting(&self.runner)]);
        }
        self.choose_driver(&mut cargo);
        cargo
    }

    fn cargo(&self, build: &str, command: &str) -> Command {
        let mut cargo = self.on_device();
        // One choice of packages, so that all commands share a build.
        cargo.args([command, "--release", "--workspace", "--features", &format!("blip2/{build}")]);
        cargo
    }

    fn choose_driver(&self, command: &mut Command) {
        if let Some(driver) = &self.driver {
            // The loader's newer and older name of the same variable.
            command.env("VK_DRIVER_FILES", driver).env("VK_ICD_FILENAMES", driver);
        }
    }

    /// Test and program, so that the other rows have their own time.
    fn build(&self, build: &str) -> Result<(String, bool), String> {
        let commands: [(&str, &[&str]); 2] =
            [("test", &["--no-run", "--test", "golden"]), ("build", &["--bin", "blip2"])];
        for (command, arguments) in commands {
            let status = self.cargo(build, command).args(arguments).status();
            let status = status.map_err(|error| format!("cargo: {error}"))?;
            if !status.success() {
                return Ok((format!("cargo {command} ended with {status}"), false));
            }
        }
        Ok(("tests and program".into(), true))
    }

    /// `blip2` as [`Machine::build`] left it.
    fn program(&self) -> Result<Command, String> {
        let program = repository::profile_folder()?.join("blip2");
        let mut words = self.runner.iter().map(OsString::from).chain([program.into()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).current_dir(workspace());
        self.choose_driver(&mut command);
        Ok(command)
    }

    fn golden(&self, build: &str) -> Result<(String, bool), String> {
        let mut cargo = self.cargo(build, "test");
        cargo.args(["--no-fail-fast", "--test", "golden", "--", "--test-threads=1"]);
        tested(cargo)
    }

    /// Kernels of our own, each beside what it is composed of otherwise: of one package, which has a build of
    /// its own.
    fn operations(&self, build: &str) -> Result<(String, bool), String> {
        let mut cargo = self.on_device();
        let features = format!("blip2-tensors/{build}");
        cargo.args(["test", "--release", "--package", "blip2-tensors", "--features", &features, "--lib"]);
        cargo.args(["--", "--test-threads=1", "equals_its_composition", "is_rounded_once", "queue::"]);
        tested(cargo)
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
        let mut program = self.program()?;
        small_run::train(&mut program, &SmallRun { device, workers: 1, root: &root, steps: [STEPS; 2] });
        let status = program.status().map_err(|error| format!("blip2: {error}"))?;
        if !status.success() {
            return Err(format!("the run on {device} ended with {status}"));
        }
        Losses::read(&root.join("metrics.jsonl"))
    }
}

/// Runs tests on the device; what cargo says of them.
fn tested(mut cargo: Command) -> Result<(String, bool), String> {
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

/// The command that runs programs in `root`, where the folders they use are visible.
fn runner(root: &Root) -> Result<Vec<String>, String> {
    let workspace = workspace().canonicalize().map_err(|error| format!("the workspace: {error}"))?;
    let profile = repository::profile_folder()?;
    let target = profile.parent().ok_or("this program lies in no target folder")?;
    Ok(root.runner([&workspace, target, &std::env::temp_dir()]))
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
        assert_eq!(all.builds, ["vulkan", "vulkan-fused"]);
        assert!(all.golden && all.train && !all.system_driver);
        let some = parse(&["--build", "unfused", "--only", "golden", "--system-driver"]).unwrap();
        assert_eq!(some.builds, ["vulkan"]);
        assert!(some.golden && !some.train && some.system_driver);
        assert!(parse(&["--build", "both"]).unwrap_err().contains("`fused` or `unfused`"));
        assert!(parse(&["--only"]).is_err());
        assert!(parse(&["--root"]).unwrap_err().contains("folder"));
        assert!(parse(&["--root", "/no/such"]).unwrap_err().contains("/no/such"));
        assert!(parse(&["--fast"]).unwrap_err().contains("--fast"));
    }
}
