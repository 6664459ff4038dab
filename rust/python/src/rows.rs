//! Gradients of some rows of arrays, as a step takes them besides those of whole arrays. Python has converted them and words the
//! errors. Runs no kernel of a rule.

use numpy::{PyArray1, PyArrayMethods, PyUntypedArray};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use schuss::{RowGradients, RowStep};

use crate::callbacks::{Problem, explain};
use crate::group::{RELEASE_GIL, detach_if, level_and_threads};
use crate::inner::Inner;
use crate::memory::{collect, no_memory, push};
use crate::pinned::Pinned;

/// The number of an array, indices of its rows, and a gradient for each.
pub type Given<'py> = (usize, Bound<'py, PyArray1<i64>>, Bound<'py, PyUntypedArray>);

/// Checks rows, and prepares the step over them.
pub fn read(optimizer: &Bound<'_, PyAny>, inner: &Inner, given: &[Given<'_>]) -> PyResult<RowStep> {
    let py = optimizer.py();
    let values = collect(given.iter().map(|(_, _, values)| Pinned::readable(values)))?;
    let (mut gradients, mut seen, mut elements) = (Vec::new(), Vec::new(), 0);
    for ((array, indices, _), values) in given.iter().zip(&values) {
        let wrong = || PyTypeError::new_err("these rows do not fit the array");
        let param = inner.params.get(*array).ok_or_else(wrong)?;
        let rows = param.length().filter(|_| !param.fortran()).ok_or_else(wrong)?;
        if seen.contains(array) || !inner.work.is_absent(*array) || !inner.work.takes_rows(*array, rows) {
            return Err(wrong());
        }
        push(&mut seen, *array)?;
        // A copy: other threads may change the array while this one has no GIL.
        let mut own = Vec::new();
        own.try_reserve_exact(indices.len()?).map_err(no_memory)?;
        // SAFETY: the GIL is held while these are read.
        for (at, &index) in unsafe { indices.as_slice()? }.iter().enumerate() {
            match usize::try_from(index).ok().filter(|&index| index < rows) {
                Some(index) => own.push(index),
                None => return Err(explain(optimizer, Problem::Index(*array, at, index))),
            }
        }
        let width = param.len.checked_div(rows).unwrap_or(0);
        if values.fortran() || values.len != own.len() * width {
            return Err(wrong());
        }
        elements += values.len;
        let one = RowGradients { array: *array, indices: own, width, values: values.data, dtype: values.dtype };
        push(&mut gradients, one)?;
    }
    let (level, threads) = level_and_threads()?;
    // SAFETY: the arrays were just checked and are kept alive by the caller; this CPU supports the level.
    detach_if(py, elements >= RELEASE_GIL, || unsafe { inner.work.over_rows(&gradients, level, threads) })?
        .map_err(no_memory)
}
