//! The base class of the Python optimizers: what Python reads, sets and calls. Takes no step by itself, and words no error about
//! arrays.

use std::sync::atomic::Ordering;

use numpy::PyUntypedArray;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::arrangement::Arrangement;
use crate::callbacks;
use crate::changes::Changes;
use crate::fingerprint::fingerprint;
use crate::gradients;
use crate::group::{MOST_STEPS, level_and_threads};
use crate::inner::{Locked, NO_NORM, Nonfinite};
use crate::memory::{List, collect, no_memory};
use crate::options::{plain_flag, plain_scale};
use crate::pinned::Pinned;
use crate::rows::Given;
use crate::step::scheduled_values;
use crate::step::{self, StepArguments, StepResult, Then, add_gradients, fill_scalars, restore_gradients, run};
use crate::tree;

/// The message where a step cannot start.
pub const EVALUATING: &str = "the parameters are those for evaluation; call train() before the next step";

/// Base class of the Python optimizers.
#[pyclass(subclass, frozen, module = "schuss._schuss")]
pub struct Core(pub Locked);

/// Steps taken, steps skipped, the steps of each group, and how many of them each array has missed.
type Counters<L> = (u64, u64, L, L);

#[pymethods]
impl Core {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Core> {
        level_and_threads()?;
        Ok(Core(Locked::new()))
    }

    /// Steps taken.
    #[getter]
    fn step_count(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }

    /// Steps skipped because a gradient was not finite.
    #[getter]
    fn skipped_steps(&self) -> u64 {
        self.0.skipped.load(Ordering::Relaxed)
    }

    /// The global norm of the last step's gradients, after division by ``grad_scale`` and before clipping, and its bound; each is
    /// None if there was none. A skipped step has no bound.
    #[getter]
    fn _norms(&self) -> (Option<f64>, Option<f64>) {
        let known = |bits: u64| (bits != NO_NORM).then_some(f64::from_bits(bits));
        (known(self.0.norm.load(Ordering::Relaxed)), known(self.0.bound.load(Ordering::Relaxed)))
    }

    /// The bound on the global gradient norm, whether it is measured in any case, and what a step does about NaN and infinities.
    #[getter]
    fn _limits(&self) -> PyResult<(Option<f64>, bool, &'static str)> {
        let inner = self.0.lock_to_read()?;
        Ok((inner.max_grad_norm, inner.track_norm, inner.nonfinite.name()))
    }

    #[setter(_limits)]
    fn set_limits(&self, limits: (Option<f64>, bool, String)) -> PyResult<()> {
        let mut inner = self.0.lock()?;
        (inner.max_grad_norm, inner.track_norm, inner.nonfinite) = (limits.0, limits.1, Nonfinite::named(&limits.2));
        Ok(())
    }

    /// The seed for stochastic rounding of quantized states; None rounds to nearest.
    #[getter]
    fn _rounding_seed(&self) -> PyResult<Option<u64>> {
        Ok(self.0.lock_to_read()?.seed)
    }

    #[setter(_rounding_seed)]
    fn set_rounding_seed(&self, seed: Option<u64>) -> PyResult<()> {
        self.0.lock()?.seed = seed;
        Ok(())
    }

    /// Sets the backend that runs steps of arrays that are not in host memory.
    fn _set_backend(&self, backend: Option<Py<PyAny>>) -> PyResult<()> {
        let before = std::mem::replace(&mut self.0.lock()?.backend, backend);
        drop(before);
        Ok(())
    }

    /// Steps taken, steps skipped, the steps of each group, and how many of them each array has missed: none if this is empty.
    #[getter]
    fn _counters<'py>(&self, py: Python<'py>) -> PyResult<Counters<Bound<'py, PyList>>> {
        let inner = self.0.lock_to_read()?;
        let counts = (self.step_count(), self.skipped_steps());
        let copied = |counts: &[u64]| schuss::try_collect(counts.iter().copied()).map_err(no_memory);
        let (groups, mut missed) = (copied(&inner.group_steps)?, copied(&inner.missed)?);
        drop(inner); // first: with a list the garbage collector may come, and run any code
        if missed.iter().all(|&missed| missed == 0) {
            missed.clear();
        }
        let list = |counts: Vec<u64>| {
            let list = PyList::empty(py);
            counts.into_iter().try_for_each(|steps| list.append(steps)).map(|()| list)
        };
        Ok((counts.0, counts.1, list(groups)?, list(missed)?))
    }

    #[setter(_counters)]
    fn set_counters(&self, counters: Counters<List<u64>>) -> PyResult<()> {
        let mut inner = self.0.lock()?;
        let (steps, skipped, groups, missed) = counters;
        let of_arrays = (0..inner.params.len()).map(|i| missed.0.get(i).copied().unwrap_or(0));
        let sharing = inner.sharing(of_arrays)?;
        self.0.steps.store(MOST_STEPS.min(steps), Ordering::Relaxed);
        self.0.skipped.store(MOST_STEPS.min(skipped), Ordering::Relaxed);
        for (own, steps) in inner.group_steps.iter_mut().zip(groups.0) {
            *own = MOST_STEPS.min(steps);
        }
        inner.share(sharing);
        Ok(())
    }

    /// Replaces the arrays by ones that begin with the present ones; groups keep their step counts. It can only be set.
    #[setter(_arrangement)]
    fn set_arrangement(&self, arrangement: &Bound<'_, Arrangement>) -> PyResult<()> {
        let mut inner = self.0.lock()?;
        if inner.look_ahead.as_ref().is_some_and(|look_ahead| look_ahead.moved) {
            return Err(PyRuntimeError::new_err("the parameters are at their look-ahead point"));
        }
        let taken = arrangement.get().take();
        let mut new = taken.ok_or_else(|| PyRuntimeError::new_err("these arrays are in use already"))?;
        for (new, old) in new.group_steps.iter_mut().zip(&inner.group_steps) {
            *new = *old;
        }
        (new.max_grad_norm, new.track_norm) = (inner.max_grad_norm, inner.track_norm);
        (new.nonfinite, new.seed) = (inner.nonfinite, inner.seed);
        new.backend = inner.backend.take();
        new.reserved = std::mem::take(&mut inner.reserved);
        new.given = std::mem::take(&mut inner.given);
        std::mem::swap(&mut *inner, &mut new);
        drop(inner);
        drop(new); // after the lock, since dropping Python objects may run any code
        Ok(())
    }

    /// Adds arrays that a wrapper around the optimizer writes. It can only be set.
    #[setter(_reserved)]
    fn set_reserved(&self, arrays: List<Bound<'_, PyUntypedArray>>) -> PyResult<()> {
        let mut inner = self.0.lock_as_holder()?;
        let mut new = collect(arrays.0.iter().map(|array| Ok(Pinned::readable(array)?.bytes())))?;
        new.retain(|range| range.0 < range.1);
        inner.reserved.try_reserve(new.len()).map_err(no_memory)?;
        inner.reserved.append(&mut new);
        inner.reserved.sort_unstable();
        // Those of wrappers that are gone may lie within others: each then ends where the last before it does, as `overlaps` needs.
        let mut end = 0;
        for range in &mut inner.reserved {
            end = end.max(range.1);
            range.1 = end;
        }
        inner.reserved.dedup();
        inner.verified.fill(None);
        Ok(())
    }

    /// Whether everybody may read the optimizer and nobody may change it, as while it shows other values.
    #[getter]
    fn _read_only(&self) -> bool {
        self.0.is_read_only()
    }

    /// Whether changes wait for a step.
    #[getter]
    fn _awaited(&self) -> bool {
        self.0.waiting.any()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.traverse(&visit)
    }

    fn __clear__(&self) {
        self.0.clear();
    }

    /// Lists and dicts that parameters were given in, and what each has: None for what is no array. It can only be set.
    #[setter(_given)]
    fn set_given(&self, containers: List<tree::Container>) -> PyResult<()> {
        let before = std::mem::replace(&mut self.0.lock()?.given, tree::Given::new(containers.0));
        drop(before);
        Ok(())
    }

    /// What the parameters are: "train" for steps, "eval" for evaluation.
    #[getter]
    fn _mode(&self) -> &'static str {
        if self.0.evaluating.load(Ordering::Relaxed) { "eval" } else { "train" }
    }

    #[setter(_mode)]
    fn set_mode(&self, mode: &str) -> PyResult<()> {
        let _inner = self.0.lock()?;
        self.0.evaluating.store(mode == "eval", Ordering::Relaxed);
        Ok(())
    }

    /// Runs another program than the step, over arrays in the place of gradients if it needs any, and makes changes after it. On
    /// an error nothing has changed.
    #[pyo3(signature = (program, arrays, changes))]
    fn _run(
        slf: &Bound<'_, Self>,
        program: &str,
        arrays: Option<&Bound<'_, PyAny>>,
        changes: &Bound<'_, Changes>,
    ) -> PyResult<()> {
        let (py, core) = (slf.py(), &slf.get().0);
        let mut guard = core.lock()?;
        let inner = &mut *guard;
        let steps = core.steps.load(Ordering::Relaxed);
        let scheduled = scheduled_values(slf.as_any(), &inner.entries, steps)?;
        restore_gradients(inner);
        let read = gradients::read(slf.as_any(), inner, arrays, false, false, false)?;
        changes.get().check(py)?;
        if let Some(shards) = inner.shards.as_ref().map(|shards| shards.clone_ref(py)) {
            if arrays.is_some() {
                shards.get().check_sums()?;
            }
            shards.get().agree(py, fingerprint(py, inner, program, steps, scheduled.as_deref(), 1.0))?;
            if arrays.is_some() {
                add_gradients(py, inner, shards.get())?;
                shards.get().average(); // the program may read what it is given unscaled
            }
        }
        let lead = fill_scalars(py, inner, scheduled.as_deref(), 1.0);
        run(py, inner, (program, false), Then::Followers(Vec::new()), steps, false, lead)?;
        let _changing = core.changing(&guard);
        drop(guard);
        let old = changes.get().make_checked(py)?;
        // Only now: both may run any code.
        drop((old, read.release(py)));
        Ok(())
    }

    /// Takes a step with gradients of whole arrays and of rows; `grads` has None for all others.
    fn _step_rows(
        slf: &Bound<'_, Self>,
        grads: &Bound<'_, PyAny>,
        rows: List<Given<'_>>,
        grad_scale: f64,
        partial: bool,
    ) -> PyResult<bool> {
        let core = &slf.get().0;
        let mut inner = core.lock()?;
        if core.evaluating.load(Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err(EVALUATING));
        }
        if inner.backend.is_some() {
            return Err(PyRuntimeError::new_err("steps over rows are for arrays in host memory"));
        }
        let arguments =
            StepArguments { grads: Some(grads), rows: &rows.0, grad_scale, partial, ..StepArguments::default() };
        Ok(step::take(slf.as_any(), core, &mut inner, arguments)?.taken)
    }

    /// Raises an exception if the optimizer is in use.
    fn _check_idle(&self) -> PyResult<()> {
        self.0.lock_idle().map(|_| ())
    }

    /// How many calls may have changed the optimizer; raises an exception if it is in use.
    #[getter]
    fn _changes(&self) -> PyResult<u64> {
        self.0.changes()
    }

    /// The numbers of the arrays that had a gradient in the last step, or None if all had one.
    #[getter]
    fn _present<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        let work = &self.0.lock_to_read()?.work;
        if !work.any_absent() {
            return Ok(None);
        }
        let present = PyList::empty(py);
        (0..work.len()).filter(|&i| !work.is_absent(i)).try_for_each(|i| present.append(i))?;
        Ok(Some(present))
    }

    /// The number of the first parameter that has changed, if any.
    fn _changed_param(&self, py: Python<'_>) -> PyResult<Option<usize>> {
        Ok(self.0.lock_to_read()?.changed_param(py))
    }

    /// Takes one step: updates every parameter in place.
    ///
    /// Everything is checked before anything is written; on an error nothing has changed. Long steps release the GIL.
    ///
    /// Parameters
    /// ----------
    /// grads : structure of arrays, optional
    ///     Gradients in the structure of the parameters (with groups: a list of one structure a group), of any
    ///     floating-point dtype, strides and byte order; ``opt.grads`` by default. None in the place of an array, or of a part
    ///     of the structure, leaves it and its state alone: no weight decay, and its bias correction does not count the step.
    /// grad_scale : float, default 1.0
    ///     What gradients are divided by first, finite and > 0.
    /// zero_grads : bool, default False
    ///     Set the gradients to zero after use, also when they cause the step to be skipped.
    /// partial : bool, default False
    ///     Whether dicts may lack keys; what is missing is as None.
    ///
    /// Returns
    /// -------
    /// bool
    ///     Whether the step was taken; it is not when ``nonfinite="skip"`` and a gradient has a NaN or an infinity.
    ///
    /// Raises
    /// ------
    /// TypeError, ValueError
    ///     Gradients do not fit; the message names the array by its place and says what to do.
    /// FloatingPointError
    ///     A gradient has a NaN or an infinity and ``nonfinite="error"``.
    /// RuntimeError
    ///     The optimizer is in the middle of a step, or of being saved or loaded, in another thread.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np, schuss
    /// >>> w = np.array([1.0, 2.0])
    /// >>> opt = schuss.SGD(w, lr=0.5)
    /// >>> opt.step(np.array([2.0, 4.0]), grad_scale=2.0)
    /// True
    /// >>> w
    /// array([0.5, 1. ])
    #[pyo3(
        signature = (grads=None, *, grad_scale=None, zero_grads=None, partial=None),
        text_signature = "($self, grads=None, *, grad_scale=1.0, zero_grads=False, partial=False)"
    )]
    pub fn step(
        slf: &Bound<'_, Self>,
        grads: Option<&Bound<'_, PyAny>>,
        grad_scale: Option<&Bound<'_, PyAny>>,
        zero_grads: Option<&Bound<'_, PyAny>>,
        partial: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let optimizer = slf.as_any();
        let core = &slf.get().0;
        let mut guard = core.lock()?;
        if core.evaluating.load(Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err(EVALUATING));
        }
        if let Some(backend) = &guard.backend {
            let backend = backend.bind(slf.py()).clone();
            drop(guard);
            return callbacks::backend_step(&backend, optimizer, grads, grad_scale, zero_grads, partial);
        }
        let waiting = core.waiting.take();
        let inner = &mut *guard;
        let options = match (plain_scale(grad_scale), plain_flag(zero_grads), plain_flag(partial)) {
            (Some(grad_scale), Some(zero_grads), Some(partial)) => (grad_scale, zero_grads, partial),
            _ => callbacks::step_options(optimizer, grad_scale, zero_grads, partial)?,
        };
        let own = match grads {
            None => Some(callbacks::own_grads(optimizer)?),
            // Worth a look where a step over the optimizer's own is much quicker.
            Some(grads) if inner.block.is_some() && callbacks::are_own(optimizer, grads)? => Some(grads.clone()),
            _ => None,
        };
        let (grad_scale, zero_grads, partial) = options;
        let (grads, own) = (own.as_ref().or(grads), own.is_some());
        let arguments = StepArguments { grads, own, grad_scale, zero_grads, partial, waiting: &waiting, rows: &[] };
        let mut old = Vec::new();
        old.try_reserve_exact(waiting.len()).map_err(no_memory)?;
        let StepResult { taken, left } = step::take(optimizer, core, inner, arguments)?;
        let Some((read, products)) = left else { return Ok(taken) };
        let _changing = core.changing(&guard);
        drop(guard);
        for changes in waiting.iter().map(Py::get).filter(|changes| taken || changes.if_skipped) {
            old.push(changes.make_checked(slf.py())?);
        }
        drop((old, products, read.release(slf.py())));
        Ok(taken)
    }
}
