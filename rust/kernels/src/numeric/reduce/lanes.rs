//! The lanes of a block: its elements are loaded into them in turn, and they are combined in a fixed tree. Knows no level.

use super::BLOCK;
use crate::cpu::{LANES, Lanes, prefetch};
use crate::numeric::{Real, Storage, max};

/// A sum plus a product; if the product is exact, both forms round once to the same number.
#[inline(always)]
pub(crate) fn plus_product<C: Real, const FMA: bool>(sum: f64, a: C, b: C) -> f64 {
    let (a, b) = (a.into(), b.into());
    if FMA && C::SQUARES_EXACTLY { a.mul_add(b, sum) } else { sum + a * b }
}

/// Lanes plus numbers, or their squares.
#[inline(always)]
pub(super) fn plus_loaded<G: Storage, L: Lanes, const SQUARES: bool, const FMA: bool>(lanes: L, x: L) -> L {
    if SQUARES { lanes.plus_product(x, x, FMA && G::Compute::SQUARES_EXACTLY) } else { lanes.plus(x) }
}

/// Adds up the `n` elements of a block.
///
/// # Safety
/// They must be valid for reading, and unless memory `ends` there, as many behind them as fill the lanes; the CPU must have the
/// registers.
#[inline(always)]
pub(super) unsafe fn add<G: Storage, L: Lanes>(block: *const G, n: usize, ends: bool, plus: impl Fn(L, L) -> L) -> f64 {
    let (whole, rest) = (n / LANES * LANES, n % LANES);
    // Sums wait for memory, since they write nothing and too few reads are in flight.
    let prefetch_at = |at: usize| prefetch(block.wrapping_add(at + BLOCK));
    // SAFETY: upheld by the caller.
    unsafe {
        let mut lanes = L::new([0.0; LANES]);
        for at in (0..whole).step_by(LANES) {
            prefetch_at(at);
            lanes = plus(lanes, load(block.add(at)));
        }
        if rest > 0 {
            prefetch_at(whole);
            let copy;
            let mut row = block.add(whole);
            if ends {
                copy = first(row, rest);
                row = copy.as_ptr();
            }
            lanes = plus(lanes, load::<G, L>(row).masked(L::new(FIRST[rest])));
        }
        fold(lanes.numbers())
    }
}

/// As many numbers as there are lanes.
///
/// # Safety
/// They must be valid for reading; the CPU must have the registers.
#[inline(always)]
pub(super) unsafe fn load<G: Storage, L: Lanes>(data: *const G) -> L {
    let mut numbers = [0.0; LANES];
    for (lane, number) in numbers.iter_mut().enumerate() {
        // SAFETY: upheld by the caller.
        *number = unsafe { *data.add(lane) }.load().into();
    }
    // SAFETY: upheld by the caller.
    unsafe { L::new(numbers) }
}

/// A copy of the first `n` numbers, with zeros behind them.
///
/// # Safety
/// They must be valid for reading, and there are at most as many as lanes.
#[inline(never)]
pub(super) unsafe fn first<G: Storage>(data: *const G, n: usize) -> [G; LANES] {
    // SAFETY: upheld by the caller; the bits of a storage type may all be zeros.
    unsafe {
        let mut copy = std::mem::zeroed::<[G; LANES]>();
        copy.as_mut_ptr().copy_from_nonoverlapping(data, n);
        copy
    }
}

/// Masks, by the number of lanes that they keep: all bits of these first lanes, and none of the others.
static FIRST: [[f64; LANES]; LANES] = {
    let mut masks = [[0.0; LANES]; LANES];
    let mut i = 0;
    while i < LANES * LANES {
        let (count, lane) = (i / LANES, i % LANES);
        if lane < count {
            masks[count][lane] = f64::from_bits(u64::MAX);
        }
        i += 1;
    }
    masks
};

/// The sum of a block's lanes, in a fixed tree.
#[inline(always)]
pub(crate) fn fold(lanes: [f64; LANES]) -> f64 {
    tree(lanes, |a, b| a + b)
}

/// The largest of a block's lanes, or NaN; lanes that have no element are minus infinity.
#[inline(always)]
pub(crate) fn largest<C: Real>(lanes: [C; LANES]) -> f64 {
    tree(lanes, max).into()
}

/// Combines lanes in a fixed tree.
#[inline(always)]
fn tree<T: Copy>(mut lanes: [T; LANES], combine: impl Fn(T, T) -> T) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = combine(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}
