//! Quantities with their units. Thousands are decimal throughout, as in data sheets and on invoices.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul};

use serde::Serialize;

/// Declares quantities that are added, scaled and compared.
macro_rules! quantities {
    ($($(#[$about:meta])* $name:ident,)*) => {
        $(
            $(#[$about])*
            #[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd, Serialize)]
            #[serde(transparent)]
            pub struct $name(pub f64);

            impl $name {
                /// The larger one.
                pub fn max(self, other: Self) -> Self {
                    Self(self.0.max(other.0))
                }
            }

            impl Add for $name {
                type Output = Self;

                fn add(self, other: Self) -> Self {
                    Self(self.0 + other.0)
                }
            }

            impl AddAssign for $name {
                fn add_assign(&mut self, other: Self) {
                    self.0 += other.0;
                }
            }

            impl Mul<f64> for $name {
                type Output = Self;

                fn mul(self, factor: f64) -> Self {
                    Self(self.0 * factor)
                }
            }

            impl Sum for $name {
                fn sum<I: Iterator<Item = Self>>(quantities: I) -> Self {
                    Self(quantities.map(|quantity| quantity.0).sum())
                }
            }
        )*
    };
}

quantities! {
    /// Floating-point operations; a multiplication with its addition is two.
    Operations,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Operations a second.
    OperationsPerSecond,
    /// Bytes a second.
    BytesPerSecond,
}

impl Div<OperationsPerSecond> for Operations {
    type Output = Seconds;

    fn div(self, rate: OperationsPerSecond) -> Seconds {
        Seconds(self.0 / rate.0)
    }
}

impl Div<BytesPerSecond> for Bytes {
    type Output = Seconds;

    fn div(self, rate: BytesPerSecond) -> Seconds {
        Seconds(self.0 / rate.0)
    }
}

impl Div<Seconds> for Bytes {
    type Output = BytesPerSecond;

    fn div(self, time: Seconds) -> BytesPerSecond {
        BytesPerSecond(self.0 / time.0)
    }
}

impl Seconds {
    /// In hours.
    pub fn hours(self) -> f64 {
        self.0 / 3600.0
    }

    /// In days.
    pub fn days(self) -> f64 {
        self.0 / 86_400.0
    }

    /// Of so many days.
    pub fn of_days(days: f64) -> Self {
        Self(days * 86_400.0)
    }
}

impl Bytes {
    /// Reads `25kB`, `80GB`, `1.5TB`, `64GiB` or a plain number of bytes.
    ///
    /// # Errors
    /// Another unit, or no number above 0.
    pub fn parse(text: &str) -> Result<Self, String> {
        const UNITS: [(&str, f64); 9] = [
            ("KiB", 1024.0),
            ("MiB", 1_048_576.0),
            ("GiB", 1_073_741_824.0),
            ("TiB", 1_099_511_627_776.0),
            ("kB", 1e3),
            ("MB", 1e6),
            ("GB", 1e9),
            ("TB", 1e12),
            ("B", 1.0),
        ];
        number_with(text, &UNITS).map(Self).ok_or_else(|| "bytes such as 25kB, 80GB or 64GiB".to_owned())
    }
}

impl BytesPerSecond {
    /// Reads `25Gbps` (bits, as networks are sold) or `3.1GB/s` (bytes).
    ///
    /// # Errors
    /// Another unit, none, or no number above 0.
    pub fn parse(text: &str) -> Result<Self, String> {
        const UNITS: [(&str, f64); 10] = [
            ("Tbps", 1e12 / 8.0),
            ("Gbps", 1e9 / 8.0),
            ("Mbps", 1e6 / 8.0),
            ("Tbit/s", 1e12 / 8.0),
            ("Gbit/s", 1e9 / 8.0),
            ("Mbit/s", 1e6 / 8.0),
            ("TB/s", 1e12),
            ("GB/s", 1e9),
            ("MB/s", 1e6),
            ("kB/s", 1e3),
        ];
        let has_unit = UNITS.iter().any(|(unit, _)| text.ends_with(unit));
        let rate = number_with(text, &UNITS).filter(|_| has_unit);
        rate.map(Self).ok_or_else(|| "a rate such as 25Gbps (bits) or 3.1GB/s (bytes)".to_owned())
    }

    /// In gigabits a second, as networks are sold.
    pub fn gigabits(self) -> f64 {
        self.0 * 8.0 / 1e9
    }
}

/// A number above 0 with one of these units, or without.
fn number_with(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    let unit = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((text, 1.0));
    let number: f64 = number.trim().parse().ok()?;
    Some(number * factor).filter(|value| *value > 0.0 && value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_typed_in_bits_and_bytes() {
        assert_eq!(BytesPerSecond::parse("25Gbps"), Ok(BytesPerSecond(3.125e9)));
        assert_eq!(BytesPerSecond::parse("25 Gbit/s"), Ok(BytesPerSecond(3.125e9)));
        assert_eq!(BytesPerSecond::parse("3.125GB/s"), Ok(BytesPerSecond(3.125e9)));
        assert_eq!(BytesPerSecond(3.125e9).gigabits(), 25.0);
        for odd in ["25", "25G", "-1Gbps", "Gbps", "0Gbps", "infGbps"] {
            assert!(BytesPerSecond::parse(odd).unwrap_err().contains("25Gbps"), "{odd}");
        }
    }

    #[test]
    fn bytes_are_typed_decimal_and_binary() {
        assert_eq!(Bytes::parse("25kB"), Ok(Bytes(25e3)));
        assert_eq!(Bytes::parse("80 GB"), Ok(Bytes(80e9)));
        assert_eq!(Bytes::parse("1GiB"), Ok(Bytes(1_073_741_824.0)));
        assert_eq!(Bytes::parse("7"), Ok(Bytes(7.0)));
        assert!(Bytes::parse("80GG").is_err() && Bytes::parse("-1GB").is_err());
    }

    #[test]
    fn quotients_have_the_units_that_they_should() {
        assert_eq!(Operations(6.0) / OperationsPerSecond(3.0), Seconds(2.0));
        assert_eq!(Bytes(6.0) / BytesPerSecond(3.0), Seconds(2.0));
        assert_eq!(Bytes(6.0) / Seconds(3.0), BytesPerSecond(2.0));
        assert_eq!((Seconds::of_days(2.0).hours(), Seconds(43_200.0).days()), (48.0, 0.5));
    }
}
