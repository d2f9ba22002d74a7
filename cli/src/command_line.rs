//! The command line as it is parsed, explained and written as manual pages: what is declared in `arguments`,
//! with examples and exit codes.

#[cfg(test)]
mod help_pages;

use blip2_run::exit;
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};

use crate::arguments::Arguments;
use crate::examples;
use crate::logging;

/// What was typed; ends the process when it cannot be understood, or when help was asked for.
pub(crate) fn typed() -> Arguments {
    let matches = whole().try_get_matches();
    let typed = matches.and_then(|matches| Arguments::from_arg_matches(&matches));
    typed.unwrap_or_else(|error| {
        if error.use_stderr() && asks_for_json(std::env::args()) {
            logging::say_json();
            logging::say(format_args!("{error}"));
            std::process::exit(error.exit_code());
        }
        error.exit()
    })
}

/// Whether a command line that cannot be understood asks for JSON lines.
fn asks_for_json(words: impl Iterator<Item = String>) -> bool {
    let words: Vec<String> = words.collect();
    let apart = words.windows(2).any(|pair| pair[0] == "--log" && pair[1] == "json");
    apart || words.iter().any(|word| word == "--log=json")
}

/// The whole command line.
pub(crate) fn whole() -> Command {
    let root = Arguments::command();
    let everywhere: Vec<Arg> =
        root.get_arguments().filter(|argument| argument.is_global_set()).cloned().map(hidden).collect();
    let root = with_examples(root, "", &everywhere);
    root.after_help(format!("{}\n\n`blip2 COMMAND --help` explains a command.", exit::listed()))
}

/// What holds for all commands is explained in one place.
fn hidden(argument: Arg) -> Arg {
    argument.hide(true).default_value(None::<&str>)
}

fn with_examples(mut command: Command, path: &str, everywhere: &[Arg]) -> Command {
    if let Some(examples) = examples::of(path) {
        command = command.after_help(examples);
    }
    let path = path.to_owned();
    command.mut_subcommands(move |sub| {
        let path = format!("{path} {}", sub.get_name()).trim_start().to_owned();
        let version = Arg::new("version").long("version").short('V').action(ArgAction::Version).hide(true);
        let sub = sub.args(everywhere.iter().cloned()).disable_version_flag(true).arg(version);
        with_examples(sub, &path, everywhere)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paths of all commands that do something.
    fn leaves(command: &Command, path: &str, found: &mut Vec<String>) {
        let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        let mut subs = shown.peekable();
        if subs.peek().is_none() {
            found.push(path.to_owned());
        }
        for sub in subs {
            leaves(sub, format!("{path} {}", sub.get_name()).trim_start(), found);
        }
    }

    fn help(path: &str) -> String {
        let typed: Vec<&str> =
            ["blip2"].into_iter().chain(path.split_whitespace()).chain(["--help"]).collect();
        whole().try_get_matches_from(typed).expect_err("help").to_string()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        whole().debug_assert();
    }

    #[test]
    fn every_command_has_examples_and_they_can_be_typed() {
        let mut commands = Vec::new();
        leaves(&whole(), "", &mut commands);
        for path in &commands {
            let help = help(path);
            assert!(
                help.contains("Examples:\n  blip2 "),
                "{path} has no example: cli/src/examples.rs\n{help}"
            );
        }
        for (command, example) in examples::all() {
            assert!(example.starts_with(command), "{command}: {example}");
            let before_redirection = example.split(" > ").next().unwrap_or_default();
            let typed = shlex::split(before_redirection).expect("quotes that are closed");
            if let Err(error) = whole().try_get_matches_from(["blip2".to_owned()].into_iter().chain(typed)) {
                panic!("{example}: {error}");
            }
        }
    }

    #[test]
    fn what_holds_for_all_commands_is_explained_once() {
        let root = help("");
        assert!(root.contains("--log") && root.contains("78  bad configuration"), "{root}");
        for path in ["train", "checkpoint ls", "corpus plan", "bench step"] {
            let help = help(path);
            assert!(!help.contains("--log") && !help.contains("--version"), "{help}");
        }
        for typed in
            [["blip2", "--log", "json", "config", "schema"], ["blip2", "config", "schema", "--log", "json"]]
        {
            let matches = whole().try_get_matches_from(typed).expect("understood");
            let arguments = Arguments::from_arg_matches(&matches).expect("understood");
            assert_eq!(arguments.log, crate::logging::LogFormat::Json, "{typed:?}");
        }
        let version = whole().try_get_matches_from(["blip2", "train", "--version"]).expect_err("a version");
        assert!(version.to_string().contains(env!("CARGO_PKG_VERSION")), "{version}");
    }
}
