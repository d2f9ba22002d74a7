//! `audit`: whether a run used every row as often as it should have.

use blip2_run::exit::Exit;
use clap::Args;

use super::{print_json, print_text};
use crate::audit::{AuditReport, Corpus, Place, Replaced, StageReport, audit, simulate};
use crate::error::CliError;
use crate::figures::count;
use crate::places::typed_location;

#[derive(Debug, Args)]
pub(crate) struct AuditArguments {
    /// A run (folder or URL).
    #[arg(value_name = "RUN", required_unless_present = "simulate")]
    pub(crate) run: Option<String>,
    /// Print the result as a JSON line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Measure an audit of one epoch of a corpus that is made up.
    #[arg(long, conflicts_with = "run")]
    pub(crate) simulate: bool,
    /// Its files.
    #[arg(long, default_value_t = 13_000, requires = "simulate", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) files: u32,
    /// Row groups of each.
    #[arg(long, default_value_t = 10, requires = "simulate", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) row_groups: u32,
    /// Rows of each of these.
    #[arg(long, default_value_t = 993, requires = "simulate", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rows_per_group: u32,
}

/// Audits a run; differences are named on standard error and are exit code 1.
pub(crate) async fn run(arguments: AuditArguments) -> Result<Exit, CliError> {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let Some(run) = arguments.run else {
        let AuditArguments { files, row_groups, rows_per_group, json, .. } = arguments;
        return measure(Corpus { files, row_groups, rows_per_group }, threads, json).await;
    };
    let report = audit(&typed_location(&run)?, threads).await?;
    for note in report.notes.iter().filter(|_| !arguments.json) {
        eprintln!("note: {note}");
    }
    for difference in &report.differences {
        eprintln!("difference: {difference}");
    }
    if arguments.json {
        print_json(&report)?;
    } else {
        print_text(&text(&report))?;
    }
    Ok(if report.exact { Exit::Done } else { Exit::Failed })
}

async fn measure(corpus: Corpus, threads: usize, json: bool) -> Result<Exit, CliError> {
    let measured = tokio::task::spawn_blocking(move || simulate(corpus, threads))
        .await
        .map_err(|error| CliError::failed(format!("the audit thread failed: {error}")))??;
    if json {
        print_json(&measured)?;
    } else {
        print_text(&format!(
            "{} rows, {} samples in {:.1} s with {} threads: {:.1} M/s, {} MiB at most\n",
            measured.rows,
            measured.samples,
            measured.seconds,
            measured.threads,
            measured.samples_per_s / 1e6,
            measured.peak_bytes.map_or("? ".to_owned(), |bytes| (bytes >> 20).to_string())
        ))?;
    }
    Ok(Exit::Done)
}

/// The report for people.
fn text(report: &AuditReport) -> String {
    let AuditReport { run, steps, checkpoints, epochs, .. } = report;
    let mut text = format!(
        "run {run}: {steps} steps to the newest of {checkpoints} checkpoints, {epochs} epochs of members\n"
    );
    report.stages.iter().for_each(|stage| text += &stage_text(stage));
    if report.not_downloaded > 0 {
        text += &format!("{} rows were not downloaded and are no part of the plan\n", report.not_downloaded);
    }
    if !report.substitutions.is_empty() {
        text += &format!("{} samples used a substitute:\n", report.substitutions.len());
        report.substitutions.iter().for_each(|replaced| text += &replaced_text(replaced));
    }
    if !report.skipped_steps.is_empty() {
        let steps: Vec<String> = report.skipped_steps.iter().map(u64::to_string).collect();
        text += &format!("steps skipped, because what they came to is not finite: {}\n", steps.join(", "));
    }
    text += &match report.differences.len() {
        0 if !report.notes.is_empty() => format!(
            "exact, with {}: every checkpoint stands for the rows of the plan, each used as often as it should be\n",
            count(report.notes.len(), "note")
        ),
        0 => "exact: every checkpoint stands for the rows of the plan, each used as often as it should be\n"
            .to_owned(),
        1 => "1 difference\n".to_owned(),
        more => format!("{more} differences\n"),
    };
    text
}

fn stage_text(stage: &StageReport) -> String {
    let finished = match stage.finished_epochs {
        1 => "1 whole epoch".to_owned(),
        finished => format!("{finished} whole epochs"),
    };
    let epochs = match stage.begun_epochs - stage.finished_epochs {
        0 => finished,
        begun => format!("{finished}, {begun} begun"),
    };
    let uses = match (stage.fewest_uses, stage.most_uses) {
        (1, 1) => "every row exactly once".to_owned(),
        (fewest, most) if fewest == most => format!("every row exactly {fewest} times"),
        (fewest, most) => format!("every row {fewest} to {most} times"),
    };
    format!(
        "stage {}: {} steps, {} samples of {} rows ({epochs}): {uses}; digest {}\n",
        stage.stage, stage.steps, stage.samples, stage.rows, stage.digest
    )
}

fn replaced_text(replaced: &Replaced) -> String {
    let row = |place: &Place| format!("row {} of row group {} of {}", place.row, place.row_group, place.file);
    let quarantined = replaced.quarantined.iter().map(|place| format!("{} ({})", row(place), place.reason));
    format!(
        "  stage {} step {} sample {}: {} is replaced by {}\n",
        replaced.stage,
        replaced.step,
        replaced.sample,
        quarantined.collect::<Vec<_>>().join(", "),
        row(&replaced.used)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_rows_and_substitutes() {
        let place = |row, reason: &str| Place {
            file: "/c/a.parquet".into(),
            row_group: 2,
            row,
            reason: reason.into(),
        };
        let mut report = AuditReport {
            run: "abc".into(),
            exact: true,
            steps: 20,
            checkpoints: 3,
            epochs: 2,
            not_downloaded: 12,
            stages: vec![StageReport {
                stage: 1,
                steps: 20,
                samples: 160,
                rows: 100,
                finished_epochs: 1,
                begun_epochs: 2,
                fewest_uses: 1,
                most_uses: 2,
                digest: "00ff".into(),
            }],
            substitutions: vec![Replaced {
                stage: 1,
                step: 4,
                sample: 33,
                used: place(9, ""),
                quarantined: vec![place(5, "it has no text")],
            }],
            skipped_steps: vec![7, 11],
            notes: Vec::new(),
            differences: Vec::new(),
        };
        let shown = text(&report);
        for part in [
            "(1 whole epoch, 1 begun)",
            "every row 1 to 2 times",
            "row 5 of row group 2 of /c/a.parquet (it has no text) is replaced by row 9",
            "12 rows were not downloaded",
            "not finite: 7, 11",
            "exact:",
        ] {
            assert!(shown.contains(part), "no `{part}` in {shown}");
        }
        report.notes.push("the run went back".into());
        assert!(text(&report).contains("exact, with 1 note:"));
        report.differences.push("something".into());
        assert!(text(&report).contains("1 difference\n"));
    }
}
