//! Float64 numbers that the tasks of a parallel region leave for the next: partial sums, and means of rows.

use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers that tasks share. Each task writes places of its own; a later region, or the caller, reads them.
#[derive(Debug, Default)]
pub(crate) struct Numbers(Vec<AtomicU64>);

impl Numbers {
    pub fn resize(&mut self, n: usize) {
        self.0.resize_with(n, AtomicU64::default);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn set(&self, i: usize, x: f64) {
        self.0[i].store(x.to_bits(), Ordering::Relaxed);
    }

    pub fn get(&self, i: usize) -> f64 {
        f64::from_bits(self.0[i].load(Ordering::Relaxed))
    }

    /// The sum in order, which gives it one value; of nothing it is 0, not the -0 that `Iterator::sum` has.
    pub fn sum(&self, range: std::ops::Range<usize>) -> f64 {
        range.fold(0.0, |sum, i| sum + self.get(i))
    }
}

/// The means of one array's rows among those of all arrays.
#[derive(Clone, Copy)]
pub(crate) struct Means<'a> {
    pub all: &'a Numbers,
    pub first: usize,
}

impl Means<'_> {
    pub fn of(self, row: usize) -> f64 {
        self.all.get(self.first + row)
    }
}
