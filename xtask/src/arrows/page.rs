//! The page `docs/arrows.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::circles::{floors, name};
use super::room::Room;

const BEFORE: &str = "\
# Arrows

What uses what, as the source says it. Written by `cargo xtask arrows`; `cargo xtask docs` fails where it is stale.

Lines are those of the files that are compiled outside tests, comments and blank lines among them, without inline test modules.
A share is that of the program: of the crates that are not for tests and tools. Figures after `~` are rounded, and may be a
tenth off before the page counts as stale.

## Crates

The program's crates; an arrow is left out where a longer way leads there too. The table names all.

";

/// The page as it should be.
pub fn draw(rooms: &[Room]) -> String {
    let mut page = BEFORE.to_owned();
    page += &drawing(rooms);
    page += &crates(rooms);
    page += "\n## Modules\n\nA module is a file with its folder. Each stands above all that it uses; the lowest floor is 0.\n";
    let (program, tools): (Vec<&Room>, Vec<&Room>) = rooms.iter().partition(|room| room.of_the_program());
    let with_modules = program.into_iter().chain(tools).filter(|room| modules(room).len() > 1);
    with_modules.for_each(|room| page += &table(room));
    page
}

fn drawing(rooms: &[Room]) -> String {
    let direct: BTreeMap<&str, &BTreeSet<String>> =
        rooms.iter().map(|room| (room.about.name.as_str(), &room.about.uses)).collect();
    let mut text = "```mermaid\ngraph TD\n".to_owned();
    for room in rooms.iter().filter(|room| room.of_the_program()) {
        for need in &room.about.uses {
            let others = room.about.uses.iter().filter(|other| *other != need);
            if !others.into_iter().any(|other| leads(&direct, other, need)) {
                let _ = writeln!(text, "    {} --> {need}", room.about.name);
            }
        }
    }
    text + "```\n\n"
}

fn leads(direct: &BTreeMap<&str, &BTreeSet<String>>, from: &str, to: &str) -> bool {
    let next = direct.get(from).copied().into_iter().flatten();
    next.into_iter().any(|other| other == to || leads(direct, other, to))
}

fn crates(rooms: &[Room]) -> String {
    let whole: usize = rooms.iter().filter(|room| room.of_the_program()).map(Room::lines).sum();
    let (program, tools): (Vec<&Room>, Vec<&Room>) = rooms.iter().partition(|room| room.of_the_program());
    let mut text = "| folder | crate | lines | share | uses |\n|---|---|---|---|---|\n".to_owned();
    for room in program.into_iter().chain(tools) {
        let about = &room.about;
        let uses = about.uses.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let folder = about.folder.display();
        let size = size(room.lines(), whole);
        let _ = writeln!(text, "| `{folder}/` | `{}` | {size} | {uses} |", about.name);
    }
    text
}

fn size(lines: usize, whole: usize) -> String {
    let rounded = if lines < 100 { lines.next_multiple_of(10) } else { (lines + 25) / 50 * 50 };
    format!("~{rounded} | ~{:.0} %", 100.0 * lines as f64 / whole.max(1) as f64)
}

/// The modules right below a crate's root, and the root itself, with their files.
fn modules(room: &Room) -> BTreeMap<String, Vec<usize>> {
    let mut modules = BTreeMap::<_, Vec<_>>::new();
    for (number, file) in room.files.iter().enumerate() {
        modules.entry(name(&file.module[..file.module.len().min(1)])).or_default().push(number);
    }
    modules
}

fn table(room: &Room) -> String {
    let modules = modules(room);
    let names: Vec<&String> = modules.keys().collect();
    let node = |file: usize| modules.values().position(|files| files.contains(&file));
    let mut uses = BTreeMap::<usize, BTreeSet<usize>>::new();
    for (from, to) in room.arrows() {
        if let (Some(from), Some(to)) = (node(from), node(to))
            && from != to
        {
            uses.entry(from).or_default().insert(to);
        }
    }
    let floors = floors(names.len(), &uses);
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|node| (std::cmp::Reverse(floors[*node]), names[*node]));
    let mut text = format!(
        "\n### `{}`\n\n| floor | module | lines | share | uses |\n|---|---|---|---|---|\n",
        room.about.name
    );
    for own in order {
        let lines = modules[names[own]].iter().map(|file| room.files[*file].lines).sum();
        let others = uses.get(&own).into_iter().flatten().map(|other| names[*other].as_str());
        let others = others.collect::<Vec<_>>().join(", ");
        let size = size(lines, room.lines());
        let _ = writeln!(text, "| {} | `{}` | {size} | {others} |", floors[own], names[own]);
    }
    text
}

/// The first line of a page that is not as it should be; rounded figures may be a little off.
pub fn stale(page: &str, wanted: &str) -> Option<String> {
    let (mut found, mut should) = (page.lines(), wanted.lines());
    loop {
        match (found.next(), should.next()) {
            (None, None) => return None,
            (Some(found), Some(should)) if same(found, should) => {}
            (_, Some(line)) => return Some(line.to_owned()),
            (Some(line), None) => return Some(format!("nothing after it, not `{line}`")),
        }
    }
}

fn same(found: &str, should: &str) -> bool {
    let figure = |word: &str| word.strip_prefix('~').and_then(|figure| figure.parse::<f64>().ok());
    let close = |a: &str, b: &str| match (figure(a), figure(b)) {
        (Some(a), Some(b)) => (a - b).abs() <= (a.max(b) / 10.0).max(if a < 100.0 { 3.0 } else { 50.0 }),
        _ => a == b,
    };
    let (found, should): (Vec<&str>, Vec<&str>) = (found.split(' ').collect(), should.split(' ').collect());
    found.len() == should.len() && found.iter().zip(&should).all(|(a, b)| close(a, b))
}

#[cfg(test)]
mod tests {
    #[test]
    fn figures_may_be_a_little_off_and_nothing_else() {
        let page = "# A\n| 0 | `a` | ~1000 | ~20 % | b |";
        let stale = |other: &str| super::stale(page, other);
        assert_eq!(stale(page), None);
        assert_eq!(stale("# A\n| 0 | `a` | ~1050 | ~22 % | b |"), None);
        for wrong in [
            "| 1 | `a` | ~1000 | ~20 % | b |",
            "| 0 | `a` | ~1200 | ~20 % | b |",
            "| 0 | `a` | ~1000 | ~20 % | c |",
        ] {
            assert_eq!(stale(&format!("# A\n{wrong}")).as_deref(), Some(wrong));
        }
        assert!(stale("# A").is_some_and(|line| line.contains("`a`")));
    }
}
