//! Keeping optimizers to one thread over several calls.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::core::Core;

/// Holds an optimizer that nobody may change, and everybody read; no thread.
pub const NOBODY: usize = usize::MAX;

/// What tells the threads that are alive apart, never 0.
pub fn this_thread() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| std::ptr::from_ref(mark) as usize)
}

/// Keeps optimizers for this thread, or, for ``nobody``, from all: a context, which they are kept in from when it is made. It
/// also ends when it is dropped, since an interrupt may come between any two instructions of Python.
#[pyclass(frozen, module = "schuss._schuss")]
pub struct Hold {
    cores: Vec<Py<Core>>,
    over: AtomicBool,
}

#[pymethods]
impl Hold {
    /// Raises when something is under way in one of them.
    #[new]
    #[pyo3(signature = (*cores, nobody=false))]
    fn new(cores: Vec<Py<Core>>, nobody: bool) -> PyResult<Hold> {
        let mut hold = Hold { cores: Vec::with_capacity(cores.len()), over: AtomicBool::new(false) };
        for core in cores {
            core.get().hold(if nobody { NOBODY } else { this_thread() })?;
            hold.cores.push(core);
        }
        Ok(hold)
    }

    fn __enter__(&self) {}

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, _raised: &Bound<'_, PyTuple>) {
        self.end();
    }
}

impl Hold {
    fn end(&self) {
        if !self.over.swap(true, Ordering::Relaxed) {
            self.cores.iter().for_each(|core| core.get().release());
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end();
    }
}
