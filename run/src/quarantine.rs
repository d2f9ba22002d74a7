//! Quarantined rows as messages and as objects of a run.

use blip2_dataset::quarantine::{QuarantineList, QuarantineRecord};
use blip2_proto::v1::Quarantined;
use blip2_store::Location;

use crate::Result;
use crate::layout::QUARANTINE;

/// The row in a message.
pub fn from_message(row: Quarantined) -> QuarantineRecord {
    QuarantineRecord {
        key: row.key,
        file: row.file,
        row_group: row.row_group,
        row: row.row,
        reason: row.reason,
        sample: row.sample,
        stage: row.stage,
    }
}

/// A row that `step` met, as messages carry it.
pub fn to_message(row: &QuarantineRecord, step: u64) -> Quarantined {
    Quarantined {
        key: row.key.clone(),
        file: row.file.clone(),
        row_group: row.row_group,
        row: row.row,
        reason: row.reason.clone(),
        sample: row.sample,
        stage: row.stage,
        step,
    }
}

/// Writes the list of the rows that the run in `run_root` could not use so far.
///
/// # Errors
/// The store fails.
pub async fn write(run_root: &Location, list: &QuarantineList) -> Result<()> {
    Ok(run_root.join(QUARANTINE).put(list.to_parquet()?).await?)
}

/// Reads that list; an empty one where there is none.
///
/// # Errors
/// It is no such list, or the store fails.
pub async fn read(run_root: &Location) -> Result<QuarantineList> {
    match run_root.join(QUARANTINE).read().await? {
        Some(content) => Ok(QuarantineList::from_parquet(content)?),
        None => Ok(QuarantineList::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_goes_through_a_message_unchanged() {
        let row = QuarantineRecord {
            key: "k".into(),
            file: "a.parquet".into(),
            row_group: 3,
            row: 5,
            reason: "no text".into(),
            sample: 7,
            stage: 2,
        };
        let message = to_message(&row, 11);
        assert_eq!(message.step, 11);
        assert_eq!(from_message(message), row);
    }
}
