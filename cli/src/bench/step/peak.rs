//! What a card can compute at most, by its name.

/// Where Linux' driver describes the cards, one folder each.
const CARDS: &str = "/proc/driver/nvidia/gpus";

/// The peak of a card of this name: dense bf16 products with float32 sums in TFLOP/s.
fn of_name(name: &str) -> Option<f64> {
    blip2_cost::card::of_model(name).map(|card| card.bf16.0 / 1e12)
}

/// The name in a card's description.
fn name_in(description: &str) -> Option<&str> {
    description.lines().find_map(|line| line.strip_prefix("Model:")).map(str::trim)
}

/// The peak of this machine's cards, where all are of one known name.
pub(super) fn of_this_machine() -> Option<f64> {
    let folders = std::fs::read_dir(CARDS).ok()?;
    let descriptions =
        folders.map(|folder| std::fs::read_to_string(folder.ok()?.path().join("information")).ok());
    let names: Option<Vec<String>> = descriptions.map(|text| Some(name_in(&text?)?.to_owned())).collect();
    let names = names?;
    let first = names.first()?;
    names.iter().all(|name| name == first).then(|| of_name(first)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_known_by_a_part_of_their_name() {
        let description = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 42\n";
        assert_eq!(name_in(description), Some("NVIDIA H100 80GB HBM3"));
        assert_eq!(of_name("NVIDIA H100 80GB HBM3"), Some(989.0));
        assert_eq!(of_name("NVIDIA H100 PCIe"), Some(756.0));
        assert_eq!(of_name("NVIDIA H200"), Some(989.0));
        assert_eq!(of_name("NVIDIA A100-SXM4-80GB"), Some(312.0));
        assert_eq!(of_name("NVIDIA A10"), Some(125.0));
        assert_eq!(of_name("NVIDIA L40S"), Some(362.0));
        assert_eq!(of_name("NVIDIA L4"), Some(121.0));
        assert_eq!(of_name("llvmpipe"), None);
    }
}
