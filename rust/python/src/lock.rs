//! Contexts over several calls: exclusive access to optimizers, and changes that follow a step. Runs no step.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::changes::Changes;
use crate::core::Core;
use crate::inner::{READ_ONLY, this_thread};

/// Exclusive access for this thread, or with ``read_only`` for none: then everybody may read and nobody may change the optimizers.
/// It is a context that starts at construction. It also ends on drop, since an exception may come between any two instructions of
/// Python.
#[pyclass(frozen, module = "schuss._schuss")]
pub struct ExclusiveLock {
    cores: Vec<Py<Core>>,
    over: AtomicBool,
}

#[pymethods]
impl ExclusiveLock {
    /// Raises an exception if one of them is in use.
    #[new]
    #[pyo3(signature = (*cores, read_only=false))]
    pub fn new(cores: Vec<Py<Core>>, read_only: bool) -> PyResult<ExclusiveLock> {
        let mut lock = ExclusiveLock { cores: Vec::with_capacity(cores.len()), over: AtomicBool::new(false) };
        for core in cores {
            core.get().0.hold(if read_only { READ_ONLY } else { this_thread() })?;
            lock.cores.push(core);
        }
        Ok(lock)
    }

    fn __enter__(&self) {}

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, _raised: &Bound<'_, PyTuple>) {
        self.end();
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.traverse(&visit)
    }
}

impl ExclusiveLock {
    /// Visits the optimizers for the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.cores.iter().try_for_each(|core| visit.call(core))
    }

    fn end(&self) {
        if !self.over.swap(true, Ordering::Relaxed) {
            self.cores.iter().for_each(|core| core.get().0.release());
        }
    }
}

impl Drop for ExclusiveLock {
    fn drop(&mut self) {
        self.end();
    }
}

/// Changes that follow an optimizer's next step in this thread, in the same call; also those that wait for a step of `wrapper`,
/// of which that step is a part. It is a context that starts at construction, and also ends on drop. The optimizer's next step
/// takes them, also one that a closure or a user's array makes before the step that is meant.
#[pyclass(frozen, module = "schuss._schuss")]
pub struct AfterStep {
    core: Py<Core>,
    changes: Option<Py<Changes>>,
    /// Those of the wrapper.
    outer: Vec<Py<Changes>>,
    over: AtomicBool,
}

#[pymethods]
impl AfterStep {
    #[new]
    #[pyo3(signature = (core, changes, wrapper=None))]
    fn new(core: Py<Core>, changes: Option<Py<Changes>>, wrapper: Option<Py<Core>>, py: Python<'_>) -> AfterStep {
        let outer = wrapper.map_or_else(Vec::new, |wrapper| wrapper.get().0.waiting.take());
        for one in outer.iter().rev().chain(&changes) {
            core.get().0.waiting.add(one.clone_ref(py));
        }
        AfterStep { core, changes, outer, over: AtomicBool::new(false) }
    }

    fn __enter__(&self) {}

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, _raised: &Bound<'_, PyTuple>) {
        self.end();
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.core)?;
        self.outer.iter().chain(&self.changes).try_for_each(|changes| visit.call(changes))
    }
}

impl AfterStep {
    fn end(&self) {
        if !self.over.swap(true, Ordering::Relaxed) {
            let waiting = &self.core.get().0.waiting;
            self.outer.iter().chain(&self.changes).for_each(|changes| waiting.remove(changes));
        }
    }
}

impl Drop for AfterStep {
    fn drop(&mut self) {
        self.end();
    }
}
