//! What cards give, from their makers' data sheets: dense products, memory, its bandwidth, the way to the
//! host.

use serde::Serialize;

use crate::units::{Bytes, BytesPerSecond, OperationsPerSecond};

/// Numbers that a product's factors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Numbers {
    /// float32.
    F32,
    /// float32 that a product may round to 10 bits of fraction.
    Tf32,
    /// bfloat16, with float32 sums.
    Bf16,
}

impl Numbers {
    /// As a configuration names them.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}

/// A card.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Card {
    /// As it is typed.
    pub name: String,
    /// Dense products of float32.
    pub f32: OperationsPerSecond,
    /// Dense products in TF32.
    pub tf32: OperationsPerSecond,
    /// Dense products of bf16 with float32 sums.
    pub bf16: OperationsPerSecond,
    /// Memory.
    pub memory: Bytes,
    /// Of that memory.
    pub bandwidth: BytesPerSecond,
    /// To and from the host, in each direction.
    pub host_link: BytesPerSecond,
}

impl Card {
    /// The most products a second of these numbers.
    pub fn peak(&self, numbers: Numbers) -> OperationsPerSecond {
        match numbers {
            Numbers::F32 => self.f32,
            Numbers::Tf32 => self.tf32,
            Numbers::Bf16 => self.bf16,
        }
    }
}

/// A row of the data sheets.
struct Known {
    name: &'static str,
    /// Parts of the name that the driver gives, all of which are in it.
    model: &'static [&'static str],
    /// TFLOP/s in f32, TF32 and bf16.
    teraflops: [f64; 3],
    gigabytes: f64,
    gigabytes_per_s: f64,
    /// GB/s of PCIe ×16 as it is reached: 25 of generation 4, 50 of 5.
    host_link: f64,
}

/// Known cards; where the driver's names of two contain each other, the special one comes first. From the
/// makers' data sheets, without sparsity; where a sheet has several forms, SXM.
const KNOWN: &[Known] = &[
    known("b200", &["B200"], [75.0, 1125.0, 2250.0], 180.0, 8000.0, 50.0),
    known("h200", &["H200"], [67.0, 494.5, 989.0], 141.0, 4800.0, 50.0),
    known("h100-pcie", &["H100 PCIe"], [51.0, 378.0, 756.0], 80.0, 2000.0, 50.0),
    known("h100-nvl", &["H100 NVL"], [60.0, 417.5, 835.0], 94.0, 3900.0, 50.0),
    known("h100", &["H100"], [67.0, 494.5, 989.0], 80.0, 3350.0, 50.0),
    known("a100-80g", &["A100", "80GB"], [19.5, 156.0, 312.0], 80.0, 2039.0, 25.0),
    known("a100-40g", &["A100"], [19.5, 156.0, 312.0], 40.0, 1555.0, 25.0),
    known("l40s", &["L40S"], [91.6, 181.0, 362.0], 48.0, 864.0, 25.0),
    known("rtx-4090", &["RTX 4090"], [82.6, 82.6, 165.0], 24.0, 1008.0, 25.0),
    known("rtx-3090", &["RTX 3090"], [35.6, 35.6, 71.0], 24.0, 936.0, 25.0),
    known("a10", &["A10"], [31.2, 62.5, 125.0], 24.0, 600.0, 25.0),
    known("l4", &["L4"], [30.3, 60.5, 121.0], 24.0, 300.0, 25.0),
];

const fn known(
    name: &'static str,
    model: &'static [&'static str],
    teraflops: [f64; 3],
    gigabytes: f64,
    gigabytes_per_s: f64,
    host_link: f64,
) -> Known {
    Known { name, model, teraflops, gigabytes, gigabytes_per_s, host_link }
}

impl Known {
    fn card(&self) -> Card {
        let [f32, tf32, bf16] = self.teraflops.map(|rate| OperationsPerSecond(rate * 1e12));
        Card {
            name: self.name.to_owned(),
            f32,
            tf32,
            bf16,
            memory: Bytes(self.gigabytes * 1e9),
            bandwidth: BytesPerSecond(self.gigabytes_per_s * 1e9),
            host_link: BytesPerSecond(self.host_link * 1e9),
        }
    }
}

/// Names of the cards that are known.
pub fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|known| known.name)
}

/// The card of this name, in any case.
pub fn named(name: &str) -> Option<Card> {
    KNOWN.iter().find(|known| known.name.eq_ignore_ascii_case(name)).map(Known::card)
}

/// The card that a driver calls so.
pub fn of_model(model: &str) -> Option<Card> {
    KNOWN.iter().find(|known| known.model.iter().all(|part| model.contains(part))).map(Known::card)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(model: &str) -> Option<String> {
        of_model(model).map(|card| card.name)
    }

    #[test]
    fn cards_are_known_by_the_driver_s_name() {
        for (model, name) in [
            ("NVIDIA H100 80GB HBM3", "h100"),
            ("NVIDIA H100 PCIe", "h100-pcie"),
            ("NVIDIA H100 NVL", "h100-nvl"),
            ("NVIDIA H200", "h200"),
            ("NVIDIA A100-SXM4-80GB", "a100-80g"),
            ("NVIDIA A100 80GB PCIe", "a100-80g"),
            ("NVIDIA A100-SXM4-40GB", "a100-40g"),
            ("NVIDIA A10", "a10"),
            ("NVIDIA L40S", "l40s"),
            ("NVIDIA L4", "l4"),
        ] {
            assert_eq!(called(model).as_deref(), Some(name), "{model}");
        }
        assert_eq!(called("llvmpipe"), None);
    }

    #[test]
    fn a_special_name_comes_before_the_name_it_contains() {
        for (at, known) in KNOWN.iter().enumerate() {
            let whole = known.model.join(" ");
            assert_eq!(called(&whole).as_deref(), Some(known.name), "row {at}");
        }
    }

    #[test]
    fn every_card_computes_more_in_fewer_bits() {
        for name in names() {
            let card = named(&name.to_uppercase()).unwrap();
            assert!(card.f32 <= card.tf32 && card.tf32 < card.bf16, "{name}");
            assert!(card.memory > Bytes(20e9) && card.bandwidth > card.host_link, "{name}");
        }
    }
}
