//! Two decimals, as the reference tools print them.

/// The nearest number with two decimals; of two equally near the even one, as Python's `round` has it.
///
/// Rust's formatting rounds the exact value of the number too, not what it is written as.
pub fn two_decimals(value: f64) -> f64 {
    let shown = format!("{value:.2}");
    // It is a number, because it is one that was just written.
    shown.parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_python_rounds() {
        // 0.125 and 0.375 are exact: the even neighbour. 2.675 is less than it looks like, 0.145 too.
        for (value, rounded) in [
            (0.125, 0.12),
            (0.375, 0.38),
            (2.675, 2.67),
            (0.145, 0.14),
            (84.013605442177, 84.01),
            (-0.125, -0.12),
            (100.0, 100.0),
            (99.995, 100.0),
        ] {
            assert_eq!(two_decimals(value), rounded, "{value}");
        }
        assert!(two_decimals(f64::NAN).is_nan());
    }
}
