//! A parameter or state, with the properties that each step checks for changes. Knows no optimizer.

use std::ffi::c_int;

use numpy::npyffi::{
    NPY_ARRAY_ALIGNED, NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_F_CONTIGUOUS, NPY_ARRAY_OWNDATA, NPY_ARRAY_WRITEABLE,
    PyArrayObject_fields,
};
use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use schuss::Dtype;

use crate::arrays::{Known, fields, prefetch, shape};
use crate::memory::no_memory;
use crate::own_memory::OwnedMemory;

/// A pinned array. Small, because each step reads thousands.
pub struct Pinned {
    array: Py<PyUntypedArray>,
    pub data: *mut u8,
    pub dtype: Dtype,
    shape: Shape,
    pub len: usize,
    /// The contiguity flags that a gradient must share, so that equal offsets mean equal elements.
    order: c_int,
}

// SAFETY: the pointers are only dereferenced while the GIL is held, or by the driver under the optimizer's lock.
unsafe impl Send for Pinned {}
// SAFETY: as above.
unsafe impl Sync for Pinned {}

/// What owns the memory of all arrays, if they are packed.
pub fn block(py: Python<'_>, arrays: &[Pinned]) -> Option<Py<OwnedMemory>> {
    let first = arrays.first()?.block(py)?;
    arrays.iter().all(|array| array.block(py).is_some_and(|own| own.is(&first))).then(|| first.unbind())
}

/// A shape. Most arrays have one axis, whose length is known without it.
enum Shape {
    /// One axis. If the memory has another owner, which is kept alive, the length stays: NumPy resizes no such array.
    Line(Option<Py<PyAny>>),
    Axes(Box<[isize]>),
}

impl Pinned {
    /// Pins an array that Python has accepted as a parameter or state.
    pub fn new(array: &Bound<'_, PyUntypedArray>) -> PyResult<Pinned> {
        Pinned::with_flags(array, NPY_ARRAY_ALIGNED | NPY_ARRAY_WRITEABLE)
    }

    /// Pins an array that is only read.
    pub fn readable(array: &Bound<'_, PyUntypedArray>) -> PyResult<Pinned> {
        Pinned::with_flags(array, NPY_ARRAY_ALIGNED)
    }

    fn with_flags(array: &Bound<'_, PyUntypedArray>, wanted: c_int) -> PyResult<Pinned> {
        // SAFETY: it is an ndarray, and the GIL is held.
        let fields = unsafe { fields(array.as_unbound()) };
        let contiguous = fields.flags & (NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_F_CONTIGUOUS);
        let dtype = Known::new(array.py()).dtype(fields.descr);
        let (Some(dtype), true) = (dtype, fields.flags & wanted == wanted && contiguous != 0) else {
            return Err(PyTypeError::new_err(
                "not a contiguous array of a known floating-point type that can be written",
            ));
        };
        Ok(Pinned {
            array: array.clone().unbind(),
            data: fields.data.cast(),
            dtype,
            shape: match shape(fields) {
                [_] if fields.flags & NPY_ARRAY_OWNDATA == 0 => {
                    // SAFETY: a reference that the array holds.
                    let owner = unsafe { Bound::from_borrowed_ptr_or_opt(array.py(), fields.base) };
                    Shape::Line(owner.map(Bound::unbind))
                }
                [_] => Shape::Line(None),
                axes => Shape::Axes(schuss::try_collect(axes.iter().copied()).map_err(no_memory)?.into()),
            },
            len: shape(fields).iter().map(|&n| n as usize).product(),
            order: if contiguous & NPY_ARRAY_C_CONTIGUOUS != 0 {
                NPY_ARRAY_C_CONTIGUOUS
            } else {
                NPY_ARRAY_F_CONTIGUOUS
            },
        })
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Shape::Line(owner) = &self.shape {
            visit.call(owner)?;
        }
        visit.call(&self.array)
    }

    /// What owns the memory of the array that this is a view of, as of those that `schuss.pack` makes.
    fn block<'py>(&self, py: Python<'py>) -> Option<Bound<'py, OwnedMemory>> {
        let known = Known::new(py);
        // SAFETY: a reference that the array holds.
        let base = unsafe { Bound::from_borrowed_ptr_or_opt(py, self.fields(&known).base) }?;
        // SAFETY: a reference that the other array holds.
        let owner = unsafe { Bound::from_borrowed_ptr(py, known.owner(base.as_unbound())?) };
        owner.cast_into().ok()
    }

    /// Pins the array once more.
    pub fn again(&self, py: Python<'_>) -> PyResult<Pinned> {
        Pinned::new(self.array.bind(py))
    }

    /// Prefetches the array object.
    pub fn prefetch(&self) {
        prefetch(&self.array);
    }

    /// Prefetches the array's shape, if it has to be read.
    pub fn prefetch_shape(&self, known: &Known<'_>) {
        if !matches!(self.shape, Shape::Line(Some(_))) {
            schuss::prefetch(self.fields(known).dimensions);
        }
    }

    /// Whether it is this object.
    pub fn is(&self, object: &Py<PyAny>) -> bool {
        self.array.as_ptr() == object.as_ptr()
    }

    fn has_shape(&self, shape: &[isize]) -> bool {
        match (&self.shape, shape) {
            (Shape::Line(_), [length]) => *length as usize == self.len,
            (Shape::Axes(axes), shape) => **axes == *shape,
            _ => false,
        }
    }

    fn fields<'a>(&'a self, _held: &Known<'_>) -> &'a PyArrayObject_fields {
        // SAFETY: it is an ndarray, and the GIL is held, as `Known` shows.
        unsafe { fields(&self.array) }
    }

    /// Whether the array is unchanged: not resized, re-pointed, re-typed or made read-only.
    pub fn unchanged(&self, known: &Known<'_>) -> bool {
        self.as_before(NPY_ARRAY_WRITEABLE, known)
    }

    /// Whether an array that is only read, and may be read-only, is unchanged otherwise.
    pub fn unmoved(&self, known: &Known<'_>) -> bool {
        self.as_before(0, known)
    }

    #[inline]
    fn as_before(&self, flags: c_int, known: &Known<'_>) -> bool {
        let fields = self.fields(known);
        let wanted = flags | NPY_ARRAY_ALIGNED | self.order;
        fields.data.cast() == self.data
            && fields.flags & wanted == wanted
            && known.dtype(fields.descr) == Some(self.dtype)
            && match self.shape {
                Shape::Line(Some(_)) => fields.nd == 1,
                _ => self.has_shape(shape(fields)),
            }
    }

    /// Whether the array still has the same memory with the same length, even if its shape, dtype or flags changed.
    pub fn in_place(&self, py: Python<'_>) -> bool {
        let array = self.array.bind(py);
        self.fields(&Known::new(py)).data.cast() == self.data
            && array.len() * array.dtype().itemsize() == self.len * self.dtype.size()
    }

    /// Whether both have the same shape and order, so that equal offsets mean equal elements.
    pub fn congruent(&self, other: &Pinned) -> bool {
        let alike = match &other.shape {
            Shape::Line(_) => matches!(self.shape, Shape::Line(_)) && self.len == other.len,
            Shape::Axes(axes) => self.has_shape(axes) && matches!(self.shape, Shape::Axes(_)),
        };
        alike && self.order == other.order
    }

    /// The length of the first axis, if there is one.
    pub fn length(&self) -> Option<usize> {
        match &self.shape {
            Shape::Line(_) => Some(self.len),
            Shape::Axes(axes) => axes.first().map(|&length| length as usize),
        }
    }

    /// Whether the array is in Fortran order.
    pub fn fortran(&self) -> bool {
        self.order == NPY_ARRAY_F_CONTIGUOUS
    }

    /// The address range of the array.
    pub fn bytes(&self) -> (usize, usize) {
        (self.data as usize, self.data as usize + self.len * self.dtype.size())
    }

    /// Pointer and type of a gradient that can be used without conversion; with `writable` it must be writable.
    pub fn gradient(&self, candidate: &Py<PyAny>, writable: bool, known: &Known<'_>) -> Option<(*mut u8, Dtype)> {
        let fields = known.exact(candidate)?;
        let wanted = NPY_ARRAY_ALIGNED | self.order | if writable { NPY_ARRAY_WRITEABLE } else { 0 };
        if fields.flags & wanted != wanted || !self.has_shape(shape(fields)) {
            return None;
        }
        known.dtype(fields.descr).map(|dtype| (fields.data.cast(), dtype))
    }
}
