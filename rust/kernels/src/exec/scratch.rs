//! Scratch memory that the tasks of parallel regions share: partial results, scalars and vectors of arrays. Knows no layout.

use std::cell::UnsafeCell;
use std::collections::TryReserveError;

/// Float64 numbers, or vectors of float32, in one block. Each task writes its own entries; a later region, or the caller, reads
/// them.
#[derive(Default)]
pub(crate) struct Scratch(Vec<UnsafeCell<f64>>);

// SAFETY: writers guarantee that nobody else uses the entry at the same time; regions order writes before later reads.
unsafe impl Sync for Scratch {}

impl Scratch {
    /// Grows it to at least this length; entries keep their index, but may move in memory.
    pub fn grow(&mut self, len: usize) -> Result<(), TryReserveError> {
        if len > self.0.len() {
            self.0.try_reserve_exact(len - self.0.len())?;
            self.0.resize_with(len, UnsafeCell::default);
        }
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
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
    /// Nobody else may access the entry during the call.
    pub unsafe fn set(&self, place: usize, x: f64) {
        debug_assert!(place < self.0.len());
        // SAFETY: upheld by the caller; the entry is within the block.
        unsafe { *self.at(place) = x };
    }

    /// # Safety
    /// Nobody may write the entry during the call.
    pub unsafe fn get(&self, place: usize) -> f64 {
        debug_assert!(place < self.0.len());
        // SAFETY: upheld by the caller; the entry is within the block.
        unsafe { *self.at(place) }
    }

    /// # Safety
    /// Nobody else may access these entries while the slice is in use.
    #[allow(clippy::mut_from_ref)] // guaranteed by the caller
    pub unsafe fn slice(&self, place: usize, len: usize) -> &mut [f64] {
        debug_assert!(place + len <= self.0.len());
        // SAFETY: upheld by the caller; the entries are within the block.
        unsafe { std::slice::from_raw_parts_mut(self.at(place), len) }
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scratch({})", self.0.len())
    }
}
