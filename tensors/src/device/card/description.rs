//! What is known of a card, and how much of it is used.

use std::fmt;

use crate::device::name::DeviceName;

/// A device with all that its driver and the management library say of it; what they do not say is empty
/// or 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// As it is named for `--device`, for example `cuda:3`.
    pub device: DeviceName,
    /// What it calls itself, for example `NVIDIA H100 PCIe`.
    pub model: String,
    /// Its place on the bus, for example `0000:3b:00.0`.
    pub bus_id: String,
    /// Its identity wherever it is plugged in, for example `GPU-8e1b…`.
    pub uuid: String,
    /// Bytes of its memory.
    pub memory_bytes: u64,
}

/// How much of a card is used at some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CardUse {
    /// Bytes of this process' tensors.
    pub allocated_bytes: u64,
    /// Bytes that this process holds of the card's memory: those of tensors, and pages kept for the next
    /// ones.
    pub reserved_bytes: u64,
    /// Bytes of the card's memory in use, by whatever process; 0: not known.
    pub used_bytes: u64,
    /// Share of the last moment, in percent, in which a kernel ran; `None`: not known.
    pub busy_percent: Option<u32>,
}

/// Bytes as the programs write memory, for example `80.0 GiB`.
pub fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

impl Card {
    /// Nothing but its name.
    pub fn named(device: DeviceName) -> Self {
        Self { device, model: String::new(), bus_id: String::new(), uuid: String::new(), memory_bytes: 0 }
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.device)?;
        let memory = match self.memory_bytes {
            0 => String::new(),
            bytes => gib(bytes),
        };
        let parts = [self.model.as_str(), self.bus_id.as_str(), memory.as_str()];
        let known: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        if known.is_empty() { Ok(()) } else { write!(f, " ({})", known.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_described_by_what_is_known() {
        let card = Card {
            model: "NVIDIA H100 PCIe".into(),
            bus_id: "0000:3b:00.0".into(),
            memory_bytes: 80 << 30,
            ..Card::named(DeviceName::Cuda(Some(3)))
        };
        assert_eq!(card.to_string(), "cuda:3 (NVIDIA H100 PCIe, 0000:3b:00.0, 80.0 GiB)");
        assert_eq!(Card::named(DeviceName::Cpu).to_string(), "cpu");
    }
}
