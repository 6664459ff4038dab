//! The Python extension module `schuss._schuss`, on which the Python package is built; not for users.
//!
//! It validates everything that could give a wrong pointer, releases the GIL, calls the kernel crate and maps errors. Messages
//! about arrays are written in Python, in one place; this module only detects that something is wrong.

mod arrangement;
mod arrays;
mod backup;
mod blas;
mod bytes;
mod callbacks;
mod changes;
mod collector;
mod core;
#[cfg(feature = "cuda")]
mod cuda;
mod fingerprint;
mod functional;
mod gradients;
mod group;
mod inner;
mod lists;
mod lock;
mod look_ahead;
mod memory;
mod options;
mod own_memory;
mod pinned;
mod rows;
mod rules;
mod sharded;
mod step;
mod stepping;
mod tree;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Threads that a step may use, the caller included.
#[pyfunction]
fn get_num_threads() -> PyResult<usize> {
    schuss::num_threads().map_err(PyValueError::new_err)
}

/// Sets the threads that a step may use, the caller included.
#[pyfunction]
fn set_num_threads(threads: usize) {
    schuss::set_num_threads(threads);
}

/// The CPU level in use.
#[pyfunction]
fn cpu_level() -> PyResult<&'static str> {
    schuss::level::in_use().map(schuss::level::Level::name).map_err(PyValueError::new_err)
}

/// The CPU levels that this machine supports, slowest first.
#[pyfunction]
fn cpu_levels() -> Vec<&'static str> {
    schuss::level::Level::found().into_iter().map(schuss::level::Level::name).collect()
}

// Array objects are read without locks, so free-threaded Python must enable the GIL for this module.
#[pymodule(gil_used = true)]
fn _schuss(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // Read now; what is wrong is an error when it is first used: an import may be for something else.
    let (_, _) = (schuss::level::in_use(), schuss::num_threads());
    arrays::prepare(module.py())?;
    lists::prepare(module.py());
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("EVALUATING", core::EVALUATING)?;
    module.add_class::<core::Core>()?;
    module.add_class::<lock::ExclusiveLock>()?;
    module.add_class::<look_ahead::AtLookAhead>()?;
    module.add_class::<look_ahead::OtherValues>()?;
    module.add_class::<changes::Changes>()?;
    module.add_class::<own_memory::OwnedMemory>()?;
    module.add_class::<lock::AfterStep>()?;
    module.add_class::<arrangement::Arrangement>()?;
    module.add_class::<functional::Job>()?;
    module.add_class::<functional::Stepper>()?;
    module.add_class::<sharded::Shards>()?;
    module.add_class::<stepping::Stepping>()?;
    module.add_function(wrap_pyfunction!(sharded::cut_size, module)?)?;
    module.add_function(wrap_pyfunction!(look_ahead::apart, module)?)?;
    module.add_function(wrap_pyfunction!(arrays::are_plain, module)?)?;
    module.add_function(wrap_pyfunction!(functional::sum_of_squares, module)?)?;
    module.add_function(wrap_pyfunction!(functional::clip_factor, module)?)?;
    module.add_function(wrap_pyfunction!(rules::rules, module)?)?;
    module.add_function(wrap_pyfunction!(rules::rule_tree, module)?)?;
    module.add_function(wrap_pyfunction!(rules::prologue, module)?)?;
    module.add_function(wrap_pyfunction!(arrays::register_bfloat16, module)?)?;
    module.add_function(wrap_pyfunction!(blas::share_threads_with_blas, module)?)?;
    module.add_function(wrap_pyfunction!(get_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(cpu_level, module)?)?;
    module.add_function(wrap_pyfunction!(cpu_levels, module)?)?;
    #[cfg(feature = "cuda")]
    cuda::add_to(module)?;
    Ok(())
}
