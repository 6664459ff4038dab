//! A step that is taken array by array. Runs no kernel: each array has a native optimizer of its own, over the same memory.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::core::{Core, EVALUATING};
use crate::group::MOST_STEPS;
use crate::inner::{IN_STEP, NO_NORM, in_use};
use crate::memory::{List, no_memory};

/// A step of `owner` that its `arrays` take one by one, each once or not at all: a context that starts at construction. Meanwhile
/// nobody may use the owner. It ends on drop too. If updates still run in other threads, the last of them ends it.
#[pyclass(frozen, module = "schuss._schuss")]
pub struct Stepping {
    owner: Py<Core>,
    arrays: Vec<Py<Core>>,
    /// For each array, whether an update runs or has been taken.
    claimed: Vec<AtomicBool>,
    /// Whether its end has been asked for, and has come.
    closed: AtomicBool,
    over: AtomicBool,
    /// Updates that run, or are about to look whether they may. An update counts itself and then looks whether the step is closed,
    /// which closes before it looks at the count: in one order for all threads, so that one of the two sees the other.
    running: AtomicUsize,
}

#[pymethods]
impl Stepping {
    /// Gives each array's optimizer the step counts that the array has, and the policies of its owner.
    #[new]
    fn new(owner: Bound<'_, Core>, arrays: List<Py<Core>>) -> PyResult<Stepping> {
        let core = &owner.get().0;
        core.hold(IN_STEP)?;
        let mut stepping = Stepping {
            owner: owner.clone().unbind(),
            arrays: arrays.0,
            claimed: Vec::new(),
            closed: AtomicBool::new(false),
            over: AtomicBool::new(false),
            running: AtomicUsize::new(0),
        };
        // Before all that may fail: none of them has taken this step.
        let steps = core.steps.load(Ordering::Relaxed);
        stepping.arrays.iter().for_each(|array| array.get().0.steps.store(steps, Ordering::Relaxed));
        let claimed = stepping.arrays.iter().map(|_| AtomicBool::new(false));
        stepping.claimed = schuss::try_collect(claimed).map_err(no_memory)?;
        if core.evaluating.load(Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err(EVALUATING));
        }
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
        }
        drop(inner);
        Ok(stepping)
    }

    fn __enter__(&self) {}

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, _raised: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.close()
    }

    /// Updates an array; false if it has taken the step already.
    fn update(
        &self,
        py: Python<'_>,
        i: usize,
        gradient: &Bound<'_, PyAny>,
        grad_scale: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        self.running.fetch_add(1, Ordering::SeqCst);
        let updated = if self.closed.load(Ordering::SeqCst) {
            Err(PyRuntimeError::new_err("the step is over; begin the next with opt.stepping()"))
        } else if self.claimed[i].swap(true, Ordering::Acquire) {
            if self.took(&self.arrays[i]) { Ok(false) } else { Err(in_use()) }
        } else {
            let updated = Core::step(self.arrays[i].bind(py), Some(gradient), Some(grad_scale), None, None);
            self.claimed[i].store(updated.is_ok(), Ordering::Release);
            updated.map(|_| true)
        };
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.end().and(updated)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.owner)?;
        self.arrays.iter().try_for_each(|array| visit.call(array))
    }
}

impl Stepping {
    fn took(&self, array: &Py<Core>) -> bool {
        let steps = |core: &Py<Core>| core.get().0.steps.load(Ordering::Relaxed);
        steps(array) > steps(&self.owner)
    }

    /// Takes no more updates.
    fn close(&self) -> PyResult<()> {
        self.closed.store(true, Ordering::SeqCst);
        self.end()
    }

    /// Ends it, if it takes no more updates and none runs.
    fn end(&self) -> PyResult<()> {
        let waits = !self.closed.load(Ordering::SeqCst) || self.running.load(Ordering::SeqCst) > 0;
        if waits || self.over.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let counted = self.count();
        self.owner.get().0.release();
        counted
    }

    /// Counts the step, which is missed by arrays that did not take it. Without any that did, there was none.
    fn count(&self) -> PyResult<()> {
        if !self.arrays.iter().any(|array| self.took(array)) {
            return Ok(());
        }
        let core = &self.owner.get().0;
        let mut inner = core.lock_as_holder()?;
        let missed = inner.missed.iter().zip(&self.arrays);
        let missed = missed.map(|(&missed, array)| MOST_STEPS.min(missed + u64::from(!self.took(array))));
        let sharing = inner.sharing(missed)?;
        inner.group_steps.iter_mut().for_each(|steps| *steps = MOST_STEPS.min(*steps + 1));
        inner.share(sharing);
        core.steps.store(MOST_STEPS.min(core.steps.load(Ordering::Relaxed) + 1), Ordering::Relaxed);
        core.norm.store(NO_NORM, Ordering::Relaxed);
        core.bound.store(NO_NORM, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Stepping {
    fn drop(&mut self) {
        let _ = self.close();
    }
}
