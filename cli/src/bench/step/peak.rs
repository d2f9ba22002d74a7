//! What a card can compute at most, by its name.

/// Dense bf16 products with float32 sums in TFLOP/s, by a part of the card's name, special names first; from
/// the makers' data sheets.
const PEAKS: [(&str, f64); 11] = [
    ("B200", 2250.0),
    ("H200", 989.0),
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("A100", 312.0),
    ("L40S", 362.0),
    ("RTX 4090", 165.0),
    ("RTX 3090", 71.0),
    ("A10", 125.0),
    ("L4", 121.0),
];

/// Where Linux' driver describes the cards, one folder each.
const CARDS: &str = "/proc/driver/nvidia/gpus";

/// The peak of a card of this name.
fn of_name(name: &str) -> Option<f64> {
    PEAKS.iter().find(|(part, _)| name.contains(part)).map(|(_, peak)| *peak)
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

    #[test]
    fn a_special_name_comes_before_the_name_it_contains() {
        for (at, (name, _)) in PEAKS.iter().enumerate() {
            assert!(PEAKS[..at].iter().all(|(earlier, _)| !name.contains(earlier)), "{name}");
        }
    }
}
