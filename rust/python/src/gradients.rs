//! Reading the gradients of a step: those that fit are taken as they are, Python converts or explains all others.

use std::sync::atomic::{AtomicBool, Ordering};

use numpy::PyUntypedArray;
use pyo3::PyTypeInfo;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use schuss::{Dtype, WorkList};

use crate::arrays::{self, Known, Pinned};
use crate::callbacks::{self, Problem, explain};
use crate::inner::Inner;

/// How many arrays ahead their objects are fetched, and after that what these point to.
const AHEAD: [usize; 2] = [12, 6];

/// Arrays that one thread looks at in a row, and elements that a step updates in the time that one array's look takes.
const RANGE: usize = 256;
const ELEMENTS: usize = 32;

/// Gradients that have been read into the work list.
pub struct Gradients {
    /// They must outlive the step even if what runs meanwhile, or in another thread, empties the caller's lists.
    kept: Vec<Py<PyAny>>,
    /// Those of which a conversion is used, where they are to be zeroed.
    converted: Vec<Py<PyAny>>,
}

impl Gradients {
    /// Ends the step: gradients that were converted, and so not zeroed in it, are zeroed with NumPy's own method, which
    /// cannot fail on an array that was found writable.
    pub fn release(mut self, py: Python<'_>, inner: &mut Inner) -> PyResult<()> {
        for gradient in self.converted {
            PyUntypedArray::type_object(py).call_method1("fill", (gradient, 0))?;
        }
        while let Some(gradient) = self.kept.pop() {
            if let Some(soon) = self.kept.len().checked_sub(AHEAD[0]) {
                arrays::fetch(&self.kept[soon]);
            }
            drop(gradient.into_bound(py));
        }
        inner.gradients = self.kept;
        Ok(())
    }
}

/// Reads gradients, where a step takes them, and looks whether parameters are what they were; what is off is an error, in
/// Python's words.
pub fn read(
    optimizer: &Bound<'_, PyAny>,
    inner: &mut Inner,
    grads: Option<&Bound<'_, PyAny>>,
    zero_grads: bool,
) -> PyResult<Gradients> {
    let mut read = Gradients { kept: std::mem::take(&mut inner.gradients), converted: Vec::new() };
    read.kept.clear();
    let Some(grads) = grads else {
        let known = Known::new(optimizer.py());
        return match inner.params.iter().position(|param| !param.unchanged(&known)) {
            Some(i) => Err(explain(optimizer, Problem::Changed(i))),
            None => Ok(read),
        };
    };
    if !inner.tree.collect(grads, &mut read.kept)? {
        return Err(explain(optimizer, Problem::Structure(grads)));
    }
    let same = as_before(inner, &read.kept, zero_grads, &Known::new(optimizer.py()))?;
    let changed = if same { None } else { one_by_one(optimizer, inner, &mut read, zero_grads)? };
    if zero_grads && let Some((i, k)) = shared_gradients(&inner.work) {
        return Err(explain(optimizer, Problem::Shared(i, k)));
    }
    match changed {
        Some(i) => Err(explain(optimizer, Problem::Changed(i))),
        None => Ok(read),
    }
}

/// Fetches objects, and later what they point to, before they are read: with thousands of arrays none is in a near cache.
fn ahead(params: &[Pinned], gradients: &[Py<PyAny>], i: usize, known: &Known<'_>) {
    if let (Some(gradient), Some(param)) = (gradients.get(i + AHEAD[0]), params.get(i + AHEAD[0])) {
        arrays::fetch(gradient);
        param.fetch();
    }
    if let (Some(gradient), Some(param)) = (gradients.get(i + AHEAD[1]), params.get(i + AHEAD[1])) {
        known.fetch_shape(gradient);
        param.fetch_shape(known);
    }
}

/// Whether parameters and gradients are what they were in the last step, as in nearly all loops. Objects are only read, and this
/// thread holds the GIL meanwhile, so others may help: each then has what it is about to update in its own cache.
fn as_before(inner: &Inner, gradients: &[Py<PyAny>], zero_grads: bool, known: &Known<'_>) -> PyResult<bool> {
    let (params, verified) = (&inner.params, &inner.verified);
    let off = AtomicBool::new(false);
    let threads = schuss::num_threads().map_err(PyRuntimeError::new_err)?;
    schuss::in_parallel(params.len().div_ceil(RANGE), params.len() * ELEMENTS, threads, &|range| {
        let mut range = range * RANGE..params.len().min((range + 1) * RANGE);
        let same = |i: usize| {
            ahead(params, gradients, i, known);
            let found = params[i].gradient(&gradients[i], zero_grads, known).map(place);
            found.is_some() && found == verified[i] && params[i].unchanged(known)
        };
        if !off.load(Ordering::Relaxed) && !range.all(same) {
            off.store(true, Ordering::Relaxed);
        }
    });
    Ok(!off.into_inner())
}

/// What is kept of a gradient, to see in the next step whether it is the same.
fn place((pointer, dtype): (*mut u8, Dtype)) -> (usize, Dtype) {
    (pointer as usize, dtype)
}

/// Looks at everything and takes the gradients that fit into the work list; Python converts or explains all others. Answers
/// which parameter is not what it was.
fn one_by_one(
    optimizer: &Bound<'_, PyAny>,
    inner: &mut Inner,
    read: &mut Gradients,
    zero_grads: bool,
) -> PyResult<Option<usize>> {
    let (py, known) = (optimizer.py(), Known::new(optimizer.py()));
    let (mut changed, mut foreign) = (None, false);
    for i in 0..inner.params.len() {
        ahead(&inner.params, &read.kept, i, &known);
        let param = &inner.params[i];
        if changed.is_none() && !param.unchanged(&known) {
            changed = Some(i);
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
            read.converted.push(object.clone_ref(py));
        }
        let (pointer, dtype) = inner.params[i]
            .gradient(usable.as_unbound(), false, &Known::new(py))
            .ok_or_else(|| PyTypeError::new_err("a converted gradient is still not usable"))?;
        read.kept[i] = usable.unbind();
        inner.work.set_gradient(i, pointer, dtype);
    }
    // A conversion may have run anything, also something that moves what was looked at before it.
    if foreign {
        let known = Known::new(py);
        let moved = inner.params.iter().zip(&read.kept).enumerate().any(|(i, (param, usable))| {
            let (grad, dtype, _) = inner.work.gradient(i);
            param.gradient(usable, false, &known) != Some((grad, dtype))
        });
        if moved {
            return Err(PyValueError::new_err("gradients changed while they were being read; nothing was updated"));
        }
        changed = inner.params.iter().position(|param| !param.unchanged(&known));
    }
    Ok(changed)
}

/// Two gradients that share memory: zeroing one would change the other before it is read.
fn shared_gradients(work: &WorkList) -> Option<(usize, usize)> {
    let mut ranges: Vec<_> = (0..work.len())
        .map(|i| (work.gradient(i), i))
        .filter(|((_, _, len), _)| *len > 0)
        .map(|((grad, dtype, len), i)| (grad as usize, grad as usize + len * dtype.size(), i))
        .collect();
    ranges.sort_unstable();
    ranges.windows(2).find(|pair| pair[0].1 > pair[1].0).map(|pair| (pair[0].2, pair[1].2))
}
