//! The command line as it is parsed, explained and written as manual pages: what is declared in `arguments`,
//! with examples and exit codes.

#[cfg(test)]
mod help_pages;

use blip2_run::exit;
use clap::builder::{BoolishValueParser, Resettable};
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};

use crate::arguments::Arguments;
use crate::environment::{LOG_FORMAT, is_given, variable};
use crate::examples;
use crate::logging;

/// What was typed; ends the process when it cannot be understood, or when help was asked for.
pub(crate) fn typed() -> Arguments {
    let matches = whole().try_get_matches();
    let typed = matches.and_then(|matches| Arguments::from_arg_matches(&matches));
    typed.unwrap_or_else(|error| {
        let format = std::env::var(LOG_FORMAT).ok();
        if error.use_stderr() && asks_for_json(std::env::args(), format.as_deref()) {
            logging::say_json();
            logging::say(format_args!("{error}"));
            std::process::exit(error.exit_code());
        }
        error.exit()
    })
}

/// Whether a command line that cannot be understood asks for JSON lines, or leaves it to the variable.
fn asks_for_json(words: impl Iterator<Item = String>, variable: Option<&str>) -> bool {
    let words: Vec<String> = words.collect();
    let apart = words.windows(2).find(|pair| pair[0] == "--log").map(|pair| pair[1].as_str());
    let typed = apart.or_else(|| words.iter().find_map(|word| word.strip_prefix("--log=")));
    typed.or(variable) == Some("json")
}

/// The whole command line.
pub(crate) fn whole() -> Command {
    let root = with_variables(Arguments::command(), "");
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
        let sub = with_variables(sub, &path);
        let sub = sub.args(everywhere.iter().cloned()).disable_version_flag(true).arg(version);
        with_examples(sub, &path, everywhere)
    })
}

/// Gives the flags of a command their variables. Help names them and never shows what they hold.
fn with_variables(command: Command, path: &str) -> Command {
    command.mut_args(|flag| {
        let name = flag.get_long().and_then(|long| variable(path, long));
        let Some(name) = name else { return flag };
        let flag = match flag.get_action() {
            ArgAction::SetTrue => flag.value_parser(BoolishValueParser::new()),
            _ => flag,
        };
        let flag = flag.hide_env_values(true);
        match std::env::var_os(&name) {
            Some(value) if !is_given(Some(&value)) => flag.env(Resettable::Reset),
            _ => flag.env(name),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::{NOT_INHERITED, STARTED_BY_SCHEDULERS};

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

    /// Every variable with the command and the flag that it is for.
    fn variables(command: &Command, path: &str, found: &mut Vec<(String, String, String)>) {
        for flag in command.get_arguments() {
            if let Some(name) = flag.get_env() {
                let (name, long) = (name.to_string_lossy().into_owned(), flag.get_long().unwrap_or_default());
                found.push((name, path.to_owned(), long.to_owned()));
            }
        }
        for sub in command.get_subcommands() {
            variables(sub, format!("{path} {}", sub.get_name()).trim_start(), found);
        }
    }

    #[test]
    fn every_variable_is_named_in_the_help_and_on_its_page() {
        let mut found = Vec::new();
        variables(&whole(), "", &mut found);
        for command in STARTED_BY_SCHEDULERS {
            let known = found.iter().filter(|(_, path, _)| path == command).count();
            assert!(known > 5, "{command} has {known} variables");
        }
        let page = include_str!("../../docs/networking.md");
        let of_workers = ["worker", "curate worker", "eval worker"];
        for (name, path, flag) in &found {
            assert!(page.contains(&format!("`{name}`")), "docs/networking.md does not name {name}");
            let is_shown = flag != "log" || path.is_empty();
            let help = help(path).split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(help.contains(&format!("[env: {name}]")), is_shown, "{path} --{flag}");
            let is_kept = !of_workers.contains(&path.as_str()) || NOT_INHERITED.contains(&name.as_str());
            assert!(is_kept, "{name}: workers of `train` would inherit it");
        }
    }

    #[test]
    fn a_usage_error_is_a_json_line_where_that_was_asked_for() {
        let asks = |line: &str, variable| asks_for_json(line.split(' ').map(str::to_owned), variable);
        for line in ["blip2 --log json x", "blip2 x --log=json"] {
            assert!(asks(line, None) && asks(line, Some("text")), "{line}");
        }
        assert!(asks("blip2 x", Some("json")) && !asks("blip2 x", None));
        assert!(!asks("blip2 --log text x", Some("json")) && !asks("blip2 x --log=text", Some("json")));
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
