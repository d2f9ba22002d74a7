//! Which rows have the same image.

use blip2_dataset::loader::SlotBatch;

/// The ids of a slot's images, by which those of several rows are known to be the same.
///
/// A row's image is known by the row's key, or by where it lies in the corpus where it has none: a row that
/// is drawn twice into a batch has one image.
pub(super) fn image_ids(slot: &SlotBatch) -> Vec<u64> {
    (0..slot.samples.len()).map(|row| image_id(slot, row)).collect()
}

fn image_id(slot: &SlotBatch, row: usize) -> u64 {
    let mut hasher = blake3::Hasher::new();
    let key = slot.keys.get(row).filter(|key| !key.is_empty());
    match (key, slot.addresses.get(row)) {
        (Some(key), _) => hasher.update(b"key\0").update(key.as_bytes()),
        (None, Some(address)) => {
            let place = [address.file, address.row_group, address.row].map(u64::from);
            hasher.update(b"row\0").update(bytemuck::cast_slice(&place.map(u64::to_le)))
        }
        // Rows that were made up are of a sample each.
        (None, None) => hasher.update(b"sample\0").update(&slot.samples[row].to_le_bytes()),
    };
    let mut id = [0; 8];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(id)
}

#[cfg(test)]
mod tests {
    use blip2_dataset::coverage::Coverage;

    use super::*;

    fn slot(keys: &[&str]) -> SlotBatch {
        SlotBatch {
            slot: 0,
            pixels: Vec::new().into(),
            ids: Vec::new(),
            mask: Vec::new(),
            captions: Vec::new(),
            samples: (0..keys.len() as u64).collect(),
            addresses: Vec::new(),
            keys: keys.iter().map(ToString::to_string).collect(),
            coverage: Coverage::default(),
            quarantined: Vec::new(),
        }
    }

    #[test]
    fn rows_of_one_key_have_one_image_and_rows_without_one_their_own() {
        let ids = image_ids(&slot(&["cat", "dog", "cat", "", ""]));
        assert_eq!(ids[0], ids[2]);
        let others: std::collections::BTreeSet<u64> = ids.iter().copied().collect();
        assert_eq!(others.len(), 4, "{ids:?}");
        assert_eq!(image_ids(&slot(&["dog"]))[0], ids[1], "whatever else is in the slot");
    }
}
