//! What a run's time was spent on, as its lines keep it over a change of coordinators.

use blip2_proto::v1::Spent;
use serde::{Deserialize, Serialize};

/// Seconds of a run since it was first led, by what they were spent on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SpentSeconds {
    /// Steps that were committed, without waits and stalls.
    pub useful: f64,
    /// Until the first step of a lead.
    pub start_up: f64,
    /// Waiting for data.
    pub data: f64,
    /// Stalls for checkpoints.
    pub save: f64,
    /// Until the members were together again.
    pub restore: f64,
    /// Attempts that came to nothing, and steps that were lost.
    pub wasted: f64,
    /// Between what a coordinator told last and the begin of the next one's lead; 0 in lines of older
    /// programs.
    #[serde(default)]
    pub no_leader: f64,
    /// No time that was spent, but when this was told: seconds since 1970 by the clock of the coordinator's
    /// host; 0 in lines of older programs.
    #[serde(default)]
    pub told_at: f64,
}

impl From<Spent> for SpentSeconds {
    /// To the millisecond, which keeps lines short; what is no number is none.
    fn from(spent: Spent) -> Self {
        let short = |seconds: f64| match seconds.is_finite() {
            true => (1000.0 * seconds).round() / 1000.0,
            false => 0.0,
        };
        Self {
            useful: short(spent.useful),
            start_up: short(spent.start_up),
            data: short(spent.data),
            save: short(spent.save),
            restore: short(spent.restore),
            wasted: short(spent.wasted),
            no_leader: short(spent.no_leader),
            told_at: short(spent.told_at),
        }
    }
}

impl From<SpentSeconds> for Spent {
    fn from(spent: SpentSeconds) -> Self {
        let SpentSeconds { useful, start_up, data, save, restore, wasted, no_leader, told_at } = spent;
        Self { useful, start_up, data, save, restore, wasted, no_leader, told_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;
    use crate::record::{StepRecord, line_of};

    #[test]
    fn lines_have_milliseconds() {
        let exact = Spent { useful: 1.0 / 3.0, data: f64::NAN, ..Spent::default() };
        assert_eq!(SpentSeconds::from(exact).useful, 0.333);
        let line = line_of(&StepRecord { spent: Some(exact.into()), ..record(1, 1.0) }).unwrap();
        assert!(line.contains(r#""spent":{"useful":0.333,"start_up":0.0,"data":0.0,"#), "{line}");
        let older = line.replace(r#","no_leader":0.0,"told_at":0.0"#, "");
        assert_ne!(older, line);
        let read: StepRecord = serde_json::from_str(&older).unwrap();
        assert_eq!(read.spent, Some(exact.into()), "a line of an older program");
    }
}
