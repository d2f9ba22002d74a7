//! Which slots brought about a value that is not finite.

use blip2_dataset::loader::StepBatch;

/// The slots of a batch with a value that is not finite among their own.
pub(crate) fn odd_slots(batch: &StepBatch, own_values: &[Vec<f32>]) -> Vec<u32> {
    let is_odd = |values: &Vec<f32>| values.iter().any(|value| !value.is_finite());
    slots_of(batch, |index| own_values.get(index).is_some_and(is_odd))
}

/// The slots of a batch for which `is_odd` holds.
pub(crate) fn slots_of(batch: &StepBatch, is_odd: impl Fn(usize) -> bool) -> Vec<u32> {
    let slots = batch.slots.iter().enumerate();
    slots.filter(|(index, _)| is_odd(*index)).map(|(_, slot)| slot.slot).collect()
}
