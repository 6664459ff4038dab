//! States and parameters that no kernel takes as they are: converted a tile at a time, from and to float32.

use half::{bf16, f16};

use super::codes::Code;
use super::noise::{STRIDE, bits};
use super::{CODED, Kept, Noise, SCALES_ALIGN, StateType};
use crate::kernel::fetch;
use crate::level::{self, LEVELS, Level};
use crate::storage::{Dtype, Storage};

/// Between `n` float32 numbers and what states, or parameters, are kept in.
///
/// # Safety
/// `wide` must be valid for `n` elements, `small` for `n` of its type and, for codes, the scales for their blocks; they may
/// not overlap; all must be valid for writing. The CPU must have the level. What will be read `soon` may be anything.
type Op = unsafe fn(wide: *mut f32, small: *mut u8, scales: *mut f32, counter: u32, n: usize, soon: *const f32);

/// Loading, keeping stochastically and keeping to nearest: bfloat16, signed codes and codes without sign; storing bfloat16
/// and float16 parameters.
const OPS: usize = 11;

static TABLE: [[Op; OPS]; LEVELS] = {
    macro_rules! row {
        ($level:ident) => {
            [
                $level::load::<bf16>,
                $level::keep::<bf16>,
                $level::nearest::<bf16>,
                $level::load::<Code<true>>,
                $level::keep::<Code<true>>,
                $level::nearest::<Code<true>>,
                $level::load::<Code<false>>,
                $level::keep::<Code<false>>,
                $level::nearest::<Code<false>>,
                $level::store::<bf16>,
                $level::store::<f16>,
            ]
        };
    }
    level::rows!(row)
};

/// One state of an array.
#[derive(Clone, Copy)]
pub(crate) struct SmallState {
    /// How it is kept.
    pub kind: StateType,
    /// Whether it may be negative.
    pub signed: bool,
    /// Which of the rule's it is.
    pub number: usize,
    /// Its memory, and its elements.
    pub data: *mut u8,
    pub len: usize,
}

impl SmallState {
    /// Reads `n` elements from `at`, which begins a block.
    ///
    /// # Safety
    /// As for [`Op`].
    pub unsafe fn load(&self, level: Level, wide: *mut f32, (at, n): (usize, usize)) {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.run(0, level, wide, (at, n), 0, std::ptr::null()) }
    }

    /// Writes `n` elements from `at`, which begins a block.
    ///
    /// # Safety
    /// As for [`Op`].
    pub unsafe fn keep(&self, level: Level, wide: *mut f32, (at, n): (usize, usize), noise: Noise, soon: *const f32) {
        let op = if noise == Noise::Nearest { 2 } else { 1 };
        // SAFETY: the caller's promise, passed on.
        unsafe { self.run(op, level, wide, (at, n), noise.of(self.number).counter(at / CODED), soon) }
    }

    /// # Safety
    /// As for [`Op`].
    unsafe fn run(
        &self,
        op: usize,
        level: Level,
        wide: *mut f32,
        (at, n): (usize, usize),
        counter: u32,
        soon: *const f32,
    ) {
        let first = match self.kind {
            StateType::Int8 if self.signed => 3,
            StateType::Int8 => 6,
            _ => 0,
        };
        let scales = self.data.wrapping_add(self.len.next_multiple_of(SCALES_ALIGN)).cast::<f32>();
        let data = self.data.wrapping_add(at * self.kind.size(Dtype::F32));
        // SAFETY: the caller's promise, passed on.
        unsafe { TABLE[level as usize][first + op](wide, data, scales.wrapping_add(at / CODED), counter, n, soon) }
    }
}

/// Rounds `n` float32 numbers to parameters of two bytes, to nearest even.
///
/// # Safety
/// As for [`Op`].
pub(crate) unsafe fn round(level: Level, wide: *mut f32, dtype: Dtype, param: *mut u8, n: usize) {
    let op = if dtype == Dtype::Bf16 { 9 } else { 10 };
    // SAFETY: the caller's promise, passed on.
    unsafe { TABLE[level as usize][op](wide, param, std::ptr::null_mut(), 0, n, std::ptr::null()) }
}

level::each! {
    /// # Safety
    /// As for [`Op`].
    pub(super) unsafe fn load<T: Kept>(wide: *mut f32, small: *mut u8, scales: *mut f32, _: u32, n: usize, _: *const f32) {
        // SAFETY: the caller's promise, passed on.
        unsafe {
            blocks::<T>(wide, small, n, |i, wide, small| {
                let scale = if T::SCALED { *scales.add(i) } else { 1.0 };
                read(wide, small, scale);
            });
        }
    }

    /// # Safety
    /// As for [`Op`].
    pub(super) unsafe fn keep<T: Kept>(wide: *mut f32, small: *mut u8, scales: *mut f32, counter: u32, n: usize, soon: *const f32) {
        // SAFETY: the caller's promise, passed on.
        unsafe {
            find_scales::<T>(wide, small, scales, n);
            blocks::<T>(wide, small, n, |i, wide, small| {
                let scale = if T::SCALED { *scales.add(i) } else { 1.0 };
                let counter = counter.wrapping_add((i as u32).wrapping_mul(STRIDE.wrapping_mul(CODED as u32 / 2)));
                if scale > 0.0 { keep_randomly(wide, small, 1.0 / scale, counter, soon.wrapping_add(i * CODED)) } else { small.fill(T::ZERO) }
            });
        }
    }

    /// # Safety
    /// As for [`Op`].
    pub(super) unsafe fn nearest<T: Kept>(wide: *mut f32, small: *mut u8, scales: *mut f32, _: u32, n: usize, _: *const f32) {
        // SAFETY: the caller's promise, passed on.
        unsafe {
            find_scales::<T>(wide, small, scales, n);
            blocks::<T>(wide, small, n, |i, wide, small| {
                let scale = if T::SCALED { *scales.add(i) } else { 1.0 };
                if scale > 0.0 { keep_nearest(wide, small, 1.0 / scale) } else { small.fill(T::ZERO) }
            });
        }
    }

    /// # Safety
    /// As for [`Op`].
    pub(super) unsafe fn store<P: Storage<Compute = f32>>(
        wide: *mut f32, small: *mut u8, _: *mut f32, _: u32, n: usize, _: *const f32,
    ) {
        // SAFETY: the caller's promise.
        let (wide, small) = unsafe { slices::<P>(wide, small, n) };
        for (x, p) in wide.iter().zip(small) {
            *p = P::store(*x);
        }
    }
}

/// Scales for all blocks: apart from what they are used for, which would wait for the last comparison of each.
///
/// # Safety
/// As for [`Op`].
#[inline(always)]
unsafe fn find_scales<T: Kept>(wide: *mut f32, small: *mut u8, scales: *mut f32, n: usize) {
    if T::SCALED {
        // SAFETY: the caller's promise, passed on.
        unsafe { blocks::<T>(wide, small, n, |i, wide, _| *scales.add(i) = T::scale(wide)) };
    }
}

#[inline(always)]
fn read<T: Kept>(wide: &mut [f32; CODED], small: &[T; CODED], scale: f32) {
    for k in 0..CODED {
        wide[k] = small[k].read(scale);
    }
}

#[inline(always)]
fn keep_randomly<T: Kept>(wide: &[f32; CODED], small: &mut [T; CODED], inverse: f32, counter: u32, soon: *const f32) {
    for line in (0..CODED).step_by(LINE) {
        fetch(soon.wrapping_add(line));
    }
    let (mut counter, half) = (counter, CODED / 2);
    let (small, more) = small.split_at_mut(half);
    for k in 0..half {
        let (random, other) = bits(counter, T::CUT);
        small[k] = T::keep(wide[k], inverse, random);
        more[k] = T::keep(wide[half + k], inverse, other);
        counter = counter.wrapping_add(STRIDE);
    }
}

/// Numbers in a line of the cache.
const LINE: usize = 16;

#[inline(always)]
fn keep_nearest<T: Kept>(wide: &[f32; CODED], small: &mut [T; CODED], inverse: f32) {
    for k in 0..CODED {
        small[k] = T::nearest(wide[k], inverse);
    }
}

/// Runs `f` over blocks, given with their numbers; the last one, if it is not whole, with zeros behind it.
///
/// # Safety
/// As for [`Op`].
#[inline(always)]
unsafe fn blocks<T: Kept>(
    wide: *mut f32,
    small: *mut u8,
    n: usize,
    mut f: impl FnMut(usize, &mut [f32; CODED], &mut [T; CODED]),
) {
    // SAFETY: the caller's promise.
    let (wide, small) = unsafe { slices::<T>(wide, small, n) };
    let (wide, wide_rest) = wide.as_chunks_mut::<CODED>();
    let (small, small_rest) = small.as_chunks_mut::<CODED>();
    for (i, (wide, small)) in wide.iter_mut().zip(small).enumerate() {
        f(i, wide, small);
    }
    if !wide_rest.is_empty() {
        let (mut whole, mut codes) = ([0.0; CODED], [T::ZERO; CODED]);
        whole[..wide_rest.len()].copy_from_slice(wide_rest);
        codes[..wide_rest.len()].copy_from_slice(small_rest);
        f(wide.len(), &mut whole, &mut codes);
        wide_rest.copy_from_slice(&whole[..wide_rest.len()]);
        small_rest.copy_from_slice(&codes[..wide_rest.len()]);
    }
}

/// # Safety
/// Both must be valid for `n` aligned elements, and not overlap.
#[inline(always)]
unsafe fn slices<'a, T>(wide: *mut f32, small: *mut u8, n: usize) -> (&'a mut [f32], &'a mut [T]) {
    // SAFETY: the caller's promise.
    unsafe { (std::slice::from_raw_parts_mut(wide, n), std::slice::from_raw_parts_mut(small.cast(), n)) }
}
