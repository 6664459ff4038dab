//! Conversions between storage and compute types, for each CPU level: drivers use them for types that a kernel does not take.
//! Knows no rule.

use half::{bf16, f16};

use super::{Dtype, Rounded, Storage};
use crate::cpu::{self, LEVELS, Level};

/// Converts `n` elements.
///
/// # Safety
/// Both pointers must be valid for `n` elements of their types and not overlap; the CPU must support the level.
type Convert = unsafe fn(source: *const u8, target: *mut u8, n: usize);

/// Each storage type to float32, then to float64, then float32 to the two-byte storage types.
const KINDS: usize = 10;

/// Fills each of `n` elements of float32 or float64 with the first number of `value`.
static FILL: [[Convert; 2]; LEVELS] = {
    macro_rules! row {
        ($level:ident) => {
            [$level::fill::<f32>, $level::fill::<f64>]
        };
    }
    cpu::rows!(row)
};

static TABLE: [[Convert; KINDS]; LEVELS] = {
    macro_rules! row {
        ($level:ident) => {
            [
                $level::load::<f32, f32>,
                $level::load::<Rounded, f32>,
                $level::load::<f16, f32>,
                $level::load::<bf16, f32>,
                $level::load::<f32, f64>,
                $level::load::<f64, f64>,
                $level::load::<f16, f64>,
                $level::load::<bf16, f64>,
                $level::store::<f16>,
                $level::store::<bf16>,
            ]
        };
    }
    cpu::rows!(row)
};

/// Converts `n` numbers of any type to the compute type `to`, which is `F32` or `F64`.
///
/// # Safety
/// As for [`Convert`].
pub(crate) unsafe fn load(level: Level, (from, source): (Dtype, *const u8), (to, target): (Dtype, *mut u8), n: usize) {
    // SAFETY: upheld by the caller.
    unsafe { TABLE[level as usize][4 * to as usize + from as usize](source, target, n) }
}

/// Rounds `n` float32 numbers to a two-byte storage type, to nearest even.
///
/// # Safety
/// As for [`Convert`].
pub(crate) unsafe fn store(level: Level, source: *const u8, (to, target): (Dtype, *mut u8), n: usize) {
    // SAFETY: upheld by the caller.
    unsafe { TABLE[level as usize][8 + to as usize - Dtype::F16 as usize](source, target, n) }
}

/// Fills `n` elements of a compute type with one number.
///
/// # Safety
/// As for [`Convert`], with one number at `value`.
pub(crate) unsafe fn fill(level: Level, value: *const u8, (compute, target): (Dtype, *mut u8), n: usize) {
    // SAFETY: upheld by the caller.
    unsafe { FILL[level as usize][compute as usize](value, target, n) }
}

cpu::each! {
    /// # Safety
    /// As for [`fill`](super::fill).
    pub(super) unsafe fn fill<C: Copy>(value: *const u8, target: *mut u8, n: usize) {
        // SAFETY: upheld by the caller.
        unsafe { std::slice::from_raw_parts_mut(target.cast::<C>(), n).fill(*value.cast::<C>()) }
    }

    /// # Safety
    /// As for [`Convert`].
    pub(super) unsafe fn load<A: Storage, C: Copy + From<A::Compute>>(source: *const u8, target: *mut u8, n: usize) {
        // SAFETY: upheld by the caller.
        let (source, target) = unsafe {
            (std::slice::from_raw_parts(source.cast::<A>(), n), std::slice::from_raw_parts_mut(target.cast::<C>(), n))
        };
        for (out, x) in target.iter_mut().zip(source) {
            *out = C::from(x.load());
        }
    }

    /// # Safety
    /// As for [`Convert`].
    pub(super) unsafe fn store<A: Storage<Compute = f32>>(source: *const u8, target: *mut u8, n: usize) {
        // SAFETY: upheld by the caller.
        let (source, target) = unsafe {
            (std::slice::from_raw_parts(source.cast::<f32>(), n), std::slice::from_raw_parts_mut(target.cast::<A>(), n))
        };
        for (out, x) in target.iter_mut().zip(source) {
            *out = A::store(*x);
        }
    }
}
