//! Arrays of any type as bytes, for changes that copy. Knows no optimizer.

use std::ffi::c_int;

use numpy::npyffi::{NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_F_CONTIGUOUS, NPY_ARRAY_WRITEABLE};
use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arrays::fields;

/// A contiguous array of any type as bytes, with the properties that are checked again before it is used.
pub struct Bytes {
    array: Py<PyUntypedArray>,
    data: *mut u8,
    len: usize,
    flags: c_int,
}

// SAFETY: the pointer is only dereferenced by whoever has checked that the array is unchanged.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// An array that is read, or also written.
    pub fn new(array: &Bound<'_, PyUntypedArray>, written: bool) -> PyResult<Bytes> {
        // SAFETY: it is an ndarray, and the GIL is held.
        let fields = unsafe { fields(array.as_unbound()) };
        let flags = fields.flags & (NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_F_CONTIGUOUS | NPY_ARRAY_WRITEABLE);
        if flags & !NPY_ARRAY_WRITEABLE == 0 || (written && flags & NPY_ARRAY_WRITEABLE == 0) {
            return Err(PyValueError::new_err("an array must be contiguous, and writable if it is changed"));
        }
        let len = array.len() * array.dtype().itemsize();
        Ok(Bytes { array: array.clone().unbind(), data: fields.data.cast(), len, flags })
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether equal offsets mean equal elements, if shapes and types are equal.
    pub fn is_like(&self, other: &Bytes) -> bool {
        self.len == other.len && self.flags & other.flags & (NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_F_CONTIGUOUS) != 0
    }

    /// Whether the array still has the same memory, as long, and as writable.
    pub fn unchanged(&self, py: Python<'_>) -> bool {
        let array = self.array.bind(py);
        // SAFETY: it is an ndarray, and the GIL is held.
        let fields = unsafe { fields(&self.array) };
        fields.data.cast() == self.data
            && fields.flags & self.flags == self.flags
            && array.len() * array.dtype().itemsize() == self.len
    }

    /// Copies another array's bytes here.
    ///
    /// # Safety
    /// Both must be unchanged, of the same length, and nobody else may write them during the call.
    pub unsafe fn copy_from(&self, other: &Bytes) {
        // SAFETY: upheld by the caller.
        unsafe { self.data.copy_from(other.data, self.len) };
    }
}
