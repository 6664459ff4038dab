//! Runs rules on arrays whose state the caller owns, tools, and sums of squares. Knows no optimizer.

use numpy::{PyArray1, PyArrayMethods, PyUntypedArray};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use schuss::{Array, Rounding, Squares, Step, WorkList, level, optimizers};

use crate::arrays::{Known, Pinned};
use crate::group::{Format, GroupValues, MatrixShape, RELEASE_GIL, array, detach_if, find_rule};

/// Runs a program of a rule over arrays whose state the caller owns; Python has checked them. `factor` multiplies the
/// gradients; `shared` are the states of scope `all`.
#[pyfunction]
#[pyo3(signature = (rule, program, values, step, params, grads, states, matrices, shared=None, factor=1.0))]
#[allow(clippy::too_many_arguments)] // the settings of a step, passed by the only caller
pub fn run(
    py: Python<'_>,
    rule: &str,
    program: &str,
    values: Bound<'_, PyArray1<f64>>,
    step: u64,
    params: Vec<Bound<'_, PyUntypedArray>>,
    grads: Vec<Bound<'_, PyAny>>,
    states: Vec<Vec<Bound<'_, PyUntypedArray>>>,
    matrices: Vec<Option<MatrixShape>>,
    shared: Option<Bound<'_, PyArray1<f64>>>,
    factor: f64,
) -> PyResult<()> {
    let rule = find_rule(rule, values.len()?)?;
    let Some(wanted) = rule.rule.program(program) else {
        return Err(PyTypeError::new_err("the rule has no such program"));
    };
    let reads_grad = wanted.reads_gradient();
    let mut arrays = Vec::with_capacity(params.len());
    for (i, param) in params.iter().enumerate() {
        let param = Pinned::new(param)?;
        let states = states.get(i).map_or(&[][..], Vec::as_slice);
        let states = states.iter().map(Pinned::new).collect::<PyResult<Vec<_>>>()?;
        let matrix = matrices.get(i).copied().flatten();
        let mut array = array(rule, 0, &param, &states, Format::PLAIN, matrix)?;
        if let Some(grad) = grads.get(i) {
            (array.grad, array.grad_type) = param
                .gradient(grad.as_unbound(), false, &Known::new(py))
                .ok_or_else(|| PyTypeError::new_err("the gradient does not fit the parameter"))?;
        } else if reads_grad {
            return Err(PyTypeError::new_err("the rule needs gradients"));
        }
        arrays.push(array);
    }
    let mut work = WorkList::default();
    work.extend(arrays);
    let level = level::in_use().map_err(PyRuntimeError::new_err)?;
    let threads = schuss::num_threads().map_err(PyRuntimeError::new_err)?;
    let mut scalars = vec![Vec::new()];
    // SAFETY: contiguous float64, created by Python; the GIL is held.
    GroupValues(unsafe { values.as_slice()? }).scalars(rule, step, factor, &mut scalars[0]);
    let mut none = [];
    let shared = match &shared {
        // SAFETY: as above, and nobody else accesses it during the call.
        Some(shared) => unsafe { shared.as_slice_mut()? },
        None => &mut none[..],
    };
    let count = rule.rule.states.iter().filter(|state| state.scope == schuss::rule::Scope::All).count();
    if shared.len() != count {
        return Err(PyTypeError::new_err("the states that all arrays share do not fit the rule"));
    }
    let rounding = &Rounding::Nearest;
    let mut step = Step { level, threads, scalars: &mut scalars, zero_grads: false, rounding, shared, lead: 0 };
    // SAFETY: Python has checked that written memory does not overlap; types, shapes and order were checked above, a rule that
    // reads gradients has them, and the caller holds references to the arrays during the call.
    detach_if(py, work.total() >= RELEASE_GIL, || unsafe { work.run(program, &mut step) });
    Ok(())
}

/// The sum of squares of arrays' elements, in float64, and the unit that they are measured in; see `Squares`.
#[pyfunction]
pub fn sum_of_squares(py: Python<'_>, arrays: Vec<Bound<'_, PyUntypedArray>>) -> PyResult<(f64, f64)> {
    let mut work = WorkList::default();
    let pinned = arrays.iter().map(Pinned::readable).collect::<PyResult<Vec<_>>>()?;
    work.extend(pinned.iter().map(|array| Array {
        grad: array.data,
        ..Array::new(optimizers::tools::clip_norm(), 0, std::ptr::null_mut(), array.dtype, array.len)
    }));
    let level = level::in_use().map_err(PyRuntimeError::new_err)?;
    let threads = schuss::num_threads().map_err(PyRuntimeError::new_err)?;
    // SAFETY: the arrays were checked, are only read, and the caller holds references to them during the call.
    let squares = detach_if(py, work.total() >= RELEASE_GIL, || unsafe { work.sum_of_squares(level, threads) });
    Ok((squares.sum, squares.unit))
}

/// The norm of gradients that are divided by ``grad_scale``, and the factor that clips it; see the rule ``clip_norm``.
#[pyfunction]
pub fn clip_factor(squares: (f64, f64), grad_scale: f64, max_norm: f64) -> (f64, f64) {
    let (sum, unit) = squares;
    schuss::clip_factor(Squares { sum, unit }, grad_scale, max_norm)
}
