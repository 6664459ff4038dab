//! Reading the gradients of a step: those that fit are taken as they are, Python converts or explains all others.

use numpy::PyUntypedArray;
use pyo3::PyTypeInfo;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use schuss::WorkList;

use crate::core::{Core, Inner};
use crate::tree::Tree;

/// Gradients that have been read into the work list.
pub struct Gradients<'py> {
    /// They must outlive the step even if what runs meanwhile, or in another thread, empties the caller's lists.
    _kept: Vec<Bound<'py, PyAny>>,
    /// Those of which a conversion is used, where they are to be zeroed.
    converted: Vec<Bound<'py, PyAny>>,
}

impl Gradients<'_> {
    /// Zeroes the gradients that were converted, and so not zeroed in the step; with NumPy's own method, which cannot fail
    /// on an array that was found writable.
    pub fn zero_converted(self) -> PyResult<()> {
        for gradient in self.converted {
            PyUntypedArray::type_object(gradient.py()).call_method1("fill", (gradient, 0))?;
        }
        Ok(())
    }
}

/// Reads gradients; what is off is an error, in Python's words.
pub fn read<'py>(
    slf: &Bound<'py, Core>,
    inner: &mut Inner,
    grads: &Bound<'py, PyAny>,
    zero_grads: bool,
) -> PyResult<Gradients<'py>> {
    let py = slf.py();
    let mut kept: Vec<Bound<'_, PyAny>> = Vec::with_capacity(inner.params.len());
    let mut to_zero: Vec<Bound<'_, PyAny>> = Vec::new();
    let mut converted = false;
    let alike = {
        let tree = std::mem::replace(&mut inner.tree, Tree::Sequence(Vec::new()));
        let result = tree.visit(py, grads.clone(), &mut |i, object| {
            let found = inner.params[i].gradient(&object, zero_grads);
            let fits = found.is_some_and(|(pointer, dtype)| {
                let bytes = inner.params[i].len * dtype.size();
                if inner.clear[i] != (pointer, bytes) && !inner.overlaps(pointer, bytes) {
                    inner.clear[i] = (pointer, bytes);
                }
                inner.clear[i] == (pointer, bytes)
            });
            let (pointer, dtype, usable) = match found {
                Some((pointer, dtype)) if fits => (pointer, dtype, object),
                found => {
                    // Python converts, copies or explains.
                    converted = true;
                    if !inner.params[i].unchanged(py) {
                        return Err(explain(slf, "_explain_changed", (i,)));
                    }
                    let usable = slf.call_method1("_gradient", (i, &object, found.is_some(), zero_grads))?;
                    if zero_grads && !usable.is(&object) {
                        to_zero.push(object);
                    }
                    let (pointer, dtype) = inner.params[i]
                        .gradient(&usable, false)
                        .ok_or_else(|| PyTypeError::new_err("a converted gradient is still not usable"))?;
                    (pointer, dtype, usable)
                }
            };
            kept.push(usable);
            inner.work.set_gradient(i, pointer, dtype);
            Ok(())
        });
        inner.tree = tree;
        result?
    };
    if !alike {
        return Err(explain(slf, "_explain_structure", (grads,)));
    }
    if zero_grads && let Some((i, k)) = shared_gradients(&inner.work) {
        return Err(explain(slf, "_explain_shared", (i, k)));
    }

    // A conversion may have run anything, also something that moves a gradient which was read before it.
    if converted {
        let moved =
            inner.params.iter().zip(&kept).zip(inner.work.segments()).any(|((param, usable), segment)| {
                param.gradient(usable, false) != Some((segment.grad, segment.grad_type))
            });
        if moved {
            return Err(PyValueError::new_err("gradients changed while they were being read; nothing was updated"));
        }
    }
    Ok(Gradients { _kept: kept, converted: to_zero })
}

/// The error that Python words for something that is off.
pub fn explain<'py>(slf: &Bound<'py, Core>, method: &str, args: impl pyo3::call::PyCallArgs<'py>) -> PyErr {
    match slf.call_method1(method, args) {
        Ok(_) => PyRuntimeError::new_err(format!("{method} found nothing wrong")),
        Err(error) => error,
    }
}

/// Two gradients that share memory: zeroing one would change the other before it is read.
fn shared_gradients(work: &WorkList) -> Option<(usize, usize)> {
    let mut ranges: Vec<_> = work
        .segments()
        .iter()
        .enumerate()
        .filter(|(_, s)| s.len > 0)
        .map(|(i, s)| (s.grad as usize, s.grad as usize + s.len * s.grad_type.size(), i))
        .collect();
    ranges.sort_unstable();
    ranges.windows(2).find(|pair| pair[0].1 > pair[1].0).map(|pair| (pair[0].2, pair[1].2))
}
