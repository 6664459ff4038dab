//! What a look-ahead needs beside a step: keeping where the parameters are, and putting them back to the last bit.

use numpy::{PyArray1, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use schuss::Aside;

use crate::arrays::{Known, Pinned};
use crate::core::Core;
use crate::group::{RELEASE_GIL, detach_if};

/// Bytes of a block that takes all parameters.
#[pyfunction]
pub fn block_bytes(core: &Bound<'_, Core>) -> PyResult<usize> {
    Ok(room_for(&core.get().lock_as_holder()?.params))
}

/// Copies all parameters into a block for them; the first that no longer is what it was keeps it from that.
#[pyfunction]
pub fn keep_params(py: Python<'_>, core: &Bound<'_, Core>, block: &Bound<'_, PyArray1<u8>>) -> PyResult<Option<usize>> {
    let inner = core.get().lock_as_holder()?;
    let known = Known::new(py);
    if let Some(i) = inner.params.iter().position(|param| !param.unchanged(&known)) {
        return Ok(Some(i));
    }
    let arrays = inner.params.iter().map(|param| (param.data, param.len * param.dtype.size())).collect();
    exchange(py, arrays, block, false)?;
    Ok(None)
}

/// Copies them back, also into those that were made read-only meanwhile; the first that no longer lies where it lay, if any.
#[pyfunction]
pub fn restore_params(
    py: Python<'_>,
    core: &Bound<'_, Core>,
    block: &Bound<'_, PyArray1<u8>>,
) -> PyResult<Option<usize>> {
    let inner = core.get().lock_as_holder()?;
    let moved = inner.params.iter().position(|param| !param.in_place(py));
    let place = |param: &crate::arrays::Pinned| if param.in_place(py) { param.data } else { std::ptr::null_mut() };
    let arrays = inner.params.iter().map(|param| (place(param), param.len * param.dtype.size())).collect();
    exchange(py, arrays, block, true)?;
    Ok(moved)
}

/// The first parameter that no longer is what it was, if any.
#[pyfunction]
pub fn changed_param(core: &Bound<'_, Core>) -> PyResult<Option<usize>> {
    let inner = core.get().lock()?;
    let known = Known::new(core.py());
    Ok(inner.params.iter().position(|param| !param.unchanged(&known)))
}

/// Makes steps copy all parameters into a block for them before they update them, or back from there with
/// `restore`; without a block no more. What is rounded from a master copy needs no restoring.
#[pyfunction]
#[pyo3(signature = (core, block, restore=false))]
pub fn set_aside(core: &Bound<'_, Core>, block: Option<Bound<'_, PyArray1<u8>>>, restore: bool) -> PyResult<()> {
    let mut inner = core.get().lock()?;
    let inner = &mut *inner;
    if let Some(block) = &block {
        check_block(block, room_for(&inner.params))?;
    }
    let mut at = 0;
    for (i, param) in inner.params.iter().enumerate() {
        let place = block.as_ref().map(|block| block.data().wrapping_add(at));
        let rounded = inner.work.segments()[i].form.rounded.is_some();
        let aside = place.filter(|_| !rounded).map(|place| match restore {
            true => Aside::Restore(place),
            false => Aside::Save(place),
        });
        inner.work.set_aside(i, aside);
        at += schuss::room(param.len * param.dtype.size());
    }
    inner.aside = block.map(Bound::unbind);
    Ok(())
}

/// Whether gradients are what a step takes as they are, and share no memory with what it writes.
#[pyfunction]
pub fn are_apart(core: &Bound<'_, Core>, grads: &Bound<'_, PyAny>) -> PyResult<bool> {
    let inner = core.get().lock()?;
    let (known, mut arrays) = (Known::new(core.py()), Vec::new());
    Ok(inner.tree.collect(grads, &mut arrays)?
        && arrays.iter().zip(&inner.params).all(|(array, param)| {
            let found = param.gradient(array, false, &known);
            found.is_some_and(|(data, dtype)| !inner.overlaps(data, param.len * dtype.size()))
        }))
}

fn room_for(params: &[Pinned]) -> usize {
    params.iter().map(|param| schuss::room(param.len * param.dtype.size())).sum()
}

/// Copies between arrays, given by pointer and bytes, and a block; one whose pointer is null is left out.
fn exchange(
    py: Python<'_>,
    arrays: Vec<(*mut u8, usize)>,
    block: &Bound<'_, PyArray1<u8>>,
    back: bool,
) -> PyResult<()> {
    struct Arrays(Vec<(*mut u8, usize)>, *mut u8);
    // SAFETY: the pointers are those of arrays that are kept alive over the call.
    unsafe impl Send for Arrays {}
    let threads = schuss::num_threads().map_err(PyRuntimeError::new_err)?;
    let bytes = arrays.iter().map(|array| schuss::room(array.1)).sum::<usize>();
    check_block(block, bytes)?;
    let arrays = Arrays(arrays, block.data().cast());
    detach_if(py, bytes >= 4 * RELEASE_GIL, || {
        let Arrays(arrays, block) = { arrays };
        // SAFETY: the arrays are as long as when they were pinned, the block as long as all of them, and it is Python's own.
        unsafe { schuss::exchange(&arrays, block, back, threads) }
    });
    Ok(())
}

fn check_block(block: &Bound<'_, PyArray1<u8>>, bytes: usize) -> PyResult<()> {
    if block.len() == bytes && block.is_contiguous() {
        return Ok(());
    }
    Err(PyRuntimeError::new_err("the block does not fit the parameters"))
}
