//! What kernels may do on a GPU.
//!
//! burn's kernels ask a device for what it has and take it: products of float32 go to TF32 units (10 bits of
//! a number's 23), whole-tensor sums and scattered additions to atomics, which add in the order in which
//! threads arrive. There is no other switch. So a device is made to say that it has neither, before anything
//! is computed on it, and every path (products alone, fused, of attention, of convolutions) takes the exact
//! one.

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::DispatchDevice;
use burn::tensor::Device;
use cubecl::features::{AtomicUsage, Features};
use cubecl::ir::{DeviceProperties, ElemType, FloatKind};

const TF32: ElemType = ElemType::Float(FloatKind::TF32);

/// Devices that are open, and whether TF32 was left to each.
static OPEN: Mutex<Vec<(Device, bool)>> = Mutex::new(Vec::new());

/// Takes from a device what would make results inexact or different from run to run. Later openings find it
/// done; the answer is whether TF32 was left to the device.
///
/// # Errors
/// A device that is busy or gone.
pub(super) fn narrow(device: &Device, tf32: bool) -> Result<bool, String> {
    let DispatchDevice::Cube(cube) = device.as_dispatch() else { return Ok(tf32) };
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, tf32)) = open.iter().find(|(own, _)| own == device) {
        return Ok(*tf32);
    }
    let client = cube.client();
    let shared = client.properties_shared();
    let mut narrowed = DeviceProperties::clone(&shared);
    restrict(&mut narrowed.features, tf32);
    client.exclusive(|| replace(&shared, narrowed)).map_err(|error| error.to_string())?;
    open.push((device.clone(), tf32));
    Ok(tf32)
}

/// Leaves out TF32 unless it is asked for, and atomic additions of floating-point numbers.
fn restrict(features: &mut Features, tf32: bool) {
    if !tf32 {
        features.types.elem.remove(&TF32);
        features.matmul.cmma.retain(|form| form.a_type != TF32 && form.b_type != TF32);
        features.matmul.mma.retain(|form| form.a_type != TF32 && form.b_type != TF32);
    }
    for (kind, usage) in &mut features.types.atomic {
        if matches!(kind.elem_type(), ElemType::Float(_)) {
            usage.remove(AtomicUsage::Add);
        }
    }
}

/// Writes what a device says of itself where all its clients read it.
#[expect(
    unsafe_code,
    reason = "burn has no setting for what its kernels may use, and no other place to leave it out"
)]
fn replace(shared: &Arc<DeviceProperties>, narrowed: DeviceProperties) {
    let place = Arc::as_ptr(shared).cast_mut();
    // SAFETY: the pointer is that of a live `Arc` and may be written through, as `Arc::get_mut` does. Nobody
    // else has a reference into it meanwhile: this is the first opening of the device, `OPEN` is held and
    // every other opening waits for it, no kernel was launched before, and the device's own thread is the one
    // that runs this.
    unsafe { *place = narrowed };
}

#[cfg(test)]
mod tests {
    use super::*;
    use cubecl::features::{MmaConfig, TypeUsage};
    use cubecl::ir::{IntKind, Type};

    fn card() -> Features {
        let (float, whole) = (ElemType::Float, ElemType::Int(IntKind::I32));
        let mut features = Features::default();
        for kind in [TF32, float(FloatKind::F32), float(FloatKind::BF16)] {
            features.types.elem.insert(kind, TypeUsage::all());
        }
        for kind in [TF32, float(FloatKind::BF16)] {
            let cd_type = float(FloatKind::F32);
            let form = MmaConfig { a_type: kind, b_type: kind, cd_type, m: 16, n: 16, k: 8 };
            features.matmul.cmma.insert(form);
            features.matmul.mma.insert(form);
        }
        for kind in [float(FloatKind::F32), float(FloatKind::BF16), whole] {
            features.types.atomic.insert(Type::atomic(kind), AtomicUsage::all());
        }
        features
    }

    fn adds(features: &Features, kind: ElemType) -> bool {
        features.atomic_type_usage(Type::atomic(kind)).contains(AtomicUsage::Add)
    }

    #[test]
    fn a_card_says_nothing_of_tf32_and_of_sums_without_an_order() {
        for tf32 in [false, true] {
            let mut features = card();
            restrict(&mut features, tf32);
            assert_eq!(features.supports_type(TF32), tf32);
            let forms = [features.matmul.cmma.len(), features.matmul.mma.len()];
            assert_eq!(forms, if tf32 { [2, 2] } else { [1, 1] }, "bf16 is left");
            for kind in [FloatKind::F32, FloatKind::BF16] {
                assert!(features.supports_type(ElemType::Float(kind)));
                assert!(!adds(&features, ElemType::Float(kind)), "{kind:?}");
            }
            assert!(adds(&features, ElemType::Int(IntKind::I32)));
        }
    }
}
