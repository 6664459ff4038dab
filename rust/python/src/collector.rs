//! Python's garbage collector, which runs finalizers and callbacks, and so any code. Knows no optimizer.

use std::sync::{Mutex, PoisonError};

use pyo3::ffi;
use pyo3::prelude::*;

/// How many threads keep the collector from running, and whether it was on before.
static PAUSED: Mutex<(usize, bool)> = Mutex::new((0, false));

/// Keeps the collector from running by itself as long as this lives: between a check of arrays and what relies on it.
pub struct Paused(());

impl Paused {
    pub fn new(_py: Python<'_>) -> Paused {
        let mut paused = PAUSED.lock().unwrap_or_else(PoisonError::into_inner);
        if paused.0 == 0 {
            // SAFETY: the thread is attached.
            paused.1 = unsafe { ffi::PyGC_Disable() } != 0;
        }
        paused.0 += 1;
        Paused(())
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let mut paused = PAUSED.lock().unwrap_or_else(PoisonError::into_inner);
        paused.0 -= 1;
        if *paused == (0, true) {
            // SAFETY: where it was made the thread was attached, and it is not sent to another.
            unsafe { ffi::PyGC_Enable() };
        }
    }
}
