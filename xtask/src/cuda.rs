//! CUDA without a card: the parts of a build, the build, and what can be seen of its kernels.

mod assembler;
mod build;
mod counts;
mod double;
mod golden;
mod kept;
mod llvm;
mod pack;
mod ptx;
mod repeated;
mod results;
mod scan;
mod toolchain;
mod wheels;

use std::path::PathBuf;

use toolchain::Toolchain;
pub(crate) use wheels::Error;

const TASKS: &str = "cuda takes `setup`, `build`, `try`, `ptx`, `golden`, `results` or `pack`";

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    task: Task,
    folder: Option<PathBuf>,
    wheels: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Task {
    Setup,
    Build(build::Options),
    Try,
    Golden,
    Results,
    Pack(PathBuf),
    Ptx(ptx::Options),
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let (task, rest) = arguments.split_first().ok_or(TASKS)?;
        let mut options = Self {
            task: match task.as_str() {
                "setup" => Task::Setup,
                "build" => Task::Build(build::Options::default()),
                "try" => Task::Try,
                "ptx" => Task::Ptx(ptx::Options::default()),
                "golden" => Task::Golden,
                "results" => Task::Results,
                "pack" => Task::Pack("target/gpu".into()),
                other => return Err(format!("{TASKS}, not `{other}`")),
            },
            folder: None,
            wheels: None,
        };
        let mut rest = rest.iter().map(String::as_str);
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("{argument} takes a value"));
            match (argument, &mut options.task) {
                ("--folder", _) => options.folder = Some(value()?.into()),
                ("--out", Task::Pack(folder)) => *folder = value()?.into(),
                ("--wheels", _) => options.wheels = Some(value()?.into()),
                (_, Task::Build(build)) => build.take(argument, value)?,
                (_, Task::Ptx(ptx)) => ptx.take(argument, value)?,
                _ => return Err(format!("unknown argument `{argument}`")),
            }
        }
        Ok(options)
    }
}

/// Whether everything passed; [`Error::Unavailable`] where the parts cannot be had.
pub(crate) fn run(options: Options) -> Result<bool, Error> {
    let toolchain = Toolchain::at(options.folder)?;
    toolchain.set_up(options.wheels.as_deref())?;
    match options.task {
        Task::Setup => Ok(true),
        Task::Build(options) => Ok(build::build(&toolchain, &options)?),
        Task::Try => Ok(build::try_without_card()?),
        Task::Golden => Ok(golden::fail_on_double(&toolchain)?),
        Task::Results => Ok(results::run(&toolchain)?),
        Task::Pack(folder) => Ok(pack::pack(&toolchain, &folder)?),
        Task::Ptx(options) => Ok(ptx::run(&toolchain, &options)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Options::parse(&arguments.iter().map(|argument| argument.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn tasks_and_their_arguments() {
        let build = parse(&["build", "--folder", "/f", "--profile", "dist"]).unwrap();
        assert_ne!(build.task, Task::Build(build::Options::default()));
        assert_eq!(build.folder, Some("/f".into()));
        assert_eq!(parse(&["setup", "--wheels", "/w"]).unwrap().wheels, Some("/w".into()));
        assert!(parse(&["ptx", "--arch", "90"]).is_ok());
        for wrong in
            [&[][..], &["link"], &["setup", "--arch", "90"], &["setup", "--folder"], &["ptx", "--arch", "75"]]
        {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
