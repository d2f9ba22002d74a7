//! The losses of two runs, step by step.

use std::path::Path;

use serde_json::Value;

/// The total loss of each committed step: stage and value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Losses(Vec<(u64, f64)>);

impl Losses {
    /// Reads a run's `metrics.jsonl`.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        Self::parse(&crate::files::read(path)?).map_err(|reason| format!("{}: {reason}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let line = |line: &str| {
            let record: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
            let stage = record["stage"].as_u64().ok_or("a step without its stage")?;
            // A loss that is not finite is written as null.
            Ok((stage, record["values"]["loss"].as_f64().unwrap_or(f64::NAN)))
        };
        text.lines().map(line).collect::<Result<_, String>>().map(Self)
    }

    /// The largest difference of a step of `stage`, relative to its loss in `reference`.
    pub(crate) fn apart(&self, reference: &Self, stage: u64, steps: usize) -> Result<f64, String> {
        let of = |losses: &Self| -> Vec<f64> {
            losses.0.iter().filter(|(of, _)| *of == stage).map(|(_, loss)| *loss).collect()
        };
        let (got, want) = (of(self), of(reference));
        if got.len() != steps || want.len() != steps {
            return Err(format!(
                "stage {stage} has {} and {} steps, expected {steps}",
                got.len(),
                want.len()
            ));
        }
        let apart = got.iter().zip(&want).map(|(got, want)| (got - want).abs() / want.abs());
        // A loss that is not a number is as far as can be.
        Ok(apart.map(|apart| if apart.is_nan() { f64::INFINITY } else { apart }).fold(0.0, f64::max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_compared_by_stage() {
        let losses = |values: [&str; 3]| {
            let lines = [1, 1, 2].iter().zip(values);
            let text: String = lines
                .map(|(stage, loss)| format!("{{\"stage\":{stage},\"values\":{{\"loss\":{loss}}}}}\n"))
                .collect();
            Losses::parse(&text).unwrap()
        };
        let reference = losses(["2.0", "1.0", "4.0"]);
        let other = losses(["2.0", "1.5", "4.0"]);
        assert_eq!(other.apart(&reference, 1, 2), Ok(0.5));
        assert_eq!(other.apart(&reference, 2, 1), Ok(0.0));
        assert_eq!(losses(["2.0", "null", "4.0"]).apart(&reference, 1, 2), Ok(f64::INFINITY));
        assert!(other.apart(&reference, 2, 2).unwrap_err().contains("1 and 1 steps"));
        assert!(Losses::parse("nothing").is_err());
    }
}
