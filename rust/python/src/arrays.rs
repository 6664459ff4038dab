//! NumPy arrays as the binding sees them: pointer, shape, type and flags, read directly from the array object. Knows no
//! optimizer.
//!
//! A type is recognized by comparing the pointer of NumPy's descriptor object, which also implies native byte order, or else by
//! its number. Everything else takes the slow path through Python, which converts or explains.

use std::ffi::c_int;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, Ordering};

use numpy::npyffi::{
    NPY_ARRAY_ALIGNED, NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_F_CONTIGUOUS, NPY_ARRAY_WRITEABLE, PyArray_Descr,
    PyArrayObject, PyArrayObject_fields, PyDataType_ELSIZE,
};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::{PyTypeInfo, ffi};
use schuss::Dtype;

use crate::memory::{List, push};

/// NumPy's descriptors of float32, float64 and float16.
static NATIVE: PyOnceLock<[(Py<PyArrayDescr>, Dtype); 3]> = PyOnceLock::new();
/// The first number of a type that is not NumPy's own.
const USER_DEFINED: c_int = 256;
/// ml_dtypes' descriptor of bfloat16, once registered; never released.
static BFLOAT16: AtomicPtr<PyArray_Descr> = AtomicPtr::new(std::ptr::null_mut());

/// Looks up NumPy's descriptors.
pub fn prepare(py: Python<'_>) -> PyResult<()> {
    let half = PyArrayDescr::new(py, "float16")?;
    let native = [
        (numpy::dtype::<f32>(py).unbind(), Dtype::F32),
        (numpy::dtype::<f64>(py).unbind(), Dtype::F64),
        (half.unbind(), Dtype::F16),
    ];
    let _ = NATIVE.set(py, native);
    Ok(())
}

/// Registers the dtype of bfloat16 arrays; Python calls it with ml_dtypes' dtype when it first meets one.
#[pyfunction]
pub fn register_bfloat16(dtype: Bound<'_, PyArrayDescr>) -> PyResult<()> {
    // Of a type of a package's own: any number of bytes may be called bfloat16.
    if dtype.itemsize() != 2 || dtype.num() < USER_DEFINED || dtype.is_native_byteorder() == Some(false) {
        return Err(PyTypeError::new_err("bfloat16 has two bytes an element in native order"));
    }
    BFLOAT16.store(dtype.into_ptr().cast(), Ordering::Release);
    Ok(())
}

/// The known array and dtype objects, looked up once for many arrays. Its existence also shows that the GIL is held, by this
/// thread or by one that waits for it, so array objects do not change.
pub struct Known<'py> {
    ndarray: *mut ffi::PyTypeObject,
    native: [(*mut PyArray_Descr, Dtype); 4],
    none: *mut ffi::PyObject,
    held: PhantomData<Python<'py>>,
}

// SAFETY: it gives access to fields of objects that are only read, never to Python functions or reference counts, and nobody
// writes those fields while a waiting thread holds the GIL.
unsafe impl Sync for Known<'_> {}

/// Whether an object is an array that may be written.
pub fn is_writable(object: &Bound<'_, PyAny>) -> bool {
    object.cast::<PyUntypedArray>().is_ok_and(|array| {
        // SAFETY: it is an ndarray, or of a subclass, which has the same fields.
        unsafe { fields(array.as_unbound()) }.flags & NPY_ARRAY_WRITEABLE != 0
    })
}

impl<'py> Known<'py> {
    /// The types known now; bfloat16 is among them once it has been registered.
    pub fn new(py: Python<'py>) -> Known<'py> {
        let bfloat16 = (BFLOAT16.load(Ordering::Acquire), Dtype::Bf16);
        let native = match NATIVE.get(py) {
            Some([a, b, c]) => [a, b, c].map(|(known, dtype)| (known.as_ptr().cast(), *dtype)),
            None => [(std::ptr::null_mut(), Dtype::F32); 3],
        };
        let native = [native[0], native[1], native[2], bfloat16];
        // SAFETY: the GIL is held.
        let none = unsafe { ffi::Py_None() };
        Known { ndarray: PyUntypedArray::type_object_raw(py), native, none, held: PhantomData }
    }

    /// The fields of an object whose type is exactly ndarray: a subclass, such as a masked array, may give its data another
    /// meaning.
    pub fn exact<'a>(&self, object: &'a Py<PyAny>) -> Option<&'a PyArrayObject_fields> {
        // SAFETY: the GIL is held, as `self` says.
        let exact = unsafe { (*object.as_ptr()).ob_type } == self.ndarray;
        // SAFETY: it is an ndarray.
        exact.then(|| unsafe { fields(object) })
    }

    /// An aligned contiguous array of a known type, writable if it is to be written.
    pub fn plain<'a>(&self, object: &'a Py<PyAny>, written: bool) -> Option<Plain<'a>> {
        let fields = self.exact(object)?;
        let order = fields.flags & (NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_F_CONTIGUOUS);
        let wanted = NPY_ARRAY_ALIGNED | if written { NPY_ARRAY_WRITEABLE } else { 0 };
        if fields.flags & wanted != wanted || order == 0 {
            return None;
        }
        let (dtype, shape) = (self.dtype(fields.descr)?, shape(fields));
        let len = shape.iter().map(|&n| n as usize).product();
        Some(Plain { data: fields.data.cast(), dtype, len, shape, order })
    }

    /// The type of a descriptor, if it is a known one.
    pub fn dtype(&self, descr: *mut PyArray_Descr) -> Option<Dtype> {
        match self.native.iter().find(|known| known.0 == descr) {
            Some(known) => Some(known.1),
            None => self.dtype_by_number(descr),
        }
    }

    /// The type of a descriptor that is a separate object, as unpickling makes them: by its type number and byte order.
    #[cold]
    fn dtype_by_number(&self, descr: *mut PyArray_Descr) -> Option<Dtype> {
        // SAFETY: descriptors of arrays that live while the GIL is held, by this thread or by one that waits for it. The size may
        // be another: anybody can set the state of a descriptor.
        let kind = |descr: *mut PyArray_Descr| unsafe {
            ((*descr).fields.type_num, PyDataType_ELSIZE(Python::assume_attached(), descr))
        };
        // SAFETY: as above.
        let order = unsafe { (*descr).fields.byteorder } as u8;
        if order == if cfg!(target_endian = "little") { b'>' } else { b'<' } {
            return None;
        }
        self.native.iter().find(|known| !known.0.is_null() && kind(known.0) == kind(descr)).map(|known| known.1)
    }

    /// Python's None.
    pub fn none(&self) -> *mut ffi::PyObject {
        self.none
    }

    /// What owns an array's memory; None for an array that may be resized.
    pub fn owner(&self, object: &Py<PyAny>) -> Option<*mut ffi::PyObject> {
        self.exact(object).map(|fields| fields.base).filter(|base| !base.is_null())
    }

    /// Whether an array may be written.
    pub fn writable(&self, object: &Py<PyAny>) -> bool {
        self.exact(object).is_some_and(|fields| fields.flags & NPY_ARRAY_WRITEABLE != 0)
    }

    /// Prefetches an object's shape, if it is an array.
    pub fn prefetch_shape(&self, object: &Py<PyAny>) {
        if let Some(fields) = self.exact(object) {
            schuss::prefetch(fields.dimensions);
        }
    }
}

/// The properties of a contiguous array that live as long as the GIL is held.
pub struct Plain<'a> {
    pub data: *mut u8,
    pub dtype: Dtype,
    pub len: usize,
    shape: &'a [isize],
    order: c_int,
}

/// A range of addresses.
#[derive(Clone, Copy)]
pub struct Range(usize, usize);

impl Range {
    /// Whether they have an address in common.
    pub fn overlap(self, other: &Range) -> bool {
        self.0 < other.1 && other.0 < self.1
    }
}

impl Plain<'_> {
    /// Whether both have the same shape and order, so that equal offsets mean equal elements.
    pub fn is_like(&self, other: &Plain<'_>) -> bool {
        self.shape == other.shape && self.order & other.leading_order() != 0
    }

    /// The order that gradients and states must have: C, if it is both.
    fn leading_order(&self) -> c_int {
        match self.order & NPY_ARRAY_C_CONTIGUOUS {
            0 => self.order,
            order => order,
        }
    }

    /// Whether it has no axes.
    pub fn is_scalar(&self) -> bool {
        self.shape.is_empty()
    }

    /// Its addresses.
    pub fn bytes(&self) -> Range {
        Range(self.data as usize, self.data as usize + self.len * self.dtype.size())
    }
}

/// Whether all are contiguous arrays of known types that can be used as they are. If they are to be `written` they must also be
/// writable, and share no memory.
#[pyfunction]
pub fn are_plain(py: Python<'_>, arrays: List<Py<PyAny>>, written: bool) -> PyResult<bool> {
    let (known, mut ranges) = (Known::new(py), Vec::new());
    for array in &arrays.0 {
        let Some(plain) = known.plain(array, written) else { return Ok(false) };
        if written && plain.len > 0 {
            push(&mut ranges, plain.bytes())?;
        }
    }
    ranges.sort_unstable_by_key(|range| range.0);
    Ok(ranges.windows(2).all(|pair| !pair[0].overlap(&pair[1])))
}

/// The raw array object, read only.
///
/// # Safety
/// It must be an ndarray, and the GIL must be held, by this thread or by one that waits for it.
pub unsafe fn fields<T>(array: &Py<T>) -> &PyArrayObject_fields {
    // SAFETY: upheld by the caller.
    unsafe { &(*array.as_ptr().cast::<PyArrayObject>()).fields }
}

/// Prefetches an object.
pub fn prefetch<T>(object: &Py<T>) {
    let start = object.as_ptr().cast::<u8>();
    schuss::prefetch(start);
    // An array's flags are in its second cache line.
    schuss::prefetch(start.wrapping_add(64));
}

/// Its shape.
pub fn shape(fields: &PyArrayObject_fields) -> &[isize] {
    if fields.nd == 0 {
        return &[];
    }
    // SAFETY: NumPy keeps `nd` dimensions there.
    unsafe { std::slice::from_raw_parts(fields.dimensions, fields.nd as usize) }
}
