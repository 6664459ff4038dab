//! The search for a NaN or an infinity. Knows no rule and no thread.

use half::{bf16, f16};

use super::{Dtype, Rounded, Storage};

/// The index of the first NaN or infinity in gradients with the compute type `compute`, if any.
///
/// # Safety
/// `data` must be valid for `n` aligned elements of the type.
pub(crate) unsafe fn first_nonfinite(dtype: Dtype, compute: Dtype, data: *const u8, n: usize) -> Option<usize> {
    /// # Safety
    /// As for `first_nonfinite`, with the type as a parameter.
    unsafe fn scan<G: Storage>(data: *const u8, n: usize) -> Option<usize> {
        // SAFETY: upheld by the caller.
        let values = unsafe { std::slice::from_raw_parts(data.cast::<G>(), n) };
        values.iter().position(|x| !x.load().into().is_finite())
    }
    // The pointer of an empty array may be dangling.
    if n == 0 {
        return None;
    }
    // SAFETY: upheld by the caller.
    unsafe {
        match dtype {
            Dtype::F64 if compute == Dtype::F32 => scan::<Rounded>(data, n),
            Dtype::F32 => scan::<f32>(data, n),
            Dtype::F64 => scan::<f64>(data, n),
            Dtype::F16 => scan::<f16>(data, n),
            Dtype::Bf16 => scan::<bf16>(data, n),
        }
    }
}
