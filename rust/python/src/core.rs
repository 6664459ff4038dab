//! The optimizer's core: pinned arrays, a work list, and the step.
//!
//! A step first asks the schedules, then looks at everything that can be wrong, then reads the gradients if clipping or
//! the non-finite check needs it, and only then writes. Python holds hyperparameters in one float64 array a group, laid
//! out as [`GroupValues`] reads it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

use numpy::{PyArray1, PyArrayMethods, PyUntypedArray};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use schuss::rule::Scalars;
use schuss::{After, Dtype, Noise, Rule, Step, WorkList, level};

use crate::arrays::Pinned;
use crate::gradients::{self, explain};
use crate::group::{GroupValues, Keeping, RELEASE_GIL, detach_if, find_rule, segment};
use crate::hold::{NOBODY, this_thread};
use crate::tree::Tree;
use crate::usual::{usual_flag, usual_scale};

struct Group {
    rule: &'static Rule,
    values: Py<PyArray1<f64>>,
    steps: u64,
}

impl Group {
    fn values(&self, py: Python<'_>) -> GroupValues<'_> {
        // SAFETY: Python makes this array, contiguous and float64, writes to it under the GIL only, which is held, and
        // never resizes it.
        GroupValues(unsafe {
            let values = self.values.bind(py);
            std::slice::from_raw_parts(values.data(), values.len().unwrap_or(0))
        })
    }
}

/// What a step does about NaN and infinities in gradients.
#[derive(Clone, Copy, PartialEq)]
enum Nonfinite {
    Propagate,
    Skip,
    Error,
}

pub struct Inner {
    groups: Vec<Group>,
    pub params: Vec<Pinned>,
    /// Kept alive for their pointers in the work list.
    states: Vec<Pinned>,
    pub work: WorkList,
    pub tree: Tree,
    /// Whether there is a rule that reads gradients; without one a step takes none.
    reads_gradients: bool,
    /// What a step writes, sorted: byte ranges that gradients must stay clear of.
    written: Vec<(usize, usize)>,
    /// Gradients that were found clear of it, and are in the work list.
    pub clear: Vec<Option<(usize, Dtype)>>,
    /// Kept alive for the copies of parameters that steps make or take back there.
    pub aside: Option<Py<PyArray1<u8>>>,
    /// Where a step's gradients are kept; empty between steps.
    pub room: Vec<Py<PyAny>>,
    max_grad_norm: Option<f64>,
    nonfinite: Nonfinite,
    /// Of the stochastic rounding of small states; without one they are rounded to nearest.
    seed: Option<u64>,
    scalars: Vec<Scalars>,
}

impl Inner {
    pub fn overlaps(&self, grad: *mut u8, bytes: usize) -> bool {
        let (start, end) = (grad as usize, grad as usize + bytes);
        let before = self.written.partition_point(|range| range.0 < end);
        before > 0 && self.written[before - 1].1 > start
    }
}

/// Base class of the Python optimizers.
#[pyclass(subclass, frozen, module = "schuss._schuss")]
pub struct Core {
    inner: Mutex<Inner>,
    /// The thread that has the optimizer to itself over several calls; 0 is none.
    holder: AtomicUsize,
    // Beside the lock, so that a schedule may read them while a step runs.
    steps: AtomicU64,
    skipped: AtomicU64,
    /// The bits of the last step's norm; NaN bits of `u64::MAX` stand for none.
    norm: AtomicU64,
}

const NO_NORM: u64 = u64::MAX;

impl Core {
    /// Everything but the counters, for a thread that may have it now.
    pub fn lock(&self) -> PyResult<MutexGuard<'_, Inner>> {
        self.lock_unless(|holder| holder != 0 && holder != this_thread())
    }

    /// The same for what those do who hold it, from whichever thread.
    pub fn lock_as_holder(&self) -> PyResult<MutexGuard<'_, Inner>> {
        self.lock_unless(|_| false)
    }

    /// Keeps it for who this is, until [`Core::release`].
    pub fn hold(&self, holder: usize) -> PyResult<()> {
        let _inner = self.lock_unless(|holder| holder != 0)?;
        self.holder.store(holder, Ordering::Relaxed);
        Ok(())
    }

    pub fn release(&self) {
        self.holder.store(0, Ordering::Relaxed);
    }

    fn lock_unless(&self, taken: impl Fn(usize) -> bool) -> PyResult<MutexGuard<'_, Inner>> {
        let inner = match self.inner.try_lock() {
            Ok(inner) => Some(inner),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        // Looked at behind the lock, under which a holder comes.
        inner.filter(|_| !taken(self.holder.load(Ordering::Relaxed))).ok_or_else(|| {
            PyRuntimeError::new_err(
                "this optimizer is in the middle of a step, or of being saved or loaded (in another thread, or around \
                 this call); use it from one place at a time",
            )
        })
    }
}

#[pymethods]
impl Core {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Core {
        Core {
            inner: Mutex::new(Inner {
                groups: Vec::new(),
                params: Vec::new(),
                states: Vec::new(),
                work: WorkList::default(),
                tree: Tree::Sequence(Vec::new()),
                reads_gradients: false,
                written: Vec::new(),
                clear: Vec::new(),
                aside: None,
                room: Vec::new(),
                max_grad_norm: None,
                nonfinite: Nonfinite::Propagate,
                seed: None,
                scalars: Vec::new(),
            }),
            holder: AtomicUsize::new(0),
            steps: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            norm: AtomicU64::new(NO_NORM),
        }
    }

    /// Steps taken.
    #[getter]
    fn step_count(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Steps not taken because a gradient was not finite.
    #[getter]
    fn skipped_steps(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// The global norm of the last step's gradients, after division by ``grad_scale`` and before clipping; None unless
    /// ``max_grad_norm`` is set.
    #[getter]
    fn grad_norm(&self) -> Option<f64> {
        let bits = self.norm.load(Ordering::Relaxed);
        (bits != NO_NORM).then_some(f64::from_bits(bits))
    }

    fn _configure(&self, max_grad_norm: Option<f64>, nonfinite: &str) -> PyResult<()> {
        let mut inner = self.lock()?;
        inner.nonfinite = match nonfinite {
            "skip" => Nonfinite::Skip,
            "error" => Nonfinite::Error,
            _ => Nonfinite::Propagate,
        };
        inner.max_grad_norm = max_grad_norm;
        Ok(())
    }

    /// Sets the seed of small states' stochastic rounding, or rounding to nearest.
    fn _set_seed(&self, seed: Option<u64>) -> PyResult<()> {
        self.lock()?.seed = seed;
        Ok(())
    }

    /// Adds a group: arrays that Python has checked, each with its states, and a master copy behind them if it has one.
    #[allow(clippy::too_many_arguments)] // what a group is, spelled out by the one caller
    fn _add_group(
        &self,
        rule: &str,
        values: Bound<'_, PyArray1<f64>>,
        params: Vec<Bound<'_, PyUntypedArray>>,
        states: Vec<Vec<Bound<'_, PyUntypedArray>>>,
        center: Vec<bool>,
        tree: &Bound<'_, PyAny>,
        state_dtype: Option<&str>,
        master: bool,
    ) -> PyResult<()> {
        let keeping = Keeping::new(state_dtype, master)?;
        let mut inner = self.lock()?;
        let inner = &mut *inner;
        let rule = find_rule(rule, values.len()?)?;
        let tree = Tree::new(tree)?;
        let params = params.iter().map(Pinned::new).collect::<PyResult<Vec<_>>>()?;
        let states = states
            .iter()
            .map(|own| own.iter().map(Pinned::new).collect::<PyResult<Vec<_>>>())
            .collect::<PyResult<Vec<_>>>()?;
        let segments = params
            .iter()
            .zip(&states)
            .zip(center)
            .map(|((param, states), center)| {
                let rows = if center { param.rows() } else { 0 };
                segment(rule, inner.groups.len(), param, states, keeping, rows)
            })
            .collect::<PyResult<Vec<_>>>()?;
        inner.groups.push(Group { rule, values: values.unbind(), steps: 0 });
        inner.work.extend(segments);
        inner.params.extend(params);
        inner.states.extend(states.into_iter().flatten());
        inner.tree = tree;
        inner.reads_gradients |= rule.reads_gradient || rule.layer.is_some();
        inner.written = inner.params.iter().chain(&inner.states).map(Pinned::bytes).filter(|r| r.0 < r.1).collect();
        inner.written.sort_unstable();
        inner.clear = vec![None; inner.params.len()];
        Ok(())
    }

    /// Steps taken, steps skipped, and the steps of each group.
    fn _counters(&self) -> PyResult<(u64, u64, Vec<u64>)> {
        let inner = self.lock_unless(|holder| ![0, NOBODY, this_thread()].contains(&holder))?;
        Ok((self.step_count(), self.skipped_steps(), inner.groups.iter().map(|group| group.steps).collect()))
    }

    fn _set_counters(&self, steps: u64, skipped: u64, groups: Vec<u64>) -> PyResult<()> {
        let mut inner = self.lock()?;
        self.steps.store(steps, Ordering::Relaxed);
        self.skipped.store(skipped, Ordering::Relaxed);
        for (group, steps) in inner.groups.iter_mut().zip(groups) {
            group.steps = steps;
        }
        Ok(())
    }

    /// Whether nothing is under way; raises otherwise.
    fn _check_idle(&self) -> PyResult<()> {
        self.lock_unless(|holder| holder != 0).map(|_| ())
    }

    /// Takes one step: updates every parameter in place.
    ///
    /// Everything is checked before anything is written; on an error nothing has changed. Long steps release the GIL.
    ///
    /// Parameters
    /// ----------
    /// grads : structure of arrays, optional
    ///     Gradients in the structure of the parameters (with groups: a list of one structure a group), of any
    ///     floating-point dtype, strides and byte order; ``opt.grads`` by default.
    /// grad_scale : float, default 1.0
    ///     What gradients are divided by first, finite and > 0.
    /// zero_grads : bool, default False
    ///     Set the gradients to zero once they have been used, or were the reason to skip the step.
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
        signature = (grads=None, *, grad_scale=None, zero_grads=None),
        text_signature = "($self, grads=None, *, grad_scale=1.0, zero_grads=False)"
    )]
    fn step(
        slf: &Bound<'_, Self>,
        grads: Option<&Bound<'_, PyAny>>,
        grad_scale: Option<&Bound<'_, PyAny>>,
        zero_grads: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let py = slf.py();
        let core = slf.get();
        let mut inner = core.lock()?;
        let inner = &mut *inner;
        let (grad_scale, zero_grads) = match (usual_scale(grad_scale), usual_flag(zero_grads)) {
            (Some(grad_scale), Some(zero_grads)) => (grad_scale, zero_grads),
            _ => slf.call_method1("_step_options", (grad_scale, zero_grads))?.extract()?,
        };
        let own;
        let grads = match grads {
            None if inner.reads_gradients => {
                own = slf.call_method0("_own_grads")?;
                Some(&own)
            }
            _ => grads,
        };
        let scheduled: Option<Vec<Vec<f64>>> = if inner.groups.iter().any(|group| group.values(py).scheduled()) {
            Some(slf.call_method1("_scheduled_values", (core.step_count(),))?.extract()?)
        } else {
            None
        };
        let release = inner.work.total() >= RELEASE_GIL;
        let read = gradients::read(slf, inner, grads, zero_grads)?;
        // Nothing below runs foreign Python code, so what was found stays true.
        let level = level::in_use().map_err(PyRuntimeError::new_err)?;
        let threads = schuss::num_threads().map_err(PyRuntimeError::new_err)?;
        let mut factor = schuss::unscale_factor(grad_scale);
        let mut norm = NO_NORM;
        if inner.max_grad_norm.is_some() || inner.nonfinite != Nonfinite::Propagate {
            let work = &inner.work;
            // SAFETY: the gradients were just checked, and are kept alive; the level is this CPU's.
            let sum = detach_if(py, release, || unsafe { work.sum_of_squares(level, threads) });
            if inner.nonfinite != Nonfinite::Propagate && !sum.is_finite() {
                // SAFETY: as above. A finite float64 may have an infinite square, so look before judging.
                if let Some((i, at)) = unsafe { inner.work.first_nonfinite() } {
                    if inner.nonfinite == Nonfinite::Error {
                        return Err(explain(slf, "_explain_nonfinite", (i, at)));
                    }
                    core.skipped.fetch_add(1, Ordering::Relaxed);
                    if zero_grads {
                        // SAFETY: as for the step below, which this stands in for.
                        unsafe { inner.work.zero_grads() };
                        read.release(py, inner)?;
                    }
                    return Ok(false);
                }
            }
            if let Some(max_norm) = inner.max_grad_norm {
                let (measured, clipped) = schuss::clip_factor(sum, grad_scale, max_norm);
                (norm, factor) = (measured.to_bits(), clipped);
            }
        }
        inner.scalars.clear();
        for (i, group) in inner.groups.iter().enumerate() {
            let values = match &scheduled {
                Some(values) => GroupValues(&values[i]),
                None => group.values(py),
            };
            inner.scalars.push(values.scalars(group.rule, group.steps + 1, factor));
        }

        let after = if zero_grads { After::Zero } else { After::Keep };
        // An optimizer keeps all of its states in the same way.
        let kept = inner.work.segments().first().map(|segment| segment.form.states);
        let noise = match (inner.seed, kept) {
            (Some(seed), Some(kept)) => Noise::new(seed, core.step_count(), kept),
            _ => Noise::Nearest,
        };
        let (work, step) = (&inner.work, Step { level, threads, scalars: &inner.scalars, after, noise: &noise });
        // SAFETY: parameters and states are pinned and were found unchanged, gradients were checked for shape, type,
        // order and alignment, lie clear of what is written, and are kept alive by `read`. The lock
        // keeps other steps of this optimizer out.
        detach_if(py, release, || unsafe { work.run(&step) });
        for group in &mut inner.groups {
            group.steps += 1;
        }
        core.steps.fetch_add(1, Ordering::Relaxed);
        core.norm.store(norm, Ordering::Relaxed);
        read.release(py, inner)?;
        Ok(true)
    }
}
