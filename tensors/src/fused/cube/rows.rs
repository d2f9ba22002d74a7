//! Sums and maxima over the units of a cube.

use cubecl::prelude::*;

/// The sum of all units' `value`, for each of them.
#[cube]
pub(in crate::fused) fn sum(value: f32, #[comptime] units: usize) -> f32 {
    of_all(value, false, units)
}

/// The largest of all units' `value`, for each of them.
#[cube]
pub(in crate::fused) fn largest(value: f32, #[comptime] units: usize) -> f32 {
    of_all(value, true, units)
}

/// Sum or maximum of the units' values: one half is put together with the other, in one order on any device.
#[cube]
fn of_all(value: f32, #[comptime] largest: bool, #[comptime] units: usize) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(units);
    let unit = UNIT_POS_X as usize;
    shared[unit] = value;
    sync_cube();
    let halvings = comptime!(units.ilog2());
    #[unroll]
    for halving in 0..halvings {
        let half = comptime!(units >> (halving + 1));
        if unit < half {
            let other = shared[unit + half];
            if largest {
                shared[unit] = max(shared[unit], other);
            } else {
                shared[unit] += other;
            }
        }
        sync_cube();
    }
    let all = shared[0];
    sync_cube();
    all
}
