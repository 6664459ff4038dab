//! Backups of parameters in one block of memory, and restoring them exactly. Knows no context and no GPU.

use pyo3::exceptions::{PyMemoryError, PyRuntimeError};
use pyo3::prelude::*;
use schuss::padded_length;

use crate::arrays::Pinned;
use crate::group::{RELEASE_GIL, detach_if};
use crate::inner::Inner;

/// Memory for all parameters, one after the other.
pub fn block(params: &[Pinned]) -> PyResult<Vec<u64>> {
    let bytes: usize = params.iter().map(|param| padded_length(param.len * param.dtype.size())).sum();
    let mut block = Vec::new();
    block.try_reserve_exact(bytes.div_ceil(8)).map_err(|_| PyMemoryError::new_err("no memory for the parameters"))?;
    block.resize(bytes.div_ceil(8), 0);
    Ok(block)
}

/// Unpacks into the parameters, even if they are read-only now; returns the first whose memory has changed, if any.
pub fn unpack(py: Python<'_>, params: &[Pinned], block: &mut [u64]) -> PyResult<Option<usize>> {
    let moved = params.iter().position(|param| !param.in_place(py));
    let place = |param: &Pinned| if param.in_place(py) { param.data } else { std::ptr::null_mut() };
    let arrays = params.iter().map(|param| (place(param), param.len * param.dtype.size())).collect();
    copy(py, arrays, block, true)?;
    Ok(moved)
}

/// Copies between arrays, given as pointers and byte counts, and their block; null pointers are skipped.
pub fn copy(py: Python<'_>, arrays: Vec<(*mut u8, usize)>, block: &mut [u64], back: bool) -> PyResult<()> {
    struct Arrays(Vec<(*mut u8, usize)>, *mut u8);
    // SAFETY: the pointers are those of arrays that are kept alive during the call.
    unsafe impl Send for Arrays {}
    let threads = schuss::num_threads().map_err(PyRuntimeError::new_err)?;
    let bytes = arrays.iter().map(|array| padded_length(array.1)).sum::<usize>();
    debug_assert!(bytes <= 8 * block.len());
    let arrays = Arrays(arrays, block.as_mut_ptr().cast());
    detach_if(py, bytes >= 4 * RELEASE_GIL, || {
        let Arrays(arrays, block) = { arrays };
        // SAFETY: the arrays are as long as when they were pinned, the block as long as all of them, and not accessed by
        // others.
        unsafe { if back { schuss::unpack(&arrays, block, threads) } else { schuss::pack(&arrays, block, threads) } }
    })
}

/// Restores the parameters without gradients, if they are at their look-ahead point: the step does not touch them.
pub fn put_back_absent(py: Python<'_>, inner: &mut Inner) -> PyResult<()> {
    let Inner { params, work, look_ahead: Some(look_ahead), .. } = inner else { return Ok(()) };
    if !look_ahead.moved {
        return Ok(());
    }
    let place = |i: usize, param: &Pinned| if work.is_absent(i) { param.data } else { std::ptr::null_mut() };
    let arrays = params.iter().enumerate().map(|(i, param)| (place(i, param), param.len * param.dtype.size()));
    copy(py, arrays.collect(), &mut look_ahead.block, true)
}
