//! Sums and sums of squares, with a fixed shape.
//!
//! An array is cut into blocks of [`BLOCK`] elements from its start. Inside a block sixteen float64 lanes take every
//! sixteenth element and are added in a fixed tree; blocks, then arrays, are added in order. So the result does not
//! depend on threads, chunks or CPU level.

use half::{bf16, f16};

use crate::fetch::fetch;
use crate::fpenv;
use crate::level::{self, LEVELS, Level};
use crate::math::Real;
use crate::storage::{Dtype, Rounded, Storage};

/// Elements that make one partial sum.
pub(crate) const BLOCK: usize = 1024;
/// Lanes that a block's elements are dealt to in turn.
pub(crate) const LANES: usize = 16;

/// The sum, or the sum of squares, of `n` elements.
///
/// # Safety
/// `data` must be valid for `n` aligned elements of the type, and the CPU must have the level.
type Sum = unsafe fn(data: *const u8, n: usize) -> f64;

/// Squares of the gradient types, then of a float64 that is computed in float32, then plain sums of the compute types.
const KINDS: usize = 7;

static TABLE: [[Sum; KINDS]; LEVELS] = {
    macro_rules! row {
        ($level:ident) => {
            [
                $level::sum::<f32, true>,
                $level::sum::<f64, true>,
                $level::sum::<f16, true>,
                $level::sum::<bf16, true>,
                $level::sum::<Rounded, true>,
                $level::sum::<f32, false>,
                $level::sum::<f64, false>,
            ]
        };
    }
    level::rows!(row)
};

/// The sum of squares of one block of gradients that are computed in `compute`.
///
/// # Safety
/// `data` must be valid for `n` aligned elements of the type, and the CPU must have the level.
pub(crate) unsafe fn sum_of_squares(level: Level, dtype: Dtype, compute: Dtype, data: *const u8, n: usize) -> f64 {
    let kind = if (dtype, compute) == (Dtype::F64, Dtype::F32) { 4 } else { dtype as usize };
    // SAFETY: the caller's promise, passed on.
    unsafe { TABLE[level as usize][kind](data, n) }
}

/// The sum of one block of `compute`, which is `F32` or `F64`.
///
/// # Safety
/// `data` must be valid for `n` aligned elements of the type, and the CPU must have the level.
pub(crate) unsafe fn sum(level: Level, compute: Dtype, data: *const u8, n: usize) -> f64 {
    // SAFETY: the caller's promise, passed on.
    unsafe { TABLE[level as usize][5 + compute as usize](data, n) }
}

/// The factor for gradients that are divided by `grad_scale` and not clipped.
pub fn unscale_factor(grad_scale: f64) -> f64 {
    fpenv::standard(|| 1.0 / grad_scale)
}

/// What a global norm bounded by `max_norm` means for gradients that are divided by `grad_scale`: their norm after that,
/// and the factor to multiply them by, `min(1, max_norm / (norm + 1e-6)) / grad_scale`; NaN stays NaN.
pub fn clip_factor(sum_of_squares: f64, grad_scale: f64, max_norm: f64) -> (f64, f64) {
    fpenv::standard(|| {
        let norm = sum_of_squares.sqrt() / grad_scale;
        let coefficient = max_norm / (norm + 1e-6);
        (norm, if coefficient >= 1.0 { 1.0 } else { coefficient } / grad_scale)
    })
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
    // An array without elements may lie anywhere.
    if n == 0 {
        return None;
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

level::each! {
    /// # Safety
    /// As for [`Sum`].
    pub(super) unsafe fn sum<G: Storage<Compute: Into<f64>>, const SQUARES: bool>(data: *const u8, n: usize) -> f64 {
        // SAFETY: the caller's promise.
        block::<G, SQUARES, FMA>(unsafe { std::slice::from_raw_parts(data.cast::<G>(), n) })
    }
}

#[inline(always)]
fn block<G: Storage<Compute: Into<f64>>, const SQUARES: bool, const FMA: bool>(values: &[G]) -> f64 {
    let mut lanes = [0.0; LANES];
    let ahead = values.as_ptr().wrapping_add(BLOCK / 2);
    let soon = |at| fetch(ahead.wrapping_add(at));
    if SQUARES {
        add_squares::<FMA, _, _>(&mut lanes, values, |g| g.load(), soon);
    } else {
        add(&mut lanes, values, |sum, g| sum + g.load().into(), soon);
    }
    fold(lanes)
}

/// Adds the squares of numbers that start at a multiple of [`LANES`] in their block.
#[inline(always)]
pub(crate) fn add_squares<const FMA: bool, G, C: Real + Into<f64>>(
    lanes: &mut [f64; LANES],
    values: &[G],
    number: impl Fn(&G) -> C,
    soon: impl Fn(usize),
) {
    add(
        lanes,
        values,
        |sum, g| {
            let x = number(g).into();
            // Where the square is exact both round once, to the same number.
            if FMA && C::SQUARES_EXACTLY { x.mul_add(x, sum) } else { sum + x * x }
        },
        soon,
    );
}

/// Adds what is dealt to the lanes in turn. `soon` is told where each row starts, to fetch what will be read soon: sums
/// wait for memory where nothing is written, since too few reads are under way.
#[inline(always)]
fn add<G>(lanes: &mut [f64; LANES], values: &[G], plus: impl Fn(f64, &G) -> f64, soon: impl Fn(usize)) {
    let (rows, rest) = values.as_chunks::<LANES>();
    for (i, row) in rows.iter().enumerate() {
        soon(i * LANES);
        for lane in 0..LANES {
            lanes[lane] = plus(lanes[lane], &row[lane]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = plus(*lane, x);
    }
}

/// The sum of a block's lanes, in a fixed tree.
#[inline(always)]
pub(crate) fn fold(mut lanes: [f64; LANES]) -> f64 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}
