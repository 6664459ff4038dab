//! NumPy arrays as the binding sees them: pointer, shape, type and flags, read directly from the array object. Knows no
//! optimizer.
//!
//! A type is recognized by comparing the pointer of NumPy's descriptor object, which also implies native byte order, or else by
//! its number. Everything else takes the slow path through Python, which converts or explains.

use std::ffi::c_int;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, Ordering};

use numpy::npyffi::{
    NPY_ARRAY_ALIGNED, NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_F_CONTIGUOUS, NPY_ARRAY_OWNDATA, NPY_ARRAY_WRITEABLE,
    PyArray_Descr, PyArrayObject, PyArrayObject_fields,
};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyMemoryView;
use pyo3::{PyTypeInfo, ffi};
use schuss::Dtype;

use crate::memory::{List, no_memory, push};

/// NumPy's descriptors of float32, float64 and float16.
static NATIVE: PyOnceLock<[(Py<PyArrayDescr>, Dtype); 3]> = PyOnceLock::new();
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
    if dtype.itemsize() != 2 || dtype.is_native_byteorder() == Some(false) {
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
    fn exact<'a>(&self, object: &'a Py<PyAny>) -> Option<&'a PyArrayObject_fields> {
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

    fn dtype(&self, descr: *mut PyArray_Descr) -> Option<Dtype> {
        match self.native.iter().find(|known| known.0 == descr) {
            Some(known) => Some(known.1),
            None => self.dtype_by_number(descr),
        }
    }

    /// The type of a descriptor that is a separate object, as unpickling makes them: by its type number and byte order.
    #[cold]
    fn dtype_by_number(&self, descr: *mut PyArray_Descr) -> Option<Dtype> {
        // SAFETY: descriptors of arrays that live while the GIL is held.
        let number = |descr: *mut PyArray_Descr| unsafe { (*descr).fields.type_num };
        // SAFETY: as above.
        let order = unsafe { (*descr).fields.byteorder } as u8;
        if order == if cfg!(target_endian = "little") { b'>' } else { b'<' } {
            return None;
        }
        self.native.iter().find(|known| !known.0.is_null() && number(known.0) == number(descr)).map(|known| known.1)
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

/// A parameter or state, with the properties that each step checks for changes. Small, because each step reads thousands.
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

fn shape(fields: &PyArrayObject_fields) -> &[isize] {
    if fields.nd == 0 {
        return &[];
    }
    // SAFETY: NumPy keeps `nd` dimensions there.
    unsafe { std::slice::from_raw_parts(fields.dimensions, fields.nd as usize) }
}

/// The memoryview that owns the memory of all arrays, if they are packed.
pub fn block(py: Python<'_>, arrays: &[Pinned]) -> Option<Py<PyMemoryView>> {
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

    /// The memoryview that owns the memory of the array that this is a view of, as of those that `schuss.pack` makes.
    fn block<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyMemoryView>> {
        let known = Known::new(py);
        // SAFETY: a reference that the array holds.
        let base = unsafe { Bound::from_borrowed_ptr_or_opt(py, self.fields(&known).base) }?;
        // SAFETY: a reference that the other array holds.
        let owner = unsafe { Bound::from_borrowed_ptr(py, known.owner(base.as_unbound())?) };
        owner.cast_into().ok()
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

    /// The same for an array that is only read, and may be read-only.
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
