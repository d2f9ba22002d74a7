//! CUDA devices as the driver and NVML, NVIDIA's management library, know them. NVML is looked for at run
//! time; without it there are fewer figures.

use std::sync::Arc;

use cudarc::driver::{CudaContext, result};
use nvml_wrapper::Nvml;

use super::description::{Card, CardUse};
use crate::device::name::DeviceName;

/// A card that this process has open.
pub(super) struct Driver {
    card: Card,
    /// The context that computing uses too: it is the process' only one on this card.
    context: Arc<CudaContext>,
    nvml: Option<Nvml>,
}

impl Driver {
    /// The `number`-th card that this process sees; `None`: the driver does not answer.
    pub(super) fn of_open(number: usize) -> Option<Self> {
        let nvml = Nvml::init().inspect_err(|error| tracing::debug!(%error, "no NVML")).ok();
        let mut card = card(number, nvml.as_ref())?;
        let context = CudaContext::new(number).ok()?;
        if card.memory_bytes == 0 {
            card.memory_bytes = context.mem_get_info().map_or(0, |(_, total)| total as u64);
        }
        Some(Self { card, context, nvml })
    }

    pub(super) fn card(&self) -> Card {
        self.card.clone()
    }

    /// The process' own use, with the card's.
    pub(super) fn usage(&self, own: CardUse) -> CardUse {
        let memory = self.context.mem_get_info().ok();
        let device = self.nvml.as_ref().and_then(|nvml| nvml.device_by_uuid(self.card.uuid.as_str()).ok());
        CardUse {
            used_bytes: memory.map_or(0, |(free, total)| total.saturating_sub(free) as u64),
            busy_percent: device.and_then(|device| device.utilization_rates().ok()).map(|rates| rates.gpu),
            ..own
        }
    }
}

/// The first `count` cards, without opening one.
pub(super) fn cards(count: usize) -> Vec<Card> {
    let nvml = Nvml::init().ok();
    (0..count).map_while(|number| card(number, nvml.as_ref())).collect()
}

fn card(number: usize, nvml: Option<&Nvml>) -> Option<Card> {
    result::init().ok()?;
    let device = result::device::get(i32::try_from(number).ok()?).ok()?;
    let mut card = Card {
        model: result::device::get_name(device).unwrap_or_default(),
        uuid: result::device::get_uuid(device).map(|uuid| uuid_text(uuid.bytes)).unwrap_or_default(),
        ..Card::named(DeviceName::Cuda(Some(number)))
    };
    // The driver numbers what this process sees, NVML the whole machine: their common name is the UUID.
    if let Some(managed) = nvml.and_then(|nvml| nvml.device_by_uuid(card.uuid.as_str()).ok()) {
        card.memory_bytes = managed.memory_info().map_or(0, |memory| memory.total);
        card.bus_id = managed.pci_info().map_or(String::new(), |place| bus_id(&place.bus_id));
    }
    Some(card)
}

/// `GPU-` and the bytes, as NVIDIA's tools write it.
fn uuid_text(bytes: impl IntoIterator<Item = impl Into<i32>>) -> String {
    let mut text = String::from("GPU-");
    for (index, byte) in bytes.into_iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            text.push('-');
        }
        let byte: i32 = byte.into();
        text += &format!("{:02x}", byte & 0xff);
    }
    text
}

/// `00000000:3B:00.0` as the kernel writes it, `0000:3b:00.0`.
fn bus_id(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    match lower.split_once(':') {
        Some((domain, rest)) if domain.len() > 4 => {
            let domain = domain.trim_start_matches('0');
            format!("{domain:0>4}:{rest}")
        }
        _ => lower,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_written_as_others_write_them() {
        let bytes: [i8; 16] = [0x12, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, -128];
        assert_eq!(uuid_text(bytes), "GPU-12ff0001-0203-0405-0607-08090a0b0c80");
        assert_eq!(bus_id("00000000:3B:00.0"), "0000:3b:00.0");
        assert_eq!(bus_id("00010000:00:1E.0"), "10000:00:1e.0");
        assert_eq!(bus_id("0000:3b:00.0"), "0000:3b:00.0");
    }
}
