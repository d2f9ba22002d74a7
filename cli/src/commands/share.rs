//! `--shard I/N`.

use blip2_dataset::corpus::ingest::Share;

/// Parses `I/N`, from 0.
pub(crate) fn share(text: &str) -> Result<Share, String> {
    let parsed = text
        .split_once('/')
        .and_then(|(index, count)| Some(Share { index: index.parse().ok()?, count: count.parse().ok()? }));
    parsed
        .filter(|share| share.index < share.count)
        .ok_or_else(|| "I/N with I from 0 to N-1, for example 0/4".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_parsed() {
        assert_eq!(share("1/4").unwrap(), Share { index: 1, count: 4 });
        for bad in ["4/4", "1", "a/b", "0/0", "-1/2"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
