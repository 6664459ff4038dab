//! A step that is taken array by array. Runs no kernel: each array has a native optimizer of its own, over the same memory.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::core::Core;
use crate::group::MOST_STEPS;
use crate::inner::{NO_NORM, READ_ONLY};
use crate::memory::List;

/// A step of `owner` that its `arrays` take one by one, each once or not at all: a context that starts at construction. Meanwhile
/// nobody may change the owner. It ends on drop too.
#[pyclass(frozen, module = "schuss._schuss")]
pub struct Stepping {
    owner: Py<Core>,
    arrays: Vec<Py<Core>>,
    over: AtomicBool,
}

#[pymethods]
impl Stepping {
    /// Gives each array's optimizer the step counts that the array has, and the policies of its owner.
    #[new]
    fn new(owner: Bound<'_, Core>, arrays: List<Py<Core>>) -> PyResult<Stepping> {
        let core = &owner.get().0;
        core.hold(READ_ONLY)?;
        let stepping = Stepping { owner: owner.clone().unbind(), arrays: arrays.0, over: AtomicBool::new(false) };
        let inner = core.lock_as_holder()?;
        if stepping.arrays.len() != inner.params.len() {
            return Err(PyRuntimeError::new_err("a step array by array needs an optimizer for each of them"));
        }
        for (i, array) in stepping.arrays.iter().enumerate() {
            let array = &array.get().0;
            let mut own = array.lock()?;
            let steps = inner.group_steps[inner.entries[inner.sets.entry_of[i]].group];
            own.group_steps.fill(steps.saturating_sub(inner.missed[i]));
            (own.nonfinite, own.seed, own.first) = (inner.nonfinite, inner.seed, i);
            array.steps.store(core.steps.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        drop(inner);
        Ok(stepping)
    }

    fn __enter__(&self) {}

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, _raised: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.end()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.owner)?;
        self.arrays.iter().try_for_each(|array| visit.call(array))
    }
}

impl Stepping {
    /// Counts the step, which is missed by arrays that did not take it. Without any that did, there was none.
    fn end(&self) -> PyResult<()> {
        if self.over.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let core = &self.owner.get().0;
        let counted = self.count();
        core.release();
        counted
    }

    fn count(&self) -> PyResult<()> {
        let core = &self.owner.get().0;
        let steps = core.steps.load(Ordering::Relaxed);
        let took = |array: &Py<Core>| array.get().0.steps.load(Ordering::Relaxed) > steps;
        if !self.arrays.iter().any(took) {
            return Ok(());
        }
        let mut inner = core.lock_as_holder()?;
        let missed = inner.missed.iter().zip(&self.arrays);
        let missed = missed.map(|(&missed, array)| MOST_STEPS.min(missed + u64::from(!took(array))));
        let sharing = inner.sharing(missed)?;
        inner.group_steps.iter_mut().for_each(|steps| *steps = MOST_STEPS.min(*steps + 1));
        inner.share(sharing);
        core.steps.store(MOST_STEPS.min(steps + 1), Ordering::Relaxed);
        core.norm.store(NO_NORM, Ordering::Relaxed);
        core.bound.store(NO_NORM, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Stepping {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
