//! Whether the corpus is there, has the columns that a run reads, and is read as fast as the run needs it.

use std::time::Instant;

use blip2_dataset::corpus::columns::ColumnNames;
use blip2_dataset::corpus::manifest::Manifest;
use blip2_store::{PinnedObject, StorePool, StoredObject};

use crate::check::{Check, Finding};

/// Bytes of the first file that are read to see how fast that is.
const READ: u64 = 16 << 20;
/// Fewer say nothing of a rate.
const FEW: u64 = 1 << 20;

const DATA: Check = Check {
    name: "data",
    asks: "is the corpus' first file there, with the columns that the stages read?",
    remedy: "name files that this machine can read in data.train, and their columns in data.columns; blip2 corpus verify looks at \
             all of them",
};
const READ_SPEED: Check = Check {
    name: "read speed",
    asks: "is the corpus read as fast as a worker's steps need it?",
    remedy: "move the store nearer, give the worker more network, or keep what was read in loader.disk_cache",
};
/// Those of this module.
pub const CHECKS: &[&Check] = &[&DATA, &READ_SPEED];

/// Looks at the first file that the patterns name; `needed` is what a worker's steps read a second, or why
/// that is not known.
pub async fn examine(patterns: &[String], columns: &ColumnNames, needed: Result<f64, &str>) -> Vec<Finding> {
    let first = match first_file(patterns).await {
        Ok(first) => first,
        Err(reason) => return vec![DATA.red(reason)],
    };
    let place = first.location.to_string();
    if !place.ends_with(".parquet") {
        return vec![
            DATA.yellow(format!("{place} is an archive, which a run makes Parquet of when it begins")),
        ];
    }
    let data = match Manifest::open(&[first.location.exposed()], columns).await {
        Ok(manifest) => DATA.green(format!("{place}: {} rows, all columns are there", manifest.rows())),
        Err(error) => DATA.red(error.to_string()),
    };
    let rate = read_rate(first).await;
    vec![data, read_speed(rate, needed)]
}

/// The first file that the patterns name.
async fn first_file(patterns: &[String]) -> Result<StoredObject, String> {
    let Some(pattern) = patterns.first() else {
        return Err("data.train is empty".into());
    };
    let found = StorePool::default().expand(pattern, &["parquet", "tar"]).await;
    let found = found.map_err(|error| error.to_string())?;
    found.into_iter().next().ok_or_else(|| format!("{pattern} names no file"))
}

/// Bytes a second of the first megabytes, and how many were read.
async fn read_rate(first: StoredObject) -> Result<(f64, u64), String> {
    let object = PinnedObject::found(first.location, first.bytes, first.etag);
    let bytes = object.bytes().min(READ);
    let begun = Instant::now();
    object.read(0..bytes).await.map_err(|error| error.to_string())?;
    Ok((bytes as f64 / begun.elapsed().as_secs_f64().max(1e-6), bytes))
}

fn read_speed(rate: Result<(f64, u64), String>, needed: Result<f64, &str>) -> Finding {
    let (rate, bytes) = match rate {
        Ok(rate) => rate,
        Err(reason) => return READ_SPEED.red(reason),
    };
    let words = format!("{:.1} MB/s", rate / 1e6);
    match needed {
        _ if bytes < FEW => READ_SPEED.yellow(format!("the first file is too small to tell ({bytes} bytes)")),
        Err(reason) => READ_SPEED.yellow(format!("{words}; what steps need is not known: {reason}")),
        Ok(needed) if rate < needed => {
            READ_SPEED.red(format!("{words}, and a worker's steps need {:.1} MB/s", needed / 1e6))
        }
        Ok(needed) => READ_SPEED.green(format!("{words}; a worker's steps need {:.2} MB/s", needed / 1e6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::State;

    #[test]
    fn reading_is_compared_with_what_steps_need() {
        let of = |rate: f64, bytes, needed| read_speed(Ok((rate, bytes)), needed).state;
        assert_eq!(of(20e6, READ, Ok(5e6)), State::Green);
        assert_eq!(of(4e6, READ, Ok(5e6)), State::Red);
        assert_eq!(of(4e6, READ, Err("no plan")), State::Yellow);
        assert_eq!(of(4e9, 1000, Ok(5e6)), State::Yellow);
        assert_eq!(read_speed(Err("connection refused".into()), Ok(1.0)).state, State::Red);
    }

    #[tokio::test]
    async fn a_corpus_without_the_columns_is_red() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/corpus/train-00000.parquet");
        let columns = ColumnNames::default();
        let findings = examine(&[corpus.to_owned()], &columns, Err("no plan")).await;
        assert_eq!(findings[0].state, State::Green, "{findings:?}");
        let other = ColumnNames { caption: "no such column".into(), ..columns.clone() };
        let findings = examine(&[corpus.to_owned()], &other, Err("no plan")).await;
        assert!(
            findings[0].state == State::Red && findings[0].found.contains("no such column"),
            "{findings:?}"
        );
        assert_eq!(examine(&[], &columns, Err("no plan")).await[0].state, State::Red);
        let nothing = examine(&["/nothing/here.parquet".into()], &columns, Ok(1.0)).await;
        assert_eq!(nothing[0].state, State::Red);
    }
}
