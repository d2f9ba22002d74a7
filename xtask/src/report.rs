//! Checks as the lines of a table: what each found, whether it passed, and how long it took.

use std::time::Instant;

/// What a check says, and whether it passed.
pub(crate) type Found = Result<(String, bool), String>;

/// One line.
pub(crate) struct Row {
    /// What was checked: a cell for each of the first columns.
    check: String,
    found: String,
    pub(crate) passed: bool,
    seconds: f64,
}

/// The line of a check that is made here.
pub(crate) fn timed(check: impl Into<String>, work: impl FnOnce() -> Found) -> Row {
    let started = Instant::now();
    let (found, passed) = work().unwrap_or_else(|reason| (reason, false));
    Row { check: check.into(), found, passed, seconds: started.elapsed().as_secs_f64() }
}

/// Prints the table, `columns` over what was checked; whether everything passed.
pub(crate) fn print(columns: &str, rows: &[Row]) -> bool {
    let lines = "---|".repeat(columns.split('|').count());
    println!("| {columns} | result | | seconds |\n|{lines}---|---|---|");
    for Row { check, found, passed, seconds } in rows {
        let verdict = if *passed { "passed" } else { "FAILED" };
        println!("| {check} | {found} | {verdict} | {seconds:.0} |");
    }
    rows.iter().all(|row| row.passed)
}
