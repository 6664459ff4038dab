//! A step's calls into the optimizer's Python half: to convert, to look up, and to explain. The only place that knows the names
//! of Python methods, which are in `python/schuss/_core/callbacks.py`.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Why a step cannot be taken.
pub enum Problem<'a, 'py> {
    /// The gradients do not have the structure of the parameters.
    Structure(&'a Bound<'py, PyAny>),
    /// A parameter has changed since the optimizer was created.
    Changed(usize),
    /// Two gradients share memory, but are to be set to zero.
    Shared(usize, usize),
    /// A gradient has a NaN or an infinity, at a flat index.
    Nonfinite(usize, usize),
    /// Groups that share an estimate have different learning rates.
    Rates(f64, f64),
}

/// The exception for a problem; Python writes the message.
pub fn explain(optimizer: &Bound<'_, PyAny>, problem: Problem<'_, '_>) -> PyErr {
    let result = match problem {
        Problem::Structure(grads) => optimizer.call_method1("_explain_structure", (grads,)),
        Problem::Changed(i) => optimizer.call_method1("_explain_changed", (i,)),
        Problem::Shared(i, k) => optimizer.call_method1("_explain_shared", (i, k)),
        Problem::Rates(one, other) => optimizer.call_method1("_explain_rates", (one, other)),
        Problem::Nonfinite(i, at) => optimizer.call_method1("_explain_nonfinite", (i, at)),
    };
    match result {
        Ok(_) => PyRuntimeError::new_err("nothing was found wrong with what a step refused"),
        Err(error) => error,
    }
}

/// Parses a step's options if the fast path cannot.
pub fn step_options(
    optimizer: &Bound<'_, PyAny>,
    grad_scale: Option<&Bound<'_, PyAny>>,
    zero_grads: Option<&Bound<'_, PyAny>>,
) -> PyResult<(f64, bool)> {
    optimizer.call_method1("_step_options", (grad_scale, zero_grads))?.extract()
}

/// The optimizer's own gradients.
pub fn own_grads<'py>(optimizer: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    optimizer.call_method0("_own_grads")
}

/// The values of each entry at a step, with the schedules applied.
pub fn scheduled_values(optimizer: &Bound<'_, PyAny>, step: u64) -> PyResult<Vec<Vec<f64>>> {
    optimizer.call_method1("_scheduled_values", (step,))?.extract()
}

/// Converts a gradient that cannot be used directly.
pub fn usable_gradient<'py>(
    optimizer: &Bound<'py, PyAny>,
    i: usize,
    gradient: &Py<PyAny>,
    shared: bool,
    zero_grads: bool,
) -> PyResult<Bound<'py, PyAny>> {
    optimizer.call_method1("_gradient", (i, gradient, shared, zero_grads))
}

/// Runs a step of an optimizer whose arrays are not in host memory, on its backend.
pub fn backend_step(
    backend: &Bound<'_, PyAny>,
    optimizer: &Bound<'_, PyAny>,
    grads: Option<&Bound<'_, PyAny>>,
    grad_scale: Option<&Bound<'_, PyAny>>,
    zero_grads: Option<&Bound<'_, PyAny>>,
) -> PyResult<bool> {
    let options = PyDict::new(backend.py());
    for (name, value) in [("grad_scale", grad_scale), ("zero_grads", zero_grads)] {
        if let Some(value) = value {
            options.set_item(name, value)?;
        }
    }
    backend.call_method("step", (optimizer, grads), Some(&options))?.extract()
}
