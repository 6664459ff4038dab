//! The native state of an optimizer, and the lock around it. Knows no Python class.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

use numpy::PyArray1;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use schuss::{Backup, Dtype, WorkList};

use crate::arrays::Known;
use crate::callbacks::{Problem, explain};
use crate::changes::Waiting;
use crate::group::{Entry, MOST_STEPS, ScalarSets, zeros};
use crate::memory::{List, no_memory};
use crate::own_memory::OwnedMemory;
use crate::pinned::Pinned;
use crate::sharded::Shards;
use crate::tree::{Given, Tree};

/// The policy for NaN and infinities in gradients.
#[derive(Clone, Copy, PartialEq)]
pub enum Nonfinite {
    Propagate,
    Skip,
    Error,
}

impl Nonfinite {
    pub fn named(name: &str) -> Nonfinite {
        match name {
            "skip" => Nonfinite::Skip,
            "error" => Nonfinite::Error,
            _ => Nonfinite::Propagate,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Nonfinite::Propagate => "propagate",
            Nonfinite::Skip => "skip",
            Nonfinite::Error => "error",
        }
    }
}

/// All of the native state except what is read without its lock: see [`Locked`].
pub struct Inner {
    pub entries: Vec<Entry>,
    /// Whether one of their rules starts from a look-ahead point, or from matrix products.
    pub looks_ahead: bool,
    pub multiplies: bool,
    /// Steps that each group has taken.
    pub group_steps: Vec<u64>,
    /// How many of them each array has missed, for lack of a gradient.
    pub missed: Vec<u64>,
    pub sets: ScalarSets,
    pub params: Vec<Pinned>,
    /// Kept alive for their pointers in the work list.
    pub states: Vec<Pinned>,
    pub work: WorkList,
    pub tree: Tree,
    /// What the parameters were given in.
    pub given: Given,
    /// The sorted byte ranges that a step writes, which gradients must not overlap.
    pub written: Vec<(usize, usize)>,
    /// Those that wrappers around the optimizer write, or wrote.
    pub reserved: Vec<(usize, usize)>,
    /// Gradients that do not overlap these, and are in the work list.
    pub verified: Vec<Option<(usize, Dtype)>>,
    /// The states that all arrays share, created by Python.
    pub shared: Option<Py<PyArray1<f64>>>,
    /// What these are computed from, which all groups must agree on: a rule's hyperparameters, by index, and the learning rate.
    pub agreed: (Vec<usize>, bool),
    /// Keeps a step's gradients alive; empty between steps.
    pub gradients: Vec<Py<PyAny>>,
    /// What owns the memory of parameters that are packed, and the first range of them that the next step looks at.
    pub block: Option<Py<OwnedMemory>>,
    pub next_range: usize,
    /// The optimizer's own gradients, and what owns their memory, while they are those in the work list.
    pub own: Vec<Py<PyAny>>,
    pub own_memory: Vec<Py<PyAny>>,
    pub max_grad_norm: Option<f64>,
    /// Whether steps measure the norm, also where it has no bound.
    pub track_norm: bool,
    pub nonfinite: Nonfinite,
    /// For stochastic rounding of quantized states; without it they are rounded to nearest.
    pub seed: Option<u64>,
    /// The number of its first array in the optimizer that it is a part of.
    pub first: usize,
    pub scalars: Vec<Vec<f64>>,
    /// The look-ahead point's parameter backup, and the schedules' values for the step.
    pub look_ahead: Option<LookAhead>,
    /// Runs steps of arrays that are not in host memory.
    pub backend: Option<Py<PyAny>>,
    /// How processes share the arrays, if they do.
    pub shards: Option<Py<Shards>>,
}

/// The data of a look-ahead.
pub struct LookAhead {
    /// The parameters before it.
    pub backup: Backup,
    /// Whether the parameters are at the look-ahead point now.
    pub moved: bool,
    pub scheduled: Option<Vec<List<f64>>>,
}

/// Numbers of missed steps, and the sets of scalars that arrays share with them, ready to be used.
pub struct Sharing {
    missed: Vec<u64>,
    sets: Vec<(usize, u64)>,
    of_arrays: Vec<usize>,
    scalars: Vec<Vec<f64>>,
}

impl Inner {
    pub fn new() -> Inner {
        Inner {
            entries: Vec::new(),
            looks_ahead: false,
            multiplies: false,
            group_steps: Vec::new(),
            missed: Vec::new(),
            sets: ScalarSets::default(),
            params: Vec::new(),
            states: Vec::new(),
            work: WorkList::default(),
            tree: Tree::Sequence(Vec::new()),
            given: Given::default(),
            written: Vec::new(),
            reserved: Vec::new(),
            verified: Vec::new(),
            shared: None,
            agreed: (Vec::new(), false),
            gradients: Vec::new(),
            block: None,
            next_range: 0,
            own: Vec::new(),
            own_memory: Vec::new(),
            max_grad_norm: None,
            track_norm: false,
            nonfinite: Nonfinite::Propagate,
            seed: None,
            first: 0,
            scalars: Vec::new(),
            look_ahead: None,
            backend: None,
            shards: None,
        }
    }

    /// Prepares these numbers of missed steps.
    pub fn sharing(&self, missed: impl Iterator<Item = u64>) -> PyResult<Sharing> {
        let missed = schuss::try_collect(missed).map_err(no_memory)?;
        let (sets, of_arrays) = self.sets.formed(self.entries.len(), &missed).map_err(no_memory)?;
        let scalars = zeros(&sets, |entry| self.entries[entry].rule)?;
        Ok(Sharing { missed, sets, of_arrays, scalars })
    }

    /// Prepares the numbers of missed steps after one for which some arrays have no gradient, nor one of some of their rows.
    pub fn missing_one(&self, has_rows: impl Fn(usize) -> bool) -> PyResult<Sharing> {
        let absent = |i: usize| u64::from(self.work.is_absent(i) && !has_rows(i));
        self.sharing(self.missed.iter().enumerate().map(|(i, &missed)| MOST_STEPS.min(missed + absent(i))))
    }

    /// Gives each array the scalars of its entry and its number of missed steps.
    pub fn share(&mut self, sharing: Sharing) {
        (self.missed, self.sets.sets, self.scalars) = (sharing.missed, sharing.sets, sharing.scalars);
        sharing.of_arrays.into_iter().enumerate().for_each(|(i, group)| self.work.set_group(i, group));
    }

    /// The number of the first parameter that has changed, if any.
    pub fn changed_param(&self, py: Python<'_>) -> Option<usize> {
        let known = Known::new(py);
        self.params.iter().position(|param| !param.unchanged(&known))
    }

    /// Raises the exception for a parameter that has changed.
    pub fn check_params(&self, optimizer: &Bound<'_, PyAny>) -> PyResult<()> {
        self.changed_param(optimizer.py()).map_or(Ok(()), |i| Err(explain(optimizer, Problem::Changed(i))))
    }

    pub fn overlaps(&self, grad: *mut u8, bytes: usize) -> bool {
        let (start, end) = (grad as usize, grad as usize + bytes);
        [&self.written, &self.reserved].into_iter().any(|ranges| {
            let before = ranges.partition_point(|range| range.0 < end);
            before > 0 && ranges[before - 1].1 > start
        })
    }
}

/// Programs before the step of rules with matrix products, in order.
pub const MATRIX_PROGRAMS: [&str; 2] = ["gather", "scale"];

/// The holder of an optimizer that everybody may read but nobody may change; not a thread.
pub const READ_ONLY: usize = usize::MAX;

/// The holder of an optimizer whose step is taken array by array, which nobody else may use.
pub const IN_STEP: usize = usize::MAX - 1;

/// A number that is unique among running threads, never 0.
pub fn this_thread() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| std::ptr::from_ref(mark) as usize)
}

/// No norm: the bits of a NaN that no computation produces.
pub const NO_NORM: u64 = u64::MAX;

/// An optimizer's native state behind its lock.
pub struct Locked {
    inner: Mutex<Inner>,
    /// Who has exclusive access over several calls: a thread, [`READ_ONLY`] or [`IN_STEP`]; 0 means nobody.
    holder: AtomicUsize,
    /// How many calls may have changed the optimizer, and how many are changing it outside the lock.
    changes: AtomicU64,
    changing: AtomicUsize,
    // Outside the lock, so that a schedule may read them while a step runs.
    pub steps: AtomicU64,
    pub skipped: AtomicU64,
    /// The bits of the last step's norm, or [`NO_NORM`].
    pub norm: AtomicU64,
    /// The bits of the bound on it, or [`NO_NORM`].
    pub bound: AtomicU64,
    /// Whether the parameters are those for evaluation, from which no step can start.
    pub evaluating: AtomicBool,
    /// Changes that follow the next step.
    pub waiting: Waiting,
}

impl Locked {
    pub fn new() -> Locked {
        Locked {
            inner: Mutex::new(Inner::new()),
            holder: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
            changing: AtomicUsize::new(0),
            steps: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            norm: AtomicU64::new(NO_NORM),
            bound: AtomicU64::new(NO_NORM),
            evaluating: AtomicBool::new(false),
            waiting: Waiting::default(),
        }
    }

    /// Locks the state to change it, unless somebody other than this thread holds it.
    pub fn lock(&self) -> PyResult<MutexGuard<'_, Inner>> {
        let inner = self.lock_unless(|holder| holder != 0 && holder != this_thread())?;
        self.count_change();
        Ok(inner)
    }

    /// Locks it whoever holds it; for the holder's own objects, from any thread.
    pub fn lock_as_holder(&self) -> PyResult<MutexGuard<'_, Inner>> {
        self.lock_unless(|_| false)
    }

    /// Locks it unless anybody holds it.
    pub fn lock_idle(&self) -> PyResult<MutexGuard<'_, Inner>> {
        self.lock_unless(|holder| holder != 0)
    }

    /// Locks it for reading, also while the holder is `READ_ONLY`.
    pub fn lock_to_read(&self) -> PyResult<MutexGuard<'_, Inner>> {
        self.lock_unless(|holder| ![0, READ_ONLY, this_thread()].contains(&holder))
    }

    /// Gives a holder exclusive access, until [`Locked::release`].
    pub fn hold(&self, holder: usize) -> PyResult<()> {
        let _inner = self.lock_idle()?;
        self.count_change();
        self.holder.store(holder, Ordering::Relaxed);
        Ok(())
    }

    /// Ends the holder's access. Who locks the state next sees what the holder wrote, also without the GIL.
    pub fn release(&self) {
        self.holder.store(0, Ordering::Release);
    }

    /// Only under the lock.
    fn count_change(&self) {
        self.changes.store(self.changes.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Says, still under the lock, that this call also changes arrays after it, as long as the result lives.
    pub fn changing(&self, _locked: &Inner) -> Changing<'_> {
        self.changing.fetch_add(1, Ordering::Relaxed);
        self.count_change();
        Changing(self)
    }

    /// How many calls may have changed the optimizer until now; an error while one may.
    pub fn changes(&self) -> PyResult<u64> {
        let _inner = self.lock_idle()?;
        match self.changing.load(Ordering::Acquire) {
            0 => Ok(self.changes.load(Ordering::Relaxed)),
            _ => Err(in_use()),
        }
    }

    pub fn is_read_only(&self) -> bool {
        self.holder.load(Ordering::Relaxed) == READ_ONLY
    }

    /// Visits the Python objects for the garbage collector; those of an optimizer in use count as reachable.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Ok(inner) = self.inner.try_lock() else { return Ok(()) };
        inner.entries.iter().try_for_each(|entry| visit.call(&entry.values))?;
        inner.params.iter().chain(&inner.states).try_for_each(|array| array.traverse(visit))?;
        inner.tree.traverse(visit)?;
        inner.given.traverse(visit)?;
        let all = inner.gradients.iter().chain(&inner.own).chain(&inner.own_memory);
        all.into_iter().try_for_each(|gradient| visit.call(gradient))?;
        visit.call(&inner.block)?;
        visit.call(&inner.shared)?;
        visit.call(&inner.shards)?;
        visit.call(&inner.backend)
    }

    /// Lets go of all Python objects.
    pub fn clear(&self) {
        let Ok(mut inner) = self.inner.try_lock() else { return };
        let old = std::mem::replace(&mut *inner, Inner::new());
        drop(inner);
        drop(old); // after the lock, since dropping Python objects may run any code
    }

    fn lock_unless(&self, taken: impl Fn(usize) -> bool) -> PyResult<MutexGuard<'_, Inner>> {
        let inner = match self.inner.try_lock() {
            Ok(inner) => Some(inner),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        // Checked under the lock, which protects changes to the holder.
        inner.filter(|_| !taken(self.holder.load(Ordering::Acquire))).ok_or_else(in_use)
    }
}

/// A call that changes arrays outside the lock.
pub struct Changing<'a>(&'a Locked);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.changing.fetch_sub(1, Ordering::Release);
    }
}

/// The exception for an optimizer that somebody else uses.
pub fn in_use() -> PyErr {
    PyRuntimeError::new_err(
        "this optimizer is in the middle of a step, or of being saved or loaded (in another thread, or around this call), or its \
         parameters have other values inside swap() or evaluate(); use it from one place at a time",
    )
}
