//! The binding of the dense solver.

use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// Solves `(hessian + damping*I) x = rhs` in place; returns the damping used and, where there is no factorization, the
/// minor that is not positive. Both arrays are float64, C-contiguous, made by Python.
#[pyfunction]
pub fn solve_damped(
    py: Python<'_>,
    hessian: &Bound<'_, PyArray2<f64>>,
    rhs: &Bound<'_, PyArray1<f64>>,
    damping: f64,
    raise_: bool,
) -> PyResult<(f64, Option<usize>)> {
    let threads = schuss::num_threads().map_err(PyRuntimeError::new_err)?;
    let (hessian, mut rhs) = (hessian.try_readonly()?, rhs.try_readwrite()?);
    let (hessian, rhs) = (hessian.as_slice()?, rhs.as_slice_mut()?);
    if hessian.len() != rhs.len() * rhs.len() {
        return Err(PyRuntimeError::new_err("the Hessian does not fit"));
    }
    Ok(match py.detach(|| schuss::dense::solve_damped(hessian, rhs, damping, raise_, threads)) {
        Ok(used) => (used, None),
        Err(error) => (damping, Some(error.minor)),
    })
}
