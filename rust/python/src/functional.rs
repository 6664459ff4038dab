//! Rules on arrays whose state the caller owns, tools, and sums: what needs no optimizer.

use numpy::{PyArray1, PyArrayMethods, PyUntypedArray};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use schuss::rule::MAX_STATES;
use schuss::{After, Form, Noise, Segment, Step, WorkList, level};

use crate::arrays::{Known, Pinned};
use crate::group::{GroupValues, Keeping, RELEASE_GIL, detach_if, find_rule, segment};

/// One update of arrays whose state the caller owns; Python has checked them. `center` takes the means of their rows off the
/// gradients first; `copy` copies the new parameters into the gradients' places; `factor` multiplies the gradients.
#[pyfunction]
#[pyo3(signature = (rule, values, step, params, grads, states, center, copy, factor=1.0))]
#[allow(clippy::too_many_arguments)] // what a step needs, spelled out by the one caller
pub fn update(
    py: Python<'_>,
    rule: &str,
    values: Bound<'_, PyArray1<f64>>,
    step: u64,
    params: Vec<Bound<'_, PyUntypedArray>>,
    grads: Vec<Bound<'_, PyAny>>,
    states: Vec<Vec<Bound<'_, PyUntypedArray>>>,
    center: bool,
    copy: bool,
    factor: f64,
) -> PyResult<()> {
    let rule = find_rule(rule, values.len()?)?;
    let mut work = WorkList::default();
    let mut segments = Vec::with_capacity(params.len());
    for (i, param) in params.iter().enumerate() {
        let param = Pinned::new(param)?;
        let states = states.get(i).map_or(&[][..], Vec::as_slice);
        let states = states.iter().map(Pinned::new).collect::<PyResult<Vec<_>>>()?;
        let rows = if center { param.rows() } else { 0 };
        let mut segment = segment(rule, 0, &param, &states, Keeping::PLAIN, rows)?;
        if let Some(grad) = grads.get(i) {
            (segment.grad, segment.grad_type) = param
                .gradient(grad.as_unbound(), copy, &Known::new(py))
                .filter(|&(_, dtype)| !copy || dtype == param.dtype)
                .ok_or_else(|| PyTypeError::new_err("the gradient does not fit the parameter"))?;
        } else if rule.reads_gradient {
            return Err(PyTypeError::new_err("the rule needs gradients"));
        }
        segments.push(segment);
    }
    work.extend(segments);
    let level = level::in_use().map_err(PyRuntimeError::new_err)?;
    let threads = schuss::num_threads().map_err(PyRuntimeError::new_err)?;
    // SAFETY: contiguous float64, made by Python; the GIL is held.
    let scalars = [GroupValues(unsafe { values.as_slice()? }).scalars(rule, step, factor)];
    let after = if copy { After::Copy } else { After::Keep };
    let step = Step { level, threads, scalars: &scalars, after, noise: &Noise::Nearest };
    // SAFETY: Python has checked that what is written does not overlap; types, shapes and order were checked above, a rule
    // that reads gradients was given them, and the caller holds references to the arrays during the call.
    detach_if(py, work.total() >= RELEASE_GIL, || unsafe { work.run(&step) });
    Ok(())
}

/// The sum of squares of arrays' elements, in float64.
#[pyfunction]
pub fn sum_of_squares(py: Python<'_>, arrays: Vec<Bound<'_, PyUntypedArray>>) -> PyResult<f64> {
    let mut work = WorkList::default();
    let pinned = arrays.iter().map(Pinned::readable).collect::<PyResult<Vec<_>>>()?;
    work.extend(pinned.iter().map(|array| Segment {
        rule: schuss::rules::tools::replace(),
        group: 0,
        len: array.len,
        param_type: array.dtype,
        param: std::ptr::null_mut(),
        states: [std::ptr::null_mut(); MAX_STATES],
        grad_type: array.dtype,
        grad: array.data,
        center: None,
        form: Form::default(),
    }));
    let level = level::in_use().map_err(PyRuntimeError::new_err)?;
    let threads = schuss::num_threads().map_err(PyRuntimeError::new_err)?;
    // SAFETY: the arrays were checked, are only read, and the caller holds references to them during the call.
    Ok(detach_if(py, work.total() >= RELEASE_GIL, || unsafe { work.sum_of_squares(level, threads) }))
}
