//! A step's calls into the optimizer's Python half: to convert, to look up, and to explain. The only place that knows the names
//! of Python methods, which are in `python/schuss/_core/callbacks.py`.

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::memory::List;

/// Calls a function of Python's that may run code in Python. When the interpreter ends, Python before 3.14 ends a daemon thread that
/// waits for the GIL by unwinding its stack, which Rust's frames must not take part in: such a thread waits for the end of the
/// process instead.
fn unwinding<T>(f: impl FnOnce() -> T) -> T {
    struct Wait;
    impl Drop for Wait {
        fn drop(&mut self) {
            loop {
                std::thread::park();
            }
        }
    }
    let wait = Wait;
    let result = f();
    std::mem::forget(wait);
    result
}

/// A function that Rust declares as one that never unwinds, as one that may. The declaration is hidden from the compiler.
macro_rules! may_unwind {
    ($function:path, ($($argument:ty),*)) => {{
        let function: unsafe extern "C" fn($($argument),*) -> *mut ffi::PyObject = std::hint::black_box($function);
        // SAFETY: the same function with the same calling convention.
        unsafe {
            std::mem::transmute::<
                unsafe extern "C" fn($($argument),*) -> *mut ffi::PyObject,
                unsafe extern "C-unwind" fn($($argument),*) -> *mut ffi::PyObject,
            >(function)
        }
    }};
}

/// Calls an object.
pub fn call_object<'py>(
    function: &Bound<'py, PyAny>,
    arguments: &Bound<'py, PyTuple>,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let call = may_unwind!(ffi::PyObject_Call, (*mut ffi::PyObject, *mut ffi::PyObject, *mut ffi::PyObject));
    let options = options.map_or(std::ptr::null_mut(), |options| options.as_ptr());
    // SAFETY: a callable, a tuple, and a dict or null, which are alive; the GIL is held.
    let result = unwinding(|| unsafe { call(function.as_ptr(), arguments.as_ptr(), options) });
    // SAFETY: a new reference, or null with an exception.
    unsafe { Bound::from_owned_ptr_or_err(function.py(), result) }
}

/// The value of a key, which may have methods written in Python.
pub fn value_of<'py>(dict: &Bound<'py, PyDict>, key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let get = may_unwind!(ffi::PyDict_GetItemWithError, (*mut ffi::PyObject, *mut ffi::PyObject));
    // Until there is a reference, nobody else may take the value out of the dict.
    with_critical_section(dict, || {
        // SAFETY: a dict and a key, which are alive; the GIL is held.
        let value = unwinding(|| unsafe { get(dict.as_ptr(), key.as_ptr()) });
        // SAFETY: a borrowed reference, or null, perhaps with an exception.
        match unsafe { Bound::from_borrowed_ptr_or_opt(dict.py(), value) } {
            None => PyErr::take(dict.py()).map_or(Ok(None), Err),
            value => Ok(value),
        }
    })
}

/// Calls a method.
pub fn call<'py>(
    object: &Bound<'py, PyAny>,
    method: &str,
    arguments: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>>,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let arguments = arguments.into_pyobject(object.py()).map_err(Into::into)?;
    call_object(&object.getattr(method)?, &arguments, options)
}

/// Why a step cannot be taken.
pub enum Problem<'a, 'py> {
    /// The gradients do not have the structure of the parameters, of which they may with true be a part.
    Structure(&'a Bound<'py, PyAny>, bool),
    /// A parameter has changed since the optimizer was created.
    Changed(usize),
    /// Two gradients share memory, but are to be set to zero.
    Shared(usize, usize),
    /// A gradient has a NaN or an infinity, at a flat index.
    Nonfinite(usize, usize),
    /// An array has no row of this index: the array, the index's position and the index.
    Index(usize, usize, i64),
    /// Groups that share states have different values of what these are computed from.
    Disagreement(&'static str, f64, f64),
}

/// The exception for a problem; Python writes the message.
pub fn explain(optimizer: &Bound<'_, PyAny>, problem: Problem<'_, '_>) -> PyErr {
    let result = match problem {
        Problem::Structure(grads, partial) => call(optimizer, "_explain_structure", (grads, partial), None),
        Problem::Changed(i) => call(optimizer, "_explain_changed", (i,), None),
        Problem::Shared(i, k) => call(optimizer, "_explain_shared", (i, k), None),
        Problem::Disagreement(name, one, other) => call(optimizer, "_explain_disagreement", (name, one, other), None),
        Problem::Index(i, at, index) => call(optimizer, "_explain_index", (i, at, index), None),
        Problem::Nonfinite(i, at) => call(optimizer, "_explain_nonfinite", (i, at), None),
    };
    match result {
        Ok(_) => {
            PyRuntimeError::new_err("the arguments of the step changed while they were checked; nothing was updated")
        }
        Err(error) => error,
    }
}

/// Parses a step's options if the fast path cannot.
pub fn step_options(
    optimizer: &Bound<'_, PyAny>,
    grad_scale: Option<&Bound<'_, PyAny>>,
    zero_grads: Option<&Bound<'_, PyAny>>,
    partial: Option<&Bound<'_, PyAny>>,
) -> PyResult<(f64, bool, bool)> {
    call(optimizer, "_step_options", (grad_scale, zero_grads, partial), None)?.extract()
}

/// Raises an exception if an array has been replaced where the optimizer was given it; returns what its containers have now.
pub fn look_again<'py>(optimizer: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    call(optimizer, "_look_again", (), None)
}

/// Changes scratch with matrix products, after a program before the step, for arrays given by number with the step that each takes;
/// returns what else changes with the step.
pub fn matrix_work<'py>(
    optimizer: &Bound<'py, PyAny>,
    program: &str,
    steps: Vec<(usize, u64)>,
) -> PyResult<Bound<'py, PyAny>> {
    let list = PyList::empty(optimizer.py());
    steps.into_iter().try_for_each(|one| list.append(one))?;
    call(optimizer, "_matrix_work", (program, list), None)
}

/// The optimizer's own gradients.
pub fn own_grads<'py>(optimizer: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    call(optimizer, "_own_grads", (), None)
}

/// Whether these are the optimizer's own gradients.
pub fn are_own(optimizer: &Bound<'_, PyAny>, grads: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(optimizer.getattr(intern!(grads.py(), "_grads"))?.is(grads))
}

/// The values of each entry at a step, with the schedules applied.
pub fn scheduled_values(optimizer: &Bound<'_, PyAny>, step: u64) -> PyResult<Vec<List<f64>>> {
    Ok(call(optimizer, "_scheduled_values", (step,), None)?.extract::<List<_>>()?.0)
}

/// Converts a gradient that cannot be used directly.
pub fn usable_gradient<'py>(
    optimizer: &Bound<'py, PyAny>,
    i: usize,
    gradient: &Py<PyAny>,
    shared: bool,
    zero_grads: bool,
) -> PyResult<Bound<'py, PyAny>> {
    call(optimizer, "_gradient", (i, gradient, shared, zero_grads), None)
}

/// Runs a step of an optimizer whose arrays are not in host memory, on its backend.
pub fn backend_step(
    backend: &Bound<'_, PyAny>,
    optimizer: &Bound<'_, PyAny>,
    grads: Option<&Bound<'_, PyAny>>,
    grad_scale: Option<&Bound<'_, PyAny>>,
    zero_grads: Option<&Bound<'_, PyAny>>,
    partial: Option<&Bound<'_, PyAny>>,
) -> PyResult<bool> {
    let options = PyDict::new(backend.py());
    for (name, value) in [("grad_scale", grad_scale), ("zero_grads", zero_grads), ("partial", partial)] {
        if let Some(value) = value {
            options.set_item(name, value)?;
        }
    }
    call(backend, "step", (optimizer, grads), Some(&options))?.extract()
}
