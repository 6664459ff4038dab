//! Reads the gradients of a step: usable ones are taken directly, Python converts or explains all others. Runs no kernel.

use std::sync::atomic::{AtomicBool, Ordering};

use numpy::PyUntypedArray;
use pyo3::PyTypeInfo;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use schuss::{Dtype, WorkList};

use crate::arrays::{self, Known};
use crate::callbacks::{self, Problem, explain};
use crate::group::RELEASE_GIL;
use crate::inner::Inner;
use crate::lists;
use crate::memory::{List, no_memory, push};
use crate::pinned::Pinned;
use crate::tree;

/// Prefetch distances, in arrays: for objects, and then for what they point to.
const DISTANCES: [usize; 2] = [12, 6];

/// Arrays that one task checks, and elements that a step updates in the time of checking one array.
const RANGE: usize = 256;
const ELEMENTS: usize = 32;

/// How many ranges a step checks if parameters are packed and gradients are the optimizer's own. It updates the block that the
/// arrays are views of, which the optimizer keeps alive; so it is safe not to check all of them in each step.
const IN_TURN: usize = 2;

/// Gradients that have been read into the work list.
pub struct Gradients {
    /// Keeps them alive during the step, even if other code or another thread empties the caller's lists.
    kept: Vec<Py<PyAny>>,
    /// Originals of converted gradients that are to be set to zero.
    converted: Vec<Py<PyAny>>,
}

impl Gradients {
    /// Raises an exception if foreign code has changed gradients after they were read. The memory of the optimizer's own, and of
    /// those that processes have added up, does not change.
    pub fn check(&self, py: Python<'_>, inner: &Inner, zero_grads: bool) -> PyResult<()> {
        let known = Known::new(py);
        let moved = inner.shards.is_none()
            && self.kept.iter().zip(&inner.params).enumerate().any(|(i, (usable, param))| {
                let (grad, dtype, _) = inner.work.gradient(i);
                !inner.work.is_absent(i) && param.gradient(usable, zero_grads, &known) != Some((grad, dtype))
            });
        let fixed = |gradient: &Py<PyAny>| !arrays::is_writable(gradient.bind(py));
        if moved || self.converted.iter().any(fixed) {
            return Err(PyValueError::new_err("gradients changed while they were being read; nothing was updated"));
        }
        Ok(())
    }

    /// Ends the step: sets gradients to zero that were converted, and so were not zeroed in it, with NumPy's own method. One that
    /// another thread has made read-only meanwhile stays as it is: the step has been taken.
    ///
    /// Dropping gradients may run any code. Returns the empty list.
    pub fn release(mut self, py: Python<'_>) -> Vec<Py<PyAny>> {
        for gradient in self.converted {
            _ = PyUntypedArray::type_object(py).call_method1("fill", (gradient, 0));
        }
        while let Some(gradient) = self.kept.pop() {
            if let Some(soon) = self.kept.len().checked_sub(DISTANCES[0]) {
                arrays::prefetch(&self.kept[soon]);
            }
            drop(gradient.into_bound(py));
        }
        self.kept
    }
}

/// Reads gradients, if a step takes any, and checks that parameters are unchanged; Python writes the error messages. Arrays whose
/// gradient is None are left out; with `partial`, also those whose key a dict lacks. `own` says that they are the optimizer's own.
pub fn read(
    optimizer: &Bound<'_, PyAny>,
    inner: &mut Inner,
    grads: Option<&Bound<'_, PyAny>>,
    zero_grads: bool,
    partial: bool,
    own: bool,
) -> PyResult<Gradients> {
    let mut read = Gradients { kept: std::mem::take(&mut inner.gradients), converted: Vec::new() };
    read.kept.clear();
    let Some(grads) = grads else {
        refuse_replaced(optimizer, inner)?;
        inner.work.include_all();
        return inner.check_params(optimizer).map(|()| read);
    };
    let (py, known) = (optimizer.py(), Known::new(optimizer.py()));
    let remembered = own && !inner.own.is_empty();
    inner.next_range = inner.next_range.wrapping_add(IN_TURN);
    // SAFETY: nothing below runs code in Python, which could change these lists, before the references are taken.
    if let (Some(gradients), Some(given)) = unsafe { (inner.tree.items(grads), inner.given.items(py)) }
        && own == remembered
        && as_before(inner, gradients, Some(given), own, zero_grads, &known)?
    {
        // The optimizer's own gradients live as long as it does. Others need a reference, unless a short step has one program:
        // then no Python code runs before its end.
        let one_program = inner.entries.iter().all(|entry| entry.rule.rule.programs.len() == 1);
        let short = one_program && inner.work.total() < RELEASE_GIL && inner.shards.is_none();
        if !own && !short {
            let gradients = gradients.iter().map(|gradient| gradient.clone_ref(py));
            schuss::try_extend(&mut read.kept, gradients).map_err(no_memory)?;
        }
        return match if own || !zero_grads { None } else { shared_gradients(&inner.work)? } {
            Some((i, k)) => Err(explain(optimizer, Problem::Shared(i, k))),
            None => Ok(read),
        };
    }
    refuse_replaced(optimizer, inner)?;
    if remembered
        && inner.tree.holds(grads, &mut &inner.own[..])
        && as_before(inner, &inner.own, None, true, zero_grads, &known)?
    {
        return Ok(read);
    }
    forget(inner);
    if !inner.tree.collect(grads, partial, &mut read.kept)? {
        return Err(explain(optimizer, Problem::Structure(grads, partial)));
    }
    let same = as_before(inner, &read.kept, None, false, zero_grads, &known)?;
    let changed = if same { None } else { one_by_one(optimizer, inner, &mut read, zero_grads)? };
    if zero_grads && let Some((i, k)) = shared_gradients(&inner.work)? {
        return Err(explain(optimizer, Problem::Shared(i, k)));
    }
    match changed {
        Some(i) => Err(explain(optimizer, Problem::Changed(i))),
        None => {
            if own {
                remember(optimizer.py(), inner, &read.kept).inspect_err(|_| forget(inner))?;
            }
            Ok(read)
        }
    }
}

/// Raises an exception if an array has been replaced where the optimizer was given it.
pub fn refuse_replaced(optimizer: &Bound<'_, PyAny>, inner: &mut Inner) -> PyResult<()> {
    if !inner.given.unchanged(optimizer.py()) {
        inner.given = tree::Given::new(callbacks::look_again(optimizer)?.extract::<List<_>>()?.0);
    }
    Ok(())
}

/// Remembers the optimizer's own gradients, which are in the work list as they are: the next step only looks whether it has the
/// same. What owns their memory is kept alive.
fn remember(py: Python<'_>, inner: &mut Inner, gradients: &[Py<PyAny>]) -> PyResult<()> {
    let known = Known::new(py);
    if inner.work.any_absent() || inner.verified.iter().any(Option::is_none) {
        return Ok(());
    }
    for gradient in gradients {
        let Some(owner) = known.owner(gradient) else {
            forget(inner);
            return Ok(());
        };
        if inner.own_memory.last().is_none_or(|last| last.as_ptr() != owner) {
            // SAFETY: a reference that the array holds.
            push(&mut inner.own_memory, unsafe { Bound::from_borrowed_ptr(py, owner) }.unbind())?;
        }
        push(&mut inner.own, gradient.clone_ref(py))?;
    }
    Ok(())
}

/// Forgets them: the work list gets others.
fn forget(inner: &mut Inner) {
    let before = (std::mem::take(&mut inner.own), std::mem::take(&mut inner.own_memory));
    drop(before);
}

/// Prefetches objects, and later what they point to: thousands of arrays do not fit the nearest caches.
fn prefetch_next(params: &[Pinned], gradients: &[Py<PyAny>], i: usize, known: &Known<'_>) {
    if let Some(gradient) = gradients.get(i + DISTANCES[0]) {
        arrays::prefetch(gradient);
    }
    if let Some(param) = params.get(i + DISTANCES[0]) {
        param.prefetch();
    }
    if let Some(gradient) = gradients.get(i + DISTANCES[1]) {
        known.prefetch_shape(gradient);
    }
    if let Some(param) = params.get(i + DISTANCES[1]) {
        param.prefetch_shape(known);
    }
}

/// The fast path: whether parameters and gradients are unchanged since the last step, as in nearly all loops. Objects are only
/// read while this thread holds the GIL, so helpers may share the work: each loads into its cache what it is about to update.
/// The optimizer's `own` gradients are compared by identity, as their memory is kept alive. `given` has the items of the list that
/// the parameters came in, and what it had; they too must be the same objects.
fn as_before(
    inner: &Inner,
    gradients: &[Py<PyAny>],
    given: Option<tree::Items<'_>>,
    own: bool,
    zero_grads: bool,
    known: &Known<'_>,
) -> PyResult<bool> {
    let (params, verified, any_absent) = (&inner.params, &inner.verified, inner.work.any_absent());
    if given.is_some_and(|(items, had)| items.len() != params.len() || had.len() != params.len()) {
        return Ok(false);
    }
    let ranges = params.len().div_ceil(RANGE);
    let looked = if own && inner.block.is_some() { IN_TURN } else { ranges };
    let off = AtomicBool::new(false);
    let threads = schuss::num_threads().map_err(PyRuntimeError::new_err)?;
    schuss::in_parallel(ranges, params.len() * ELEMENTS, threads, &|range| {
        let mut arrays = range * RANGE..params.len().min((range + 1) * RANGE);
        let same_objects = given.is_none_or(|(items, had)| lists::same(&items[arrays.clone()], &had[arrays.clone()]))
            && (!own || lists::same(&gradients[arrays.clone()], &inner.own[arrays.clone()]));
        let in_turn = (range + ranges - inner.next_range % ranges) % ranges < looked;
        let same = |i: usize| {
            if own {
                prefetch_next(params, &[], i, known);
                return (!zero_grads || known.writable(&gradients[i])) && params[i].unchanged(known);
            }
            prefetch_next(params, gradients, i, known);
            let found = params[i].gradient(&gradients[i], zero_grads, known).map(place);
            let absent = || any_absent && inner.work.is_absent(i) && gradients[i].as_ptr() == known.none();
            let same = if found.is_some() { found == verified[i] } else { absent() };
            same && params[i].unchanged(known)
        };
        if !off.load(Ordering::Relaxed) && !(same_objects && (!in_turn || arrays.all(same))) {
            off.store(true, Ordering::Relaxed);
        }
    });
    Ok(!off.into_inner())
}

/// The properties by which the next step recognizes a gradient.
fn place((pointer, dtype): (*mut u8, Dtype)) -> (usize, Dtype) {
    (pointer as usize, dtype)
}

/// Checks every array and adds the usable gradients to the work list; Python converts or explains all others. Returns the first
/// parameter that has changed.
fn one_by_one(
    optimizer: &Bound<'_, PyAny>,
    inner: &mut Inner,
    read: &mut Gradients,
    zero_grads: bool,
) -> PyResult<Option<usize>> {
    let (py, known) = (optimizer.py(), Known::new(optimizer.py()));
    let (mut changed, mut foreign) = (None, false);
    for i in 0..inner.params.len() {
        prefetch_next(&inner.params, &read.kept, i, &known);
        let param = &inner.params[i];
        if changed.is_none() && !param.unchanged(&known) {
            changed = Some(i);
        }
        if read.kept[i].is_none(py) {
            inner.verified[i] = None;
            inner.work.set_absent(i);
            continue;
        }
        let found = param.gradient(&read.kept[i], zero_grads, &known);
        if found.is_some() && found.map(place) == inner.verified[i] {
            continue;
        }
        inner.verified[i] = None;
        if let Some((pointer, dtype)) = found
            && !inner.overlaps(pointer, param.len * dtype.size())
        {
            inner.verified[i] = found.map(place);
            inner.work.set_gradient(i, pointer, dtype);
            continue;
        }
        // Python converts, copies or explains.
        foreign = true;
        if !inner.params[i].unchanged(&known) {
            return Err(explain(optimizer, Problem::Changed(i)));
        }
        let object = &read.kept[i];
        let usable = callbacks::usable_gradient(optimizer, i, object, found.is_some(), zero_grads)?;
        if zero_grads && !usable.is(object) {
            push(&mut read.converted, object.clone_ref(py))?;
        }
        let (pointer, dtype) = inner.params[i]
            .gradient(usable.as_unbound(), false, &Known::new(py))
            .ok_or_else(|| PyTypeError::new_err("a converted gradient is still not usable"))?;
        read.kept[i] = usable.unbind();
        inner.work.set_gradient(i, pointer, dtype);
    }
    // A conversion may run any code, also code that changes what was checked before it.
    if foreign {
        read.check(py, inner, zero_grads)?;
        changed = inner.changed_param(py);
    }
    Ok(changed)
}

/// Two gradients that share memory, if any: zeroing one would change the other before it is read.
fn shared_gradients(work: &WorkList) -> PyResult<Option<(usize, usize)>> {
    let ranges = (0..work.len())
        .map(|i| (work.gradient(i), i))
        .filter(|((_, _, len), _)| *len > 0)
        .map(|((grad, dtype, len), i)| (grad as usize, grad as usize + len * dtype.size(), i));
    let mut ranges = schuss::try_collect(ranges).map_err(no_memory)?;
    ranges.sort_unstable();
    Ok(ranges.windows(2).find(|pair| pair[0].1 > pair[1].0).map(|pair| (pair[0].2, pair[1].2)))
}
