//! Rules on arrays whose state the caller owns, tools, and sums of squares. Knows no optimizer.

use std::sync::{Mutex, MutexGuard};

use numpy::{PyArray1, PyArrayMethods, PyUntypedArray};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use schuss::rule::Scope;
use schuss::{Array, CompiledRule, Dtype, Squares, Step, WorkList, optimizers};

use crate::arrays::Known;
use crate::group::{
    Format, GroupValues, MOST_STEPS, MatrixShape, RELEASE_GIL, array, detach_if, find_rule, level_and_threads,
};
use crate::memory::{List, collect, no_memory, push};
use crate::pinned::Pinned;

/// A work list, and the scalars of its rule.
pub type Work = (WorkList, Vec<Vec<f64>>);

/// A program of a rule over arrays whose state the caller owns, ready to run; Python has checked them. There are `values` for each
/// group, and `groups` has the group of each array, or nothing if there is one. `factor` multiplies the gradients; `shared` are the
/// states of scope `all`.
#[pyclass(frozen, module = "schuss._schuss")]
pub struct Job {
    rule: &'static CompiledRule,
    pub program: String,
    /// What the scalars are computed from, besides the values: the number of the step, and what multiplies gradients.
    step: u64,
    factor: f64,
    work: Mutex<Work>,
    /// What it writes, and what it only reads.
    written: Vec<Pinned>,
    read: Vec<Pinned>,
    shared: Option<Py<PyArray1<f64>>>,
}

#[pymethods]
impl Job {
    #[new]
    #[pyo3(signature = (rule, program, values, step, params, grads, states, matrices, shared=None, factor=1.0, groups=None))]
    #[allow(clippy::too_many_arguments)] // the settings of a step
    fn new(
        rule: &str,
        program: &str,
        values: List<Bound<'_, PyArray1<f64>>>,
        step: u64,
        params: List<Bound<'_, PyUntypedArray>>,
        grads: List<Bound<'_, PyUntypedArray>>,
        states: List<List<Bound<'_, PyUntypedArray>>>,
        matrices: List<Option<MatrixShape>>,
        shared: Option<Bound<'_, PyArray1<f64>>>,
        factor: f64,
        groups: Option<List<usize>>,
    ) -> PyResult<Job> {
        let [first, ..] = &values.0[..] else { return Err(PyTypeError::new_err("a job needs the values of a group")) };
        let rule = find_rule(rule, first.len()?)?;
        let Some(wanted) = rule.rule.program(program) else {
            return Err(PyTypeError::new_err("the rule has no such program"));
        };
        let known = Known::new(first.py());
        let (List(params), List(grads), List(states), List(matrices)) = (params, grads, states, matrices);
        let (mut arrays, mut written, mut read) = (Vec::new(), Vec::new(), Vec::new());
        for (i, param) in params.iter().enumerate() {
            let param = Pinned::new(param)?;
            let own = states.get(i).map_or(&[][..], |own| &own.0[..]);
            let own = collect(own.iter().map(Pinned::new))?;
            let group = groups.as_ref().map_or(Some(0), |groups| groups.0.get(i).copied());
            let group = group.filter(|&group| group < values.0.len());
            let group = group.ok_or_else(|| PyTypeError::new_err("the groups do not fit the arrays"))?;
            let mut array = array(rule, group, &param, &own, Format::PLAIN, matrices.get(i).copied().flatten(), None)?;
            if let Some(grad) = grads.get(i) {
                (array.grad, array.grad_type) = param
                    .gradient(grad.as_any().as_unbound(), false, &known)
                    .ok_or_else(|| PyTypeError::new_err("the gradient does not fit the parameter"))?;
                push(&mut read, Pinned::readable(grad)?)?;
            } else if wanted.reads_gradient() {
                return Err(PyTypeError::new_err("the rule needs gradients"));
            }
            push(&mut arrays, array)?;
            push(&mut written, param)?;
            schuss::try_extend(&mut written, own).map_err(no_memory)?;
        }
        let mut work = WorkList::default();
        work.extend(arrays).map_err(no_memory)?;
        let mut scalars = schuss::try_collect(values.0.iter().map(|_| Vec::new())).map_err(no_memory)?;
        for (values, scalars) in values.0.iter().zip(&mut scalars) {
            find_rule(rule.rule.name, values.len()?)?;
            // SAFETY: contiguous float64, created by Python; the GIL is held.
            GroupValues(unsafe { values.as_slice()? }).scalars(rule, step, factor, scalars);
        }
        let count = rule.rule.states.iter().filter(|state| state.scope == Scope::All).count();
        if shared.as_ref().map_or(Ok(0), |shared| shared.len())? != count {
            return Err(PyTypeError::new_err("the states that all arrays share do not fit the rule"));
        }
        let (program, shared) = (program.to_owned(), shared.map(Bound::unbind));
        Ok(Job { rule, program, step, factor, work: Mutex::new((work, scalars)), written, read, shared })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.written.iter().chain(&self.read).try_for_each(|array| array.traverse(&visit))?;
        visit.call(&self.shared)
    }

    /// Sets the values of the first group for the next runs; as many as it was made with.
    fn set(&self, values: Vec<f64>) -> PyResult<()> {
        find_rule(self.rule.rule.name, values.len())?;
        let mut guard = self.locked()?;
        GroupValues(&values).scalars(self.rule, self.step, self.factor, &mut guard.1[0]);
        Ok(())
    }

    /// Runs it; raises an exception if an array has changed since.
    pub fn run(&self, py: Python<'_>) -> PyResult<()> {
        if !self.unchanged(&Known::new(py)) {
            return Err(PyValueError::new_err("an array was resized, re-pointed or made read-only meanwhile"));
        }
        self.run_checked(py)
    }
}

impl Job {
    /// Whether all arrays are as they were when it was made.
    pub fn unchanged(&self, known: &Known<'_>) -> bool {
        self.written.iter().all(|array| array.unchanged(known)) && self.read.iter().all(|array| array.unmoved(known))
    }

    /// Its work list and scalars, for the one who runs it.
    pub fn locked(&self) -> PyResult<MutexGuard<'_, Work>> {
        self.work.try_lock().map_err(|_| PyRuntimeError::new_err("it is running already"))
    }

    /// Runs it over arrays that were just checked.
    pub fn run_checked(&self, py: Python<'_>) -> PyResult<()> {
        let (level, threads) = level_and_threads()?;
        let mut guard = self.locked()?;
        let (work, scalars) = &mut *guard;
        let mut none = [];
        let shared = match &self.shared {
            // SAFETY: contiguous float64, created by Python; nobody else accesses it during the call.
            Some(shared) => unsafe { shared.bind(py).as_slice_mut()? },
            None => &mut none[..],
        };
        let mut step = Step { shared, ..Step::new(level, threads, scalars) };
        let release = work.total() >= RELEASE_GIL;
        // SAFETY: Python has checked that written memory does not overlap; types, shapes and order were checked, a rule that
        // reads gradients has them, and the arrays are kept alive and were found unchanged.
        detach_if(py, release, || unsafe { work.run(&self.program, &mut step) })
    }
}

/// A rule's step on one array whose state the caller owns, with given values, for parameters of one type. It takes plain arrays
/// only; Python converts or explains all others.
#[pyclass(frozen, module = "schuss._schuss")]
pub struct Stepper {
    rule: &'static CompiledRule,
    values: Vec<f64>,
    dtype: Dtype,
    /// The work list of the last array's length, and scalars.
    work: Mutex<(Option<WorkList>, Vec<Vec<f64>>)>,
}

#[pymethods]
impl Stepper {
    /// `example` is an array of the parameters' type.
    #[new]
    fn new(rule: &str, values: Vec<f64>, example: &Bound<'_, PyUntypedArray>) -> PyResult<Stepper> {
        let rule = find_rule(rule, values.len())?;
        let unusual = |scope: Scope| !matches!(scope, Scope::Element | Scope::Array);
        if rule.rule.needs_matrix() || rule.rule.states.iter().any(|state| unusual(state.scope)) {
            return Err(PyTypeError::new_err("the rule needs more than one array and its own states"));
        }
        let dtype = Pinned::new(example)?.dtype;
        Ok(Stepper { rule, values, dtype, work: Mutex::new((None, vec![Vec::new()])) })
    }

    /// Takes the step of this number; false if it cannot.
    fn __call__(
        &self,
        py: Python<'_>,
        step: u64,
        param: Py<PyAny>,
        grad: Py<PyAny>,
        states: Vec<Py<PyAny>>,
    ) -> PyResult<bool> {
        let known = Known::new(py);
        let Some(param) = known.plain(&param, true).filter(|param| param.dtype == self.dtype) else { return Ok(false) };
        let Some(grad) = known.plain(&grad, false).filter(|grad| grad.is_like(&param)) else { return Ok(false) };
        let kinds = self.rule.rule.states;
        if step == 0 || step > MOST_STEPS || states.len() != kinds.len() || kinds.len() > MOST_STATES {
            return Ok(false);
        }
        let compute = param.dtype.compute();
        let mut pointers = [std::ptr::null_mut(); MOST_STATES];
        let mut written = [param.bytes(); MOST_STATES + 1];
        for (k, (state, kind)) in states.iter().zip(kinds).enumerate() {
            let Some(state) = known.plain(state, true) else { return Ok(false) };
            let fits = match kind.scope {
                Scope::Element => state.dtype == compute && state.is_like(&param),
                _ => state.dtype == Dtype::F64 && state.is_scalar(),
            };
            let bytes = state.bytes();
            if !fits || written[..=k].iter().any(|other| bytes.overlap(other)) {
                return Ok(false);
            }
            (pointers[k], written[k + 1]) = (state.data, bytes);
        }
        if written[..=kinds.len()].iter().any(|other| grad.bytes().overlap(other)) {
            return Ok(false);
        }
        let (level, threads) = level_and_threads()?;
        let Ok(mut guard) = self.work.try_lock() else { return Ok(false) };
        let (work, scalars) = &mut *guard;
        GroupValues(&self.values).scalars(self.rule, step, 1.0, &mut scalars[0]);
        let work = match work.take().filter(|work| work.total() == param.len) {
            Some(known) => work.insert(known),
            None => {
                let mut new = WorkList::default();
                let array = Array::new(self.rule, 0, param.data, param.dtype, param.len);
                new.extend([array]).map_err(no_memory)?;
                work.insert(new)
            }
        };
        work.set_pointers(0, param.data, &pointers[..kinds.len()]);
        work.set_gradient(0, grad.data, grad.dtype);
        let mut step = Step::new(level, threads, scalars);
        // SAFETY: the arrays have the right types, shapes and order, and what is written overlaps nothing. The caller keeps them
        // alive.
        detach_if(py, param.len >= RELEASE_GIL, || unsafe { work.run("step", &mut step) })?;
        Ok(true)
    }
}

/// The most states that a rule may have for a [`Stepper`].
const MOST_STATES: usize = 8;

/// The sum of squares of arrays' elements, in float64, and the unit that they are measured in; see `Squares`.
#[pyfunction]
pub fn sum_of_squares(py: Python<'_>, arrays: List<Bound<'_, PyUntypedArray>>) -> PyResult<(f64, f64)> {
    let mut work = WorkList::default();
    let pinned = collect(arrays.0.iter().map(Pinned::readable))?;
    work.extend(pinned.iter().map(|array| Array {
        grad: array.data,
        ..Array::new(optimizers::tools::clip_norm(), 0, std::ptr::null_mut(), array.dtype, array.len)
    }))
    .map_err(no_memory)?;
    let (level, threads) = level_and_threads()?;
    // SAFETY: the arrays were checked, are only read, and the caller holds references to them during the call.
    let squares = detach_if(py, work.total() >= RELEASE_GIL, || unsafe { work.sum_of_squares(level, threads) })?;
    Ok((squares.sum, squares.unit))
}

/// The norm of gradients that are divided by ``grad_scale``, and the factor that clips it; see the rule ``clip_norm``.
#[pyfunction]
pub fn clip_factor(squares: (f64, f64), grad_scale: f64, max_norm: f64) -> (f64, f64) {
    let (sum, unit) = squares;
    schuss::clip_factor(Squares { sum, unit }, grad_scale, max_norm)
}
