//! Contexts that back up parameters and restore them exactly: for a look-ahead point, or for other weights. Knows no GPU.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use schuss::{Backup, Step};

use crate::arrays::Known;
use crate::backup::{backup, restore, save};
use crate::callbacks::{Problem, explain};
use crate::core::Core;
use crate::fingerprint::fingerprint;
use crate::functional::Job;
use crate::gradients::refuse_replaced;
use crate::group::{RELEASE_GIL, detach_if, level_and_threads};
use crate::inner::{Inner, LookAhead};
use crate::lock::ExclusiveLock;
use crate::memory::collect;
use crate::pinned::Pinned;
use crate::step::{fill_scalars, scheduled_values};

/// The parameters at their look-ahead point: a context that starts at construction. The optimizer's step restores them and ends
/// it; without a step, leaving the context or dropping the object restores them.
#[pyclass(frozen, module = "schuss._schuss")]
pub struct AtLookAhead(Py<Core>);

#[pymethods]
impl AtLookAhead {
    #[new]
    fn new(core: Bound<'_, Core>) -> PyResult<AtLookAhead> {
        let (py, optimizer) = (core.py(), core.as_any());
        let mut inner = core.get().0.lock_as_holder()?;
        let inner = &mut *inner;
        let scheduled = scheduled_values(optimizer, &inner.entries, core.get().0.steps.load(Ordering::Relaxed))?;
        inner.check_params(optimizer)?;
        if inner.look_ahead.is_none() {
            inner.look_ahead = Some(prepare(inner)?);
        }
        let (level, threads) = level_and_threads()?;
        inner.work.include_all();
        let steps = core.get().0.steps.load(Ordering::Relaxed);
        if let Some(shards) = &inner.shards {
            shards.get().agree(py, fingerprint(py, inner, "look_ahead", steps, scheduled.as_deref(), 1.0))?;
            // The program backs up this process's parts alone.
            let Inner { params, look_ahead: Some(look_ahead), .. } = &mut *inner else { unreachable!("just prepared") };
            save(py, params, &mut look_ahead.backup)?;
        }
        let lead = fill_scalars(py, inner, scheduled.as_deref(), 1.0);
        let release = inner.work.total() >= RELEASE_GIL;
        let Inner { scalars, work, shards, look_ahead: Some(look_ahead), .. } = inner else {
            unreachable!("just prepared")
        };
        let mut step = Step { lead, ..Step::new(level, threads, scalars) };
        look_ahead.scheduled = scheduled;
        // SAFETY: parameters were found unchanged, and are pinned like the states; backups have separate memory. The lock
        // excludes other users.
        detach_if(py, release, || unsafe { work.run("look_ahead", &mut step) })?;
        look_ahead.moved = true;
        if let Some(shards) = shards {
            let shards = shards.get();
            let mut params = shards.params(py, threads);
            (0..shards.buckets()).try_for_each(|_| params.start())?;
            params.end()?;
            shards.after_agreement();
        }
        Ok(AtLookAhead(core.clone().unbind()))
    }

    fn __enter__(&self) {}

    #[pyo3(signature = (*_raised))]
    fn __exit__(slf: &Bound<'_, Self>, _raised: &Bound<'_, PyTuple>) -> PyResult<()> {
        let core = slf.get().0.bind(slf.py());
        match put_back(core)? {
            Some(i) => Err(explain(core.as_any(), Problem::Changed(i))),
            None => Ok(()),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}

impl Drop for AtLookAhead {
    fn drop(&mut self) {
        // Nothing can be raised here; parameters that cannot be restored were changed by their owner.
        Python::attach(|py| _ = put_back(self.0.bind(py)));
    }
}

/// Memory for the backups.
fn prepare(inner: &mut Inner) -> PyResult<LookAhead> {
    let mut backup = backup(&inner.params)?;
    for i in 0..inner.params.len() {
        inner.work.set_backup(i, backup.of(i));
    }
    Ok(LookAhead { backup, moved: false, scheduled: None })
}

/// Restores parameters that are at their look-ahead point; returns the first whose memory has changed, if any.
fn put_back(core: &Bound<'_, Core>) -> PyResult<Option<usize>> {
    let mut inner = core.get().0.lock_as_holder()?;
    let Inner { params, look_ahead: Some(look_ahead), .. } = &mut *inner else { return Ok(None) };
    look_ahead.scheduled = None;
    if !std::mem::take(&mut look_ahead.moved) {
        return Ok(None);
    }
    restore(core.py(), params, &mut look_ahead.backup)
}

/// Other values in the place of the parameters, such as an average: a context, which begins when it is entered. Leaving it, or
/// dropping the object, restores the parameters. Meanwhile everybody may read the optimizers and nobody may change them.
#[pyclass(frozen, module = "schuss._schuss")]
pub struct OtherValues {
    core: Py<Core>,
    /// What else is locked: the wrappers.
    wrappers: Vec<Py<Core>>,
    /// Copies the values into the parameters.
    job: Py<Job>,
    /// How many parameters there were when the job was made.
    arrays: usize,
    saved: Mutex<Option<Saved>>,
}

/// The parameters' own values, and the lock while others are shown.
struct Saved {
    /// For itself: the garbage collector may have cleared the optimizer.
    params: Vec<Pinned>,
    backup: Backup,
    lock: ExclusiveLock,
}

#[pymethods]
impl OtherValues {
    #[new]
    fn new(core: Py<Core>, wrappers: Vec<Py<Core>>, job: Py<Job>) -> PyResult<OtherValues> {
        let arrays = core.get().0.lock_to_read()?.params.len();
        Ok(OtherValues { core, wrappers, job, arrays, saved: Mutex::new(None) })
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<()> {
        let cores = self.wrappers.iter().chain([&self.core]).map(|core| core.clone_ref(py)).collect();
        let lock = ExclusiveLock::new(cores, true)?;
        let core = self.core.bind(py);
        let mut inner = core.get().0.lock_as_holder()?;
        refuse_replaced(core.as_any(), &mut inner)?;
        if inner.params.len() != self.arrays {
            return Err(PyValueError::new_err("a group was added after this context was made; make a new one"));
        }
        if let Some(i) = inner.changed_param(py) {
            drop(inner);
            return Err(explain(core.as_any(), Problem::Changed(i)));
        }
        let params = collect(inner.params.iter().map(|param| param.again(py)))?;
        let mut backup = backup(&params)?;
        save(py, &params, &mut backup)?;
        drop(inner);
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Some(Saved { params, backup, lock });
        self.job.get().run(py).inspect_err(|_| _ = self.restore(py))
    }

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, py: Python<'_>, _raised: &Bound<'_, PyTuple>) -> PyResult<()> {
        match self.restore(py)? {
            Some(i) => Err(explain(self.core.bind(py).as_any(), Problem::Changed(i))),
            None => Ok(()),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.wrappers.iter().chain([&self.core]).try_for_each(|core| visit.call(core))?;
        visit.call(&self.job)?;
        match self.saved.try_lock() {
            Ok(saved) => saved.iter().try_for_each(|saved| {
                saved.params.iter().try_for_each(|param| param.traverse(&visit))?;
                saved.lock.traverse(&visit)
            }),
            Err(_) => Ok(()),
        }
    }
}

impl OtherValues {
    /// Restores the parameters, if they have other values now; returns the first whose memory has changed, if any.
    fn restore(&self, py: Python<'_>) -> PyResult<Option<usize>> {
        let saved = || self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        if saved().is_none() {
            return Ok(None);
        }
        // First: where it is in use, they can still be restored later.
        let inner = self.core.bind(py).get().0.lock_as_holder()?;
        let Some(mut saved) = saved().take() else { return Ok(None) };
        let moved = restore(py, &saved.params, &mut saved.backup);
        drop(inner);
        drop(saved.lock);
        moved
    }
}

impl Drop for OtherValues {
    fn drop(&mut self) {
        Python::attach(|py| _ = self.restore(py));
    }
}

/// The gradients, in the order of the parameters, or None where there is none, if all can be used without conversion and share no
/// memory with what a step writes.
#[pyfunction]
pub fn apart<'py>(
    core: &Bound<'py, Core>,
    grads: &Bound<'py, PyAny>,
    partial: bool,
) -> PyResult<Option<Bound<'py, PyList>>> {
    let inner = core.get().0.lock_as_holder()?;
    let (known, mut arrays) = (Known::new(core.py()), Vec::new());
    let all = inner.backend.is_none()
        && inner.tree.collect(grads, partial, &mut arrays)?
        && arrays.iter().zip(&inner.params).all(|(array, param)| {
            let found = param.gradient(array, false, &known);
            array.is_none(core.py())
                || found.is_some_and(|(data, dtype)| !inner.overlaps(data, param.len * dtype.size()))
        });
    drop(inner); // first: with a list the garbage collector may come, and run any code
    if !all {
        return Ok(None);
    }
    let list = PyList::empty(core.py());
    arrays.into_iter().try_for_each(|array| list.append(array))?;
    Ok(Some(list))
}
