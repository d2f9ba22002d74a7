//! Cards by what is known of them: name, place in the machine, memory, and how much of it is used.

mod description;
#[cfg(feature = "cuda")]
mod nvidia;

pub use description::{Card, CardUse, gib};

use burn::tensor::Device;

use crate::device::name::DeviceName;

/// What the driver says of the CUDA devices that this process sees, in their order; it opens none of them.
/// Fewer than there are where the driver does not answer, none in a build without CUDA.
pub fn cuda_cards(count: usize) -> Vec<Card> {
    #[cfg(feature = "cuda")]
    {
        nvidia::cards(count)
    }
    #[cfg(not(feature = "cuda"))]
    {
        let _ = count;
        Vec::new()
    }
}

/// An open device, to look at while it is used.
pub struct CardWatch {
    card: Card,
    device: Device,
    #[cfg(feature = "cuda")]
    driver: Option<nvidia::Driver>,
}

impl CardWatch {
    /// Looks at `device`, which was opened as `name` with its number.
    pub fn new(name: DeviceName, device: &Device) -> Self {
        #[cfg(feature = "cuda")]
        if let DeviceName::Cuda(number) = name
            && let Some(driver) = nvidia::Driver::of_open(number.unwrap_or(0))
        {
            return Self { card: driver.card(), device: device.clone(), driver: Some(driver) };
        }
        Self {
            card: Card { model: model_of(name, device), ..Card::named(name) },
            device: device.clone(),
            #[cfg(feature = "cuda")]
            driver: None,
        }
    }

    /// What is known of it.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// How much of it is used now; `None` for the CPU. Operations that wait in a queue are handed on first.
    pub fn usage(&self) -> Option<CardUse> {
        let own = self.device.memory_pool_usage()?;
        let usage = CardUse {
            allocated_bytes: own.bytes_in_use,
            reserved_bytes: own.bytes_reserved,
            ..CardUse::default()
        };
        #[cfg(feature = "cuda")]
        if let Some(driver) = &self.driver {
            return Some(driver.usage(usage));
        }
        Some(usage)
    }
}

/// What a GPU calls itself.
#[cfg(feature = "cube")]
fn model_of(name: DeviceName, device: &Device) -> String {
    match name {
        DeviceName::Cpu => String::new(),
        _ => device.identity().map_or(String::new(), |identity| identity.name),
    }
}

#[cfg(not(feature = "cube"))]
fn model_of(_: DeviceName, _: &Device) -> String {
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_has_no_memory_of_its_own() {
        let watch = CardWatch::new(DeviceName::Cpu, &Device::flex());
        assert_eq!((watch.card(), watch.usage()), (&Card::named(DeviceName::Cpu), None));
    }
}
