//! Prepared changes to an optimizer, made in one call. An exception such as Ctrl-C may arrive between any two instructions of
//! Python, but not in here: everything that may fail is done before, and after it all is either old or new. Knows no rule.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ThreadId};

use numpy::PyUntypedArray;
use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use pyo3::{PyTypeInfo, ffi};

use crate::arrays::{Known, is_writable};
use crate::bytes::Bytes;
use crate::callbacks::call_object;
use crate::collector::Paused;
use crate::functional::Job;
use crate::group::detach_if;
use crate::memory::{List, collect, no_memory};

/// Bytes that are copied at least, before the GIL is released.
const RELEASE_GIL: usize = 1 << 16;

/// An object, the name of its attribute, and the new value.
type Attribute = (Py<PyAny>, Py<PyString>, Py<PyAny>);

/// What attributes had before. Dropping a value may run any code, so they live until all is done.
pub type Old<'py> = Vec<Option<Bound<'py, PyAny>>>;

/// Changes to make together: ``attributes`` of objects, set as ``object.__setattr__`` does; ``jobs`` to run; ``copies`` of
/// arrays, each a target and a source of the same layout; ``fills`` of arrays with a number; and native functions to call with
/// their arguments, last.
#[pyclass(frozen, module = "schuss._schuss")]
pub struct Changes {
    attributes: Vec<Attribute>,
    jobs: Vec<Py<Job>>,
    /// Whether a step has run the jobs.
    jobs_ran: AtomicBool,
    copies: Vec<(Bytes, Bytes)>,
    fills: Vec<(Py<PyUntypedArray>, f64)>,
    calls: Vec<(Py<PyAny>, Py<PyTuple>)>,
    /// Whether they are also made after a step that was skipped.
    pub if_skipped: bool,
    /// Kept alive until the changes are made.
    kept: Option<Py<PyAny>>,
}

#[pymethods]
impl Changes {
    #[new]
    #[pyo3(signature = (attributes=List::EMPTY, *, jobs=List::EMPTY, copies=List::EMPTY, fills=List::EMPTY, calls=List::EMPTY, if_skipped=false, kept=None))]
    fn new(
        attributes: List<Attribute>,
        jobs: List<Py<Job>>,
        copies: List<(Bound<'_, PyUntypedArray>, Bound<'_, PyUntypedArray>)>,
        fills: List<(Py<PyUntypedArray>, f64)>,
        calls: List<(Py<PyAny>, Py<PyTuple>)>,
        if_skipped: bool,
        kept: Option<Py<PyAny>>,
    ) -> PyResult<Changes> {
        let copies = copies.0.iter().map(|(target, source)| {
            let (target, source) = (Bytes::new(target, true)?, Bytes::new(source, false)?);
            if !target.is_like(&source) {
                return Err(PyValueError::new_err("an array can only be copied to one of the same layout"));
            }
            Ok((target, source))
        });
        Ok(Changes {
            attributes: attributes.0,
            jobs: jobs.0,
            jobs_ran: AtomicBool::new(false),
            copies: collect(copies)?,
            fills: fills.0,
            calls: calls.0,
            if_skipped,
            kept,
        })
    }

    /// Makes the changes. On an error nothing has changed.
    pub fn make(&self, py: Python<'_>) -> PyResult<()> {
        let _paused = Paused::new(py);
        self.check(py)?;
        self.make_checked(py).map(drop)
    }

    /// Calls functions written in Python, each with an argument, then makes the changes. If any of this fails, all functions are
    /// called with their other argument, which takes their work back.
    fn make_after(&self, py: Python<'_>, calls: Vec<(Py<PyAny>, Py<PyAny>, Py<PyAny>)>) -> PyResult<()> {
        let call = |function: &Py<PyAny>, argument: &Py<PyAny>| {
            call_object(function.bind(py), &PyTuple::new(py, [argument])?, None).map(drop)
        };
        let made = calls.iter().try_for_each(|(function, forth, _)| call(function, forth)).and_then(|()| self.make(py));
        if made.is_err() {
            for (function, _, back) in &calls {
                // An interrupt may cut one off too.
                let _ = (0..3).find(|_| call(function, back).is_ok());
            }
        }
        made
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.attributes.iter().try_for_each(|(object, _, value)| {
            visit.call(object)?;
            visit.call(value)
        })?;
        self.jobs.iter().try_for_each(|job| visit.call(job))?;
        self.fills.iter().try_for_each(|(array, _)| visit.call(array))?;
        self.calls.iter().try_for_each(|(function, arguments)| {
            visit.call(function)?;
            visit.call(arguments)
        })?;
        self.kept.iter().try_for_each(|kept| visit.call(kept))
    }
}

impl Changes {
    /// Raises an exception if an array is not what it was when the changes were prepared.
    pub fn check(&self, py: Python<'_>) -> PyResult<()> {
        let known = Known::new(py);
        let same = self.copies.iter().all(|(target, source)| target.unchanged(py) && source.unchanged(py))
            && self.jobs.iter().all(|job| job.get().unchanged(&known))
            && self.fills.iter().all(|(array, _)| is_writable(array.bind(py)));
        if same {
            return Ok(());
        }
        Err(PyValueError::new_err("an array was resized, re-pointed or made read-only meanwhile; nothing was changed"))
    }

    /// The programs that it runs.
    pub fn jobs(&self) -> &[Py<Job>] {
        &self.jobs
    }

    /// Says that a step has run the programs.
    pub fn jobs_ran(&self) {
        self.jobs_ran.store(true, Ordering::Relaxed);
    }

    /// Makes the changes, which were checked: no code of anybody else's has run since, and none runs here.
    pub fn make_checked<'py>(&self, py: Python<'py>) -> PyResult<Old<'py>> {
        let _paused = Paused::new(py);
        let old = self.set_attributes(py)?;
        if !self.jobs_ran.load(Ordering::Relaxed) {
            // One that runs already fails before it has written anything.
            let ran = self.jobs.iter().try_for_each(|job| job.get().run_checked(py));
            ran.inspect_err(|_| self.put_back(py, &old))?;
        }
        let is_large = |(target, _): &&(Bytes, Bytes)| target.len() >= RELEASE_GIL;
        // Small ones may be values that other threads read while they hold the GIL.
        for large in [false, true] {
            // SAFETY: just checked; the arrays are kept alive, and nobody resizes an array that is in use.
            detach_if(py, large && self.copies.iter().any(|one| is_large(&one)), || unsafe {
                let copies = self.copies.iter().filter(|one| is_large(one) == large);
                copies.for_each(|(target, source)| target.copy_from(source));
            })?;
        }
        for (array, value) in &self.fills {
            // NumPy's own method, whatever class the array has.
            PyUntypedArray::type_object(py).call_method1("fill", (array, *value))?;
        }
        for (function, arguments) in &self.calls {
            function.call1(py, arguments.bind(py))?;
        }
        Ok(old)
    }

    /// Sets the first attributes to these values again.
    fn put_back(&self, py: Python<'_>, old: &[Option<Bound<'_, PyAny>>]) {
        for ((object, name, _), value) in self.attributes.iter().zip(old) {
            let value = value.as_ref().map_or(std::ptr::null_mut(), |value| value.as_ptr());
            // SAFETY: references that are alive; a null value deletes the attribute.
            if unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value) } != 0 {
                drop(PyErr::take(py));
            }
        }
    }

    /// Sets all attributes or, on an error, none; returns their old values.
    fn set_attributes<'py>(&self, py: Python<'py>) -> PyResult<Old<'py>> {
        let mut old = Vec::new();
        old.try_reserve_exact(self.attributes.len()).map_err(no_memory)?;
        for (object, name, value) in &self.attributes {
            // SAFETY: references that are alive; the result is a new reference, or null with an exception.
            let before = unsafe {
                Bound::from_owned_ptr_or_err(py, ffi::PyObject_GenericGetAttr(object.as_ptr(), name.as_ptr()))
            };
            old.push(before.ok());
            // SAFETY: as above.
            if unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value.as_ptr()) } == 0 {
                continue;
            }
            let error = PyErr::fetch(py);
            self.put_back(py, &old[..old.len() - 1]);
            return Err(error);
        }
        Ok(old)
    }
}

/// Changes that are waiting for a step, each for the next one of a thread.
#[derive(Default)]
pub struct Waiting {
    changes: Mutex<Vec<(ThreadId, Py<Changes>)>>,
    any: AtomicBool,
}

impl Waiting {
    /// Adds changes for this thread; they come before those that are waiting already.
    pub fn add(&self, changes: Py<Changes>) {
        self.locked(|waiting| waiting.push((thread::current().id(), changes)));
    }

    /// Takes changes away again, unless a step has taken them.
    pub fn remove(&self, changes: &Py<Changes>) {
        if !self.any() {
            return;
        }
        let mine = |(_, one): &(ThreadId, Py<Changes>)| one.as_ptr() == changes.as_ptr();
        let removed = self.locked(|waiting| waiting.iter().rposition(mine).map(|place| waiting.remove(place)));
        drop(removed); // after the lock, since dropping Python objects may run any code
    }

    /// Whether any wait.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    fn locked<T>(&self, f: impl FnOnce(&mut Vec<(ThreadId, Py<Changes>)>) -> T) -> T {
        let mut changes = self.changes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let result = f(&mut changes);
        self.any.store(!changes.is_empty(), Ordering::Relaxed);
        result
    }

    /// Takes those of this thread, for the step that begins, the latest first: a wrapped optimizer's own come before its wrapper's.
    pub fn take(&self) -> Vec<Py<Changes>> {
        if !self.any() {
            return Vec::new();
        }
        let this = thread::current().id();
        let own = |(thread, _): &mut (ThreadId, Py<Changes>)| *thread == this;
        let mut taken: Vec<_> = self.locked(|changes| changes.extract_if(.., own).map(|(_, one)| one).collect());
        taken.reverse();
        taken
    }
}
