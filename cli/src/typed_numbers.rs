//! Numbers as they are typed, each in a range that its error names.

use std::str::FromStr;

/// A number from `least` to `most`; NaN is none.
fn within<T: FromStr + PartialOrd + std::fmt::Display + Copy>(
    text: &str,
    least: T,
    most: T,
) -> Result<T, String> {
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("a number from {least} to {most}")),
    }
}

/// Divides scores before a draw: float32 must hold what it makes of them.
pub(crate) fn temperature(text: &str) -> Result<f32, String> {
    within(text, 1e-4, 1e6)
}

/// Divides or multiplies scores.
pub(crate) fn repetition_penalty(text: &str) -> Result<f32, String> {
    within(text, 1e-3, 1e3)
}

/// Exponent of a text's length.
pub(crate) fn length_penalty(text: &str) -> Result<f64, String> {
    within(text, -5.0, 5.0)
}

/// A share of probability that leaves something.
pub(crate) fn top_p(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("a number above 0, at most 1".to_owned()),
    }
}

/// Threads; 0 takes all cores.
pub(crate) fn threads(text: &str) -> Result<usize, String> {
    within(text, 0, 4096)
}

/// How many there are of what is shown or kept.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    within(text, 0, 1_000_000)
}

/// The same, of something that there must be one of.
pub(crate) fn some(text: &str) -> Result<usize, String> {
    within(text, 1, 1_000_000)
}

/// Draws of images for an interval.
pub(crate) fn draws(text: &str) -> Result<usize, String> {
    within(text, 0, 100_000)
}

/// Pixels of a picture.
pub(crate) fn pixels(text: &str) -> Result<u64, String> {
    within(text, 1, 10_000_000_000)
}

/// A price.
pub(crate) fn price(text: &str) -> Result<f64, String> {
    within(text, 0.0, 1e12)
}

/// A number of seconds that is a duration.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    within(text, 0.001, 1e7).map_err(|_| "between 0.001 and 1e7 seconds".to_owned())
}

/// The same, or 0 for not at all.
pub(crate) fn seconds_or_none(text: &str) -> Result<f64, String> {
    if text.parse() == Ok(0.0) { Ok(0.0) } else { seconds(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_of_the_range_is_refused_with_it() {
        for odd in ["nan", "-nan", "inf", "-inf", "-1", "1e300", "-1e300", "", "x", "99999999999999999999"] {
            let refusals = [
                temperature(odd).err(),
                repetition_penalty(odd).err(),
                top_p(odd).err(),
                threads(odd).err(),
                count(odd).err(),
                some(odd).err(),
                draws(odd).err(),
                pixels(odd).err(),
                price(odd).err(),
                seconds(odd).err(),
                seconds_or_none(odd).err(),
            ];
            assert!(refusals.iter().all(Option::is_some), "{odd}: {refusals:?}");
            assert_eq!(length_penalty(odd).is_ok(), odd == "-1", "{odd}");
        }
        assert!(temperature("0").is_err() && repetition_penalty("0").is_err() && top_p("0").is_err());
        assert!(top_p("1.5").is_err() && some("0").is_err() && pixels("0").is_err() && seconds("0").is_err());
        assert_eq!((temperature("0.5"), top_p("1"), threads("0")), (Ok(0.5), Ok(1.0), Ok(0)));
        assert_eq!((length_penalty("-1"), seconds_or_none("0"), price("0")), (Ok(-1.0), Ok(0.0), Ok(0.0)));
        assert!(temperature("nan").unwrap_err().contains("from 0.0001 to 1000000"));
    }
}
