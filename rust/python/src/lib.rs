//! The Python extension module `schuss._schuss`: what the Python package stands on, not for users.
//!
//! It validates what a wrong pointer could come from, releases the GIL, runs the kernel crate and maps errors. Messages
//! about arrays are written in Python, in one place; this module only finds out that something is off.

mod ahead;
mod arrays;
mod core;
#[cfg(feature = "cuda")]
mod cuda;
mod functional;
mod gradients;
mod group;
mod hold;
mod tree;
mod usual;

use pyo3::exceptions::{PyImportError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Threads that a step may use, the caller included.
#[pyfunction]
fn get_num_threads() -> PyResult<usize> {
    schuss::num_threads().map_err(PyValueError::new_err)
}

/// Sets the threads that a step may use, the caller included.
#[pyfunction]
fn set_num_threads(threads: usize) -> PyResult<()> {
    if threads == 0 {
        return Err(PyValueError::new_err("set_num_threads needs at least 1 thread, got 0"));
    }
    schuss::set_num_threads(threads);
    Ok(())
}

/// The CPU level in use.
#[pyfunction]
fn cpu_level() -> PyResult<&'static str> {
    schuss::level::in_use().map(schuss::level::Level::name).map_err(PyValueError::new_err)
}

/// The CPU levels that this machine has, slowest first.
#[pyfunction]
fn cpu_levels() -> Vec<&'static str> {
    schuss::level::Level::found().into_iter().map(schuss::level::Level::name).collect()
}

/// Every rule's descriptor: its hyperparameters, states and text.
#[pyfunction]
fn rules(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let all = PyDict::new(py);
    for rule in schuss::rules::ALL {
        let one = PyDict::new(py);
        one.set_item("doc", rule.doc)?;
        one.set_item("hypers", rule.hypers)?;
        one.set_item("states", rule.states)?;
        one.set_item("scalars", rule.scalars)?;
        one.set_item("each_step", rule.each_step)?;
        one.set_item("update", rule.update)?;
        one.set_item("layerwise", rule.layer.is_some())?;
        all.set_item(rule.name, one)?;
    }
    Ok(all)
}

// Fields of array objects are read as they are: a Python that can do without the GIL takes it for this module.
#[pymodule(gil_used = true)]
fn _schuss(module: &Bound<'_, PyModule>) -> PyResult<()> {
    schuss::level::in_use().map_err(PyImportError::new_err)?;
    schuss::num_threads().map_err(PyImportError::new_err)?;
    arrays::prepare(module.py())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<core::Core>()?;
    module.add_class::<hold::Hold>()?;
    module.add_function(wrap_pyfunction!(functional::update, module)?)?;
    module.add_function(wrap_pyfunction!(functional::sum_of_squares, module)?)?;
    module.add_function(wrap_pyfunction!(ahead::block_bytes, module)?)?;
    module.add_function(wrap_pyfunction!(ahead::keep_params, module)?)?;
    module.add_function(wrap_pyfunction!(ahead::restore_params, module)?)?;
    module.add_function(wrap_pyfunction!(ahead::are_apart, module)?)?;
    module.add_function(wrap_pyfunction!(ahead::changed_param, module)?)?;
    module.add_function(wrap_pyfunction!(ahead::set_aside, module)?)?;
    module.add_function(wrap_pyfunction!(arrays::register_bfloat16, module)?)?;
    module.add_function(wrap_pyfunction!(get_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(cpu_level, module)?)?;
    module.add_function(wrap_pyfunction!(cpu_levels, module)?)?;
    module.add_function(wrap_pyfunction!(rules, module)?)?;
    #[cfg(feature = "cuda")]
    cuda::add_to(module)?;
    Ok(())
}
