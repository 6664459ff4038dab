//! Memory on the stack for a few elements on their way.

use std::mem::MaybeUninit;

use crate::math::Real;
use crate::norm;

/// Elements that are converted or zeroed at a time: what stays in the first-level cache. A block of [`norm::BLOCK`] is a
/// tile.
pub(crate) const TILE: usize = norm::BLOCK;

/// Memory of one tile, for elements of any type. It is not cleared: a tile is filled before it is read.
pub(crate) struct Tile(MaybeUninit<[f64; TILE]>);

impl Tile {
    pub const fn new() -> Tile {
        Tile(MaybeUninit::uninit())
    }

    pub fn pointer(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }

    /// The first `n` elements, at most `TILE`, as compute type.
    ///
    /// # Safety
    /// They must have been written.
    pub unsafe fn values<C: Real>(&mut self, n: usize) -> &mut [C] {
        // SAFETY: the memory holds TILE elements of eight bytes, is aligned for them, and was written.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), n) }
    }
}
