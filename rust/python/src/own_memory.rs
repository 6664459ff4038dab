//! Memory of arrays that nobody can resize or release. Knows no optimizer.

use numpy::PyUntypedArray;
use pyo3::prelude::*;

/// Owns the memory of the arrays that `numpy.asarray` makes of it: an array that had it could be resized, a memoryview released.
#[pyclass(frozen, module = "schuss._schuss")]
pub struct OwnedMemory(Py<PyUntypedArray>);

#[pymethods]
impl OwnedMemory {
    /// Takes the memory of an array that nobody else has.
    #[new]
    fn new(array: Py<PyUntypedArray>) -> OwnedMemory {
        OwnedMemory(array)
    }

    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.bind(py).getattr("__array_interface__")
    }
}
