//! Sums of squares of gradients: the one reduction of an elementwise step, with a fixed shape.
//!
//! An array is cut into blocks of [`BLOCK`] elements from its start. Inside a block sixteen float64 lanes take every
//! sixteenth element and are added in a fixed tree; blocks, then arrays, are added in order. So the result does not
//! depend on threads, chunks or CPU level.

use half::{bf16, f16};

use crate::level::{LEVELS, Level};
use crate::storage::{Dtype, Rounded, Storage};

/// Elements that make one partial sum.
pub(crate) const BLOCK: usize = 4096;
const LANES: usize = 16;

/// The sum of squares of `n` elements.
///
/// # Safety
/// `data` must be valid for `n` aligned elements of the type, and the CPU must have the level.
type SumOfSquares = unsafe fn(data: *const u8, n: usize) -> f64;

/// The gradient types, a float64 that is computed in float32 apart.
const KINDS: usize = 5;

static TABLE: [[SumOfSquares; KINDS]; LEVELS] = {
    macro_rules! level {
        ($level:ident) => {
            [$level::<f32>, $level::<f64>, $level::<f16>, $level::<bf16>, $level::<Rounded>]
        };
    }
    #[cfg(target_arch = "x86_64")]
    let table: [[SumOfSquares; KINDS]; LEVELS] = [level!(baseline), level!(avx2), level!(avx512)];
    #[cfg(not(target_arch = "x86_64"))]
    let table: [[SumOfSquares; KINDS]; LEVELS] = [level!(baseline), level!(baseline), level!(baseline)];
    table
};

/// The sum of squares of one block of gradients that are computed in `compute`.
///
/// # Safety
/// `data` must be valid for `n` aligned elements of the type, and the CPU must have the level.
pub(crate) unsafe fn sum_of_squares(level: Level, dtype: Dtype, compute: Dtype, data: *const u8, n: usize) -> f64 {
    let kind = if (dtype, compute) == (Dtype::F64, Dtype::F32) { KINDS - 1 } else { dtype as usize };
    // SAFETY: the caller's promise, passed on.
    unsafe { TABLE[level as usize][kind](data, n) }
}

/// Where the first NaN or infinity is among gradients that are computed in `compute`, if there is one.
///
/// # Safety
/// `data` must be valid for `n` aligned elements of the type.
pub(crate) unsafe fn first_nonfinite(dtype: Dtype, compute: Dtype, data: *const u8, n: usize) -> Option<usize> {
    /// # Safety
    /// As for `first_nonfinite`, with the type as a parameter.
    unsafe fn scan<G: Storage<Compute: Into<f64>>>(data: *const u8, n: usize) -> Option<usize> {
        // SAFETY: the caller's promise.
        let values = unsafe { std::slice::from_raw_parts(data.cast::<G>(), n) };
        values.iter().position(|x| !x.load().into().is_finite())
    }
    // SAFETY: the caller's promise, passed on.
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

macro_rules! levels {
    ($($(#[$attribute:meta])* $name:ident;)*) => {$(
        /// # Safety
        /// As for [`SumOfSquares`].
        $(#[$attribute])*
        unsafe fn $name<G: Storage<Compute: Into<f64>>>(data: *const u8, n: usize) -> f64 {
            // SAFETY: the caller's promise.
            block(unsafe { std::slice::from_raw_parts(data.cast::<G>(), n) })
        }
    )*};
}
levels! {
    baseline;
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    avx2;
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
    avx512;
}

#[inline(always)]
fn block<G: Storage<Compute: Into<f64>>>(values: &[G]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let rows = values.chunks_exact(LANES);
    let rest = rows.remainder();
    for row in rows {
        for lane in 0..LANES {
            let x: f64 = row[lane].load().into();
            lanes[lane] += x * x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        let x: f64 = x.load().into();
        *lane += x * x;
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}
