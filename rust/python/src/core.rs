//! The optimizer's core: pinned arrays, a work list, and the step.
//!
//! A step first looks at everything that can be wrong, then asks the schedules, then reads the gradients if clipping or
//! the non-finite check needs it, and only then writes. Python holds hyperparameters in one float64 array a group, laid
//! out as [`GroupValues`] reads it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

use numpy::{PyArray1, PyArrayMethods, PyUntypedArray};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use schuss::rule::{MAX_STATES, Scalars};
use schuss::{Common, Decay, Rule, Segment, WorkList, level};

use crate::arrays::Pinned;
use crate::tree::Tree;

/// Elements from which a step is long enough to let other Python threads run.
const RELEASE_GIL: usize = 16_384;

/// A group's values: scheduled, lr, initial_lr, weight_decay, decay, maximize, then the rule's hyperparameters.
struct GroupValues<'a>(&'a [f64]);

impl GroupValues<'_> {
    const COMMON: usize = 6;

    fn scheduled(&self) -> bool {
        self.0[0] != 0.0
    }

    fn scalars(&self, rule: &Rule, t: u64, gradient_factor: f64) -> Scalars {
        let common = Common {
            lr: self.0[1],
            initial_lr: self.0[2],
            weight_decay: self.0[3],
            decay: match self.0[4] {
                1.0 => Decay::Decoupled,
                2.0 => Decay::Independent,
                _ => Decay::L2,
            },
            maximize: self.0[5] != 0.0,
        };
        rule.scalars(&common, &self.0[Self::COMMON..], t, gradient_factor)
    }
}

fn find_rule(name: &str, values: usize) -> PyResult<&'static Rule> {
    let rule = schuss::rules::find(name).ok_or_else(|| PyValueError::new_err(format!("no rule {name:?}")))?;
    if values != GroupValues::COMMON + rule.hypers.len() {
        return Err(PyValueError::new_err(format!("{name} needs {:?}", rule.hypers)));
    }
    Ok(rule)
}

/// A segment over a parameter and its state; the gradient is set at each step.
fn segment(rule: &'static Rule, group: usize, param: &Pinned, states: &[Pinned]) -> PyResult<Segment> {
    let fits = |state: &Pinned| state.dtype == param.dtype.compute() && state.congruent(param);
    if states.len() != rule.states.len() || !states.iter().all(fits) {
        return Err(PyTypeError::new_err("states do not fit the rule and the parameter"));
    }
    let mut pointers = [std::ptr::null_mut(); MAX_STATES];
    for (pointer, state) in pointers.iter_mut().zip(states) {
        *pointer = state.data;
    }
    Ok(Segment {
        rule,
        group,
        len: param.len,
        param_type: param.dtype,
        param: param.data,
        states: pointers,
        grad_type: param.dtype,
        grad: std::ptr::null_mut(),
    })
}

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

struct Inner {
    groups: Vec<Group>,
    params: Vec<Pinned>,
    /// Kept alive for their pointers in the work list.
    states: Vec<Pinned>,
    work: WorkList,
    tree: Tree,
    /// What a step writes, sorted: byte ranges that gradients must stay clear of.
    written: Vec<(usize, usize)>,
    /// Gradient pointers that were found clear of it.
    clear: Vec<*mut u8>,
    max_grad_norm: Option<f64>,
    nonfinite: Nonfinite,
    scalars: Vec<Scalars>,
}

// SAFETY: `clear` is only compared, the rest is Send.
unsafe impl Send for Inner {}

impl Inner {
    fn overlaps(&self, grad: *mut u8, bytes: usize) -> bool {
        let (start, end) = (grad as usize, grad as usize + bytes);
        let before = self.written.partition_point(|range| range.0 < end);
        before > 0 && self.written[before - 1].1 > start
    }
}

/// Base class of the Python optimizers.
#[pyclass(subclass, frozen, module = "schuss._schuss")]
pub struct Core {
    inner: Mutex<Inner>,
    // Beside the lock, so that a schedule may read them while a step runs.
    steps: AtomicU64,
    skipped: AtomicU64,
    /// The bits of the last step's norm; NaN bits of `u64::MAX` stand for none.
    norm: AtomicU64,
}

const NO_NORM: u64 = u64::MAX;

impl Core {
    fn lock(&self) -> PyResult<MutexGuard<'_, Inner>> {
        match self.inner.try_lock() {
            Ok(inner) => Ok(inner),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(PyRuntimeError::new_err(
                "this optimizer is in the middle of a step (in another thread, or called from its own schedule); \
                 step it from one place at a time",
            )),
        }
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
                written: Vec::new(),
                clear: Vec::new(),
                max_grad_norm: None,
                nonfinite: Nonfinite::Propagate,
                scalars: Vec::new(),
            }),
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

    /// The global norm of the last step's gradients, where the step measured it.
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

    /// Adds a group: arrays that Python has checked, each with its states.
    fn _add_group(
        &self,
        rule: &str,
        values: Bound<'_, PyArray1<f64>>,
        params: Vec<Bound<'_, PyUntypedArray>>,
        states: Vec<Vec<Bound<'_, PyUntypedArray>>>,
        tree: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
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
            .map(|(param, states)| segment(rule, inner.groups.len(), param, states))
            .collect::<PyResult<Vec<_>>>()?;
        inner.groups.push(Group { rule, values: values.unbind(), steps: 0 });
        inner.work.extend(segments);
        inner.params.extend(params);
        inner.states.extend(states.into_iter().flatten());
        inner.tree = tree;
        inner.written = inner.params.iter().chain(&inner.states).map(Pinned::bytes).filter(|r| r.0 < r.1).collect();
        inner.written.sort_unstable();
        inner.clear = vec![std::ptr::null_mut(); inner.params.len()];
        Ok(())
    }

    /// Steps taken, steps skipped, and the steps of each group.
    fn _counters(&self) -> PyResult<(u64, u64, Vec<u64>)> {
        let inner = self.lock()?;
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

    /// Whether no step is under way; raises otherwise.
    fn _check_idle(&self) -> PyResult<()> {
        self.lock().map(|_| ())
    }

    /// Updates every parameter in place.
    #[pyo3(signature = (grads=None, *, grad_scale=1.0, zero_grads=false))]
    fn step(
        slf: &Bound<'_, Self>,
        grads: Option<&Bound<'_, PyAny>>,
        grad_scale: f64,
        zero_grads: bool,
    ) -> PyResult<bool> {
        let py = slf.py();
        let core = slf.get();
        let mut inner = core.lock()?;
        let inner = &mut *inner;
        if !(grad_scale.is_finite() && grad_scale > 0.0) {
            return Err(PyValueError::new_err(format!("grad_scale must be a finite number > 0, got {grad_scale}")));
        }
        let own;
        let grads = match grads {
            Some(grads) => grads,
            None => {
                own = slf.call_method0("_own_grads")?;
                &own
            }
        };

        let scheduled: Option<Vec<Vec<f64>>> = if inner.groups.iter().any(|group| group.values(py).scheduled()) {
            Some(slf.call_method1("_scheduled_values", (core.step_count(),))?.extract()?)
        } else {
            None
        };
        let release = inner.work.total() >= RELEASE_GIL;
        // Gradients must outlive the step even if what runs here, or in another thread, empties the caller's lists.
        let mut kept: Vec<Py<PyAny>> = Vec::with_capacity(inner.params.len());
        let mut to_zero: Vec<Bound<'_, PyAny>> = Vec::new();
        let alike = {
            let tree = std::mem::replace(&mut inner.tree, Tree::Sequence(Vec::new()));
            let result = tree.visit(py, grads, &mut |i, object| {
                let found = inner.params[i].gradient(object, zero_grads);
                let (pointer, dtype) = match found {
                    Some((pointer, _)) if pointer == inner.clear[i] => found,
                    Some((pointer, dtype)) if !inner.overlaps(pointer, inner.params[i].len * dtype.size()) => {
                        inner.clear[i] = pointer;
                        found
                    }
                    _ => None,
                }
                .map_or_else(
                    || {
                        // Python converts, copies or explains.
                        let shared = found.is_some();
                        let usable = slf.call_method1("_gradient", (i, object, shared, zero_grads))?;
                        let pointer = inner.params[i]
                            .gradient(&usable, false)
                            .ok_or_else(|| PyTypeError::new_err("a converted gradient is still not usable"))?;
                        if zero_grads && !usable.is(object) {
                            to_zero.push(object.clone());
                        }
                        kept.push(usable.unbind());
                        PyResult::Ok(pointer)
                    },
                    Ok,
                )?;
                kept.push(object.clone().unbind());
                let segment = inner.work.segment_mut(i);
                segment.grad = pointer;
                segment.grad_type = dtype;
                Ok(())
            });
            inner.tree = tree;
            result?
        };
        if !alike {
            return Err(explain(slf, "_explain_structure", (grads,)));
        }
        if zero_grads && let Some((i, k)) = shared_gradients(&inner.work) {
            return Err(explain(slf, "_explain_shared", (i, k)));
        }

        // Nothing below runs foreign Python code, so what is checked here stays true.
        if let Some(i) = inner.params.iter().position(|param| !param.unchanged(py)) {
            return Err(explain(slf, "_explain_changed", (i,)));
        }
        let level = level::in_use().map_err(PyRuntimeError::new_err)?;
        let threads = schuss::num_threads().map_err(PyRuntimeError::new_err)?;
        let mut factor = 1.0 / grad_scale;
        let mut norm = NO_NORM;
        if inner.max_grad_norm.is_some() || inner.nonfinite != Nonfinite::Propagate {
            let work = &mut inner.work;
            // SAFETY: the gradients were just checked, and are are kept alive; the level is this CPU's.
            let sum = detach_if(py, release, move || unsafe { work.sum_of_squares(level, threads) });
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
                        zero_all(to_zero)?;
                    }
                    return Ok(false);
                }
            }
            if let Some(max_norm) = inner.max_grad_norm {
                let measured = sum.sqrt() / grad_scale;
                norm = measured.to_bits();
                let coefficient = max_norm / (measured + 1e-6);
                if coefficient < 1.0 || coefficient.is_nan() {
                    factor *= coefficient;
                }
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

        let (work, scalars) = (&inner.work, &inner.scalars);
        // SAFETY: parameters and states are pinned and were found unchanged, gradients were checked for shape, type,
        // order and alignment, lie clear of what is written, and are kept alive by `kept`. The lock keeps other steps of this optimizer out.
        detach_if(py, release, || unsafe { work.run(level, threads, scalars, zero_grads) });
        for group in &mut inner.groups {
            group.steps += 1;
        }
        core.steps.fetch_add(1, Ordering::Relaxed);
        core.norm.store(norm, Ordering::Relaxed);
        zero_all(to_zero)?;
        Ok(true)
    }
}

/// Zeroes the gradients that were converted, and so not zeroed in the step.
fn zero_all(gradients: Vec<Bound<'_, PyAny>>) -> PyResult<()> {
    gradients.into_iter().try_for_each(|gradient| gradient.call_method1("fill", (0,)).map(|_| ()))
}

/// The error that Python words for something that is off.
fn explain<'py>(slf: &Bound<'py, Core>, method: &str, args: impl pyo3::call::PyCallArgs<'py>) -> PyErr {
    match slf.call_method1(method, args) {
        Ok(_) => PyRuntimeError::new_err(format!("{method} found nothing wrong")),
        Err(error) => error,
    }
}

fn detach_if<R: Send>(py: Python<'_>, release: bool, f: impl FnOnce() -> R + Send) -> R {
    if release { py.detach(f) } else { f() }
}

/// Two gradients that share memory: zeroing one would change the other before it is read.
fn shared_gradients(work: &WorkList) -> Option<(usize, usize)> {
    let mut ranges: Vec<_> = work
        .segments()
        .iter()
        .enumerate()
        .filter(|(_, s)| s.len > 0)
        .map(|(i, s)| (s.grad as usize, s.grad as usize + s.len * s.grad_type.size(), i))
        .collect();
    ranges.sort_unstable();
    ranges.windows(2).find(|pair| pair[0].1 > pair[1].0).map(|pair| (pair[0].2, pair[1].2))
}

/// One update of one array whose state the caller owns; Python has checked the arrays.
#[pyfunction]
pub fn update(
    py: Python<'_>,
    rule: &str,
    values: Bound<'_, PyArray1<f64>>,
    step: u64,
    param: &Bound<'_, PyUntypedArray>,
    grad: &Bound<'_, PyAny>,
    states: Vec<Bound<'_, PyUntypedArray>>,
) -> PyResult<()> {
    let rule = find_rule(rule, values.len()?)?;
    let param = Pinned::new(param)?;
    let states = states.iter().map(Pinned::new).collect::<PyResult<Vec<_>>>()?;
    let mut segment = segment(rule, 0, &param, &states)?;
    (segment.grad, segment.grad_type) =
        param.gradient(grad, false).ok_or_else(|| PyTypeError::new_err("the gradient does not fit the parameter"))?;
    let level = level::in_use().map_err(PyRuntimeError::new_err)?;
    let threads = schuss::num_threads().map_err(PyRuntimeError::new_err)?;
    // SAFETY: contiguous float64, made by Python; the GIL is held.
    let scalars = [GroupValues(unsafe { values.as_slice()? }).scalars(rule, step, 1.0)];
    let mut work = WorkList::default();
    work.extend([segment]);
    // SAFETY: Python has checked that the arrays do not overlap; types, shapes and order were checked above, and the
    // caller holds references to the arrays during the call.
    detach_if(py, param.len >= RELEASE_GIL, || unsafe { work.run(level, threads, &scalars, false) });
    Ok(())
}
