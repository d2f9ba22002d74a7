//! Memory as a card gives it: zeros at addresses that are aligned, whose pages come when they are touched. A
//! kernel that does nothing touches none, so that tensors of a large model take next to no memory.

use std::alloc::{Layout, alloc_zeroed, dealloc};

/// Of every allocation.
pub(crate) const ALIGNMENT: usize = 512;
/// What the allocator gives without clearing it itself; there is room for an address and a size before what
/// is aligned beyond it.
const ALLOCATED: usize = 2 * size_of::<usize>();

/// `bytes` of zeros, or none where there is no such room.
pub(crate) fn zeroed(bytes: usize) -> Option<*mut u8> {
    let size = bytes.checked_add(ALLOCATED + ALIGNMENT)?;
    let layout = Layout::from_size_align(size, ALLOCATED).ok()?;
    // SAFETY: the layout has a size.
    let block = unsafe { alloc_zeroed(layout) };
    if block.is_null() {
        return None;
    }
    let offset = (block as usize + ALLOCATED).next_multiple_of(ALIGNMENT) - block as usize;
    // SAFETY: the offset is at least ALLOCATED and less than ALLOCATED + ALIGNMENT, so that what lies before
    // and behind it is the block's.
    unsafe {
        let given = block.add(offset);
        given.cast::<usize>().sub(1).write(size);
        given.cast::<usize>().sub(2).write(offset);
        Some(given)
    }
}

/// # Safety
/// `given` is of [`zeroed`], and is given back once.
pub(crate) unsafe fn give_back(given: *mut u8) {
    // SAFETY: size and offset lie before what was given.
    unsafe {
        let size = given.cast::<usize>().sub(1).read();
        let offset = given.cast::<usize>().sub(2).read();
        dealloc(given.sub(offset), Layout::from_size_align_unchecked(size, ALLOCATED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_zero_and_takes_no_room_until_it_is_touched() {
        // Only what is written to takes pages.
        let huge = zeroed(1 << 33).expect("room");
        for bytes in [0, 1, 511, 512, 5000] {
            let given = zeroed(bytes).expect("room");
            assert_eq!(given as usize % ALIGNMENT, 0);
            // SAFETY: there are as many.
            let values = unsafe { std::slice::from_raw_parts_mut(given, bytes) };
            assert!(values.iter().all(|value| *value == 0));
            values.fill(7);
            // SAFETY: each once.
            unsafe { give_back(given) };
        }
        // SAFETY: once.
        unsafe { give_back(huge) };
        assert!(zeroed(usize::MAX).is_none());
    }
}
