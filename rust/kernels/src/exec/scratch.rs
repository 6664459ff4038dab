//! Memory that the tasks of parallel regions share: partial results, scalars and vectors of arrays.

use std::cell::UnsafeCell;

/// Float64 numbers, or vectors of float32, in one block. Each task writes places of its own; a later region, or the caller,
/// reads them.
#[derive(Default)]
pub(crate) struct Scratch(Vec<UnsafeCell<f64>>);

// SAFETY: whoever writes promises that nobody else uses the place meanwhile; regions order writes before later reads.
unsafe impl Sync for Scratch {}

impl Scratch {
    /// Makes it at least so long; what was there stays at its place, but may move in memory.
    pub fn grow(&mut self, len: usize) {
        if len > self.0.len() {
            self.0.resize_with(len, UnsafeCell::default);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The numbers from a place on.
    pub fn at(&self, place: usize) -> *mut f64 {
        UnsafeCell::raw_get(self.0.as_ptr().wrapping_add(place))
    }

    /// # Safety
    /// Nobody may use the place meanwhile.
    pub unsafe fn set(&self, place: usize, x: f64) {
        debug_assert!(place < self.0.len());
        // SAFETY: the caller's promise; the place is within the block.
        unsafe { *self.at(place) = x };
    }

    /// # Safety
    /// Nobody may write the place meanwhile.
    pub unsafe fn get(&self, place: usize) -> f64 {
        debug_assert!(place < self.0.len());
        // SAFETY: the caller's promise; the place is within the block.
        unsafe { *self.at(place) }
    }

    /// # Safety
    /// Nobody else may use these places meanwhile.
    #[allow(clippy::mut_from_ref)] // as the caller promises
    pub unsafe fn slice(&self, place: usize, len: usize) -> &mut [f64] {
        debug_assert!(place + len <= self.0.len());
        // SAFETY: the caller's promise; the places are within the block.
        unsafe { std::slice::from_raw_parts_mut(self.at(place), len) }
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scratch({})", self.0.len())
    }
}
