//! A step's calls into the optimizer's Python half: to convert, to look up, and to explain. The only place that knows the names
//! of Python methods, which are in `python/schuss/_core/callbacks.py`.

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// Calls a method written in Python. When the interpreter ends, Python before 3.14 ends a daemon thread that waits for the GIL by
/// unwinding its stack, which Rust's frames must not take part in: such a thread waits for the end of the process instead.
fn call<'py>(
    object: &Bound<'py, PyAny>,
    method: &str,
    arguments: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>>,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    type Declared =
        unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject, *mut ffi::PyObject) -> *mut ffi::PyObject;
    type Unwinding =
        unsafe extern "C-unwind" fn(*mut ffi::PyObject, *mut ffi::PyObject, *mut ffi::PyObject) -> *mut ffi::PyObject;
    struct Wait;
    impl Drop for Wait {
        fn drop(&mut self) {
            loop {
                std::thread::park();
            }
        }
    }
    let (method, arguments) = (object.getattr(method)?, arguments.into_pyobject(object.py()).map_err(Into::into)?);
    // Hidden from the compiler, which takes it that calls of the function as it is declared never unwind.
    let function: Declared = std::hint::black_box(ffi::PyObject_Call);
    // SAFETY: the same function, whose calls may unwind; the calling convention is the same.
    let function = unsafe { std::mem::transmute::<Declared, Unwinding>(function) };
    let wait = Wait;
    let options = options.map_or(std::ptr::null_mut(), |options| options.as_ptr());
    // SAFETY: a callable, a tuple, and a dict or null, which are alive; the GIL is held.
    let result = unsafe { function(method.as_ptr(), arguments.as_ptr(), options) };
    std::mem::forget(wait);
    // SAFETY: a new reference, or null with an exception.
    unsafe { Bound::from_owned_ptr_or_err(object.py(), result) }
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

/// Raises an exception if an array has been replaced where the optimizer was given it.
pub fn look_again(optimizer: &Bound<'_, PyAny>) -> PyResult<()> {
    call(optimizer, "_look_again", (), None).map(drop)
}

/// The optimizer's own gradients.
pub fn own_grads<'py>(optimizer: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    call(optimizer, "_own_grads", (), None)
}

/// The values of each entry at a step, with the schedules applied.
pub fn scheduled_values(optimizer: &Bound<'_, PyAny>, step: u64) -> PyResult<Vec<Vec<f64>>> {
    call(optimizer, "_scheduled_values", (step,), None)?.extract()
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
