//! The items of Python lists. Where the layout of lists is known they are read directly: of thousands of items, a call for each
//! takes longer than what it is for. Knows no array.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyList;

/// The latest version of Python whose lists are known to begin with [`Fields`], as those of all versions since 3.10 do.
const LATEST: (u8, u8) = (3, 14);

/// Whether this Python has no GIL, so that another thread may change a list at any time: then an object begins with more than a
/// count and a type, and lists are left to Python's own functions.
const FREE_THREADED: bool = size_of::<ffi::PyObject>() > 2 * size_of::<usize>();

/// Whether this Python's lists begin with them, and nothing changes them while the GIL is held.
static KNOWN: AtomicBool = AtomicBool::new(false);

/// How a list begins. It is not part of the stable ABI, but declared in CPython's headers.
#[repr(C)]
struct Fields {
    head: ffi::PyVarObject,
    items: *const Py<PyAny>,
}

/// Looks at the version of Python.
pub fn prepare(py: Python<'_>) {
    let version = py.version_info();
    KNOWN.store(!FREE_THREADED && (version.major, version.minor) <= LATEST, Ordering::Relaxed);
}

/// The items of a list; None where they cannot be read directly.
///
/// # Safety
/// Nothing may run that could change the list while its items are in use.
pub unsafe fn items<'a>(list: &'a Bound<'_, PyList>) -> Option<&'a [Py<PyAny>]> {
    match list.len() {
        _ if !KNOWN.load(Ordering::Relaxed) => None,
        0 => Some(&[]),
        // SAFETY: the list begins like this, has so many items, and upheld by the caller.
        length => unsafe { Some(std::slice::from_raw_parts((*list.as_ptr().cast::<Fields>()).items, length)) },
    }
}

/// A reference, or None.
pub trait Pointer: Sized {
    fn pointer(&self) -> Option<*mut ffi::PyObject>;
}

impl Pointer for Py<PyAny> {
    fn pointer(&self) -> Option<*mut ffi::PyObject> {
        Some(self.as_ptr())
    }
}

impl Pointer for Option<Py<PyAny>> {
    fn pointer(&self) -> Option<*mut ffi::PyObject> {
        self.as_ref().map(Py::as_ptr)
    }
}

/// Whether these are the same objects, compared as memory, which takes a fraction of a nanosecond an item.
pub fn same<T: Pointer>(items: &[Py<PyAny>], wanted: &[T]) -> bool {
    const { assert!(size_of::<T>() == size_of::<usize>()) };
    // SAFETY: each is a pointer; null is None.
    let (items, wanted) = unsafe {
        (
            std::slice::from_raw_parts(items.as_ptr().cast::<usize>(), items.len()),
            std::slice::from_raw_parts(wanted.as_ptr().cast::<usize>(), wanted.len()),
        )
    };
    items == wanted
}

/// Whether a list has these items, and anything in the place of a None.
pub fn has<T: Pointer>(list: &Bound<'_, PyList>, wanted: &[T]) -> bool {
    // SAFETY: nothing else runs.
    unsafe { items(list) }.is_some_and(|items| same(items, wanted))
        || all(list, wanted.len(), |i, item| wanted[i].pointer().is_none_or(|wanted| wanted == item))
}

/// Whether a list has so many items, and each is the one that is looked for; `is` runs no code in Python.
fn all(list: &Bound<'_, PyList>, count: usize, mut is: impl FnMut(usize, *mut ffi::PyObject) -> bool) -> bool {
    if list.len() != count {
        return false;
    }
    // SAFETY: nothing else runs.
    match unsafe { items(list) } {
        Some(items) => items.iter().enumerate().all(|(i, item)| is(i, item.as_ptr())),
        None => (0..count).all(|i| list.get_item(i).is_ok_and(|item| is(i, item.as_ptr()))),
    }
}
