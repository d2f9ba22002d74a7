//! `cargo xtask arrows`: the page of arrows, and the circles of files.

use xtask::arrows::{self, circles, page};

use crate::{files, repository::workspace};

const PAGE: &str = "docs/arrows.md";

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Options {
    Write,
    Check,
    Circles,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Ok(Self::Write),
            ["--check"] => Ok(Self::Check),
            ["--circles"] => Ok(Self::Circles),
            _ => Err("arrows takes `--check`, `--circles` or nothing".into()),
        }
    }
}

/// Whether the page is, or now is, as it should be; whether there is no circle.
pub(crate) fn run(options: Options) -> Result<bool, String> {
    let rooms = arrows::read(&workspace())?;
    let path = workspace().join(PAGE);
    match options {
        Options::Write => files::write(&path, &page::draw(&rooms)).map(|()| true),
        Options::Check => {
            let stale = page::stale(&files::read(&path)?, &page::draw(&rooms));
            if let Some(line) = &stale {
                eprintln!("{PAGE} is stale: run `cargo xtask arrows`. It should say\n{line}");
            }
            Ok(stale.is_none())
        }
        Options::Circles => Ok(rooms.iter().map(print_circles).sum::<usize>() == 0),
    }
}

/// The number of a crate's circles.
fn print_circles(room: &arrows::Room) -> usize {
    let found = circles::of(room);
    for circle in &found {
        println!("{}: {}", room.about.name, circle.modules.join(" "));
        circle.arrows.iter().for_each(|(from, to)| println!("    {from} uses {to}"));
    }
    found.len()
}
