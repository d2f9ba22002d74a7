//! `completions` and `man`: what shells and readers want to know of the command line, from its own
//! definitions.

use std::path::PathBuf;

use blip2_run::exit::Exit;
use clap::{Args, Command};
use clap_complete::Shell;

use super::print_text;
use crate::error::CliError;

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// Folder that gets `blip2.1` and a page for each command; it is made if it is not there.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Prints the script that completes the commands of `whole` in a shell.
pub(crate) fn complete(arguments: &CompletionsArguments, mut whole: Command) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut whole, "blip2", &mut script);
    print_text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

/// Writes the manual pages of `whole`.
pub(crate) fn write_pages(arguments: &ManArguments, whole: Command) -> Result<Exit, CliError> {
    let dir = &arguments.dir;
    std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(whole, dir)).map_err(|error| {
        CliError::failed(format!("{}: cannot write the manual pages: {error}", dir.display()))
    })?;
    eprintln!("the manual pages are in {}", dir.display());
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_line::whole;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in <Shell as clap::ValueEnum>::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut whole(), "blip2", &mut script);
            let script = String::from_utf8(script).expect("UTF-8");
            for word in ["checkpoint", "verify", "token-file", "completions"] {
                assert!(script.contains(word), "{shell}: no {word}");
            }
        }
    }

    #[test]
    fn every_command_gets_a_page_with_examples_and_the_first_the_exit_codes() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("new/man1");
        write_pages(&ManArguments { dir: dir.clone() }, whole()).expect("written");
        let page = |name: &str| std::fs::read_to_string(dir.join(name)).expect(name);
        assert!(page("blip2.1").contains("bad configuration"), "{}", page("blip2.1"));
        assert!(
            page("blip2-train.1").contains("blip2 train \\-\\-config mine.toml"),
            "{}",
            page("blip2-train.1")
        );
        assert!(page("blip2-checkpoint-verify.1").contains("runs/mine"));
        let error =
            write_pages(&ManArguments { dir: "/dev/null/man".into() }, whole()).expect_err("no folder");
        assert_eq!(error.exit(), Exit::Failed);
    }
}
