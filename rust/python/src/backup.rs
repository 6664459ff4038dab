//! Backups of parameters, and restoring them exactly. Knows no context and no GPU.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use schuss::Backup;

use crate::group::{RELEASE_GIL, detach_if};
use crate::inner::Inner;
use crate::memory::no_memory;
use crate::pinned::Pinned;

/// Memory for a copy of all parameters.
pub fn backup(params: &[Pinned]) -> PyResult<Backup> {
    Backup::new(params.iter().map(|param| (param.data, param.len * param.dtype.size()))).map_err(no_memory)
}

/// Copies the parameters, which were found unchanged and nobody else may write.
pub fn save(py: Python<'_>, params: &[Pinned], backup: &mut Backup) -> PyResult<()> {
    params.iter().enumerate().for_each(|(i, param)| backup.set_data(i, param.data));
    let threads = schuss::num_threads().map_err(PyRuntimeError::new_err)?;
    // SAFETY: upheld by the caller.
    detach_if(py, total(params) >= RELEASE_GIL, || unsafe { backup.save(threads) })
}

fn total(params: &[Pinned]) -> usize {
    params.iter().map(|param| param.len).sum()
}

/// Restores the parameters, even if they are read-only now; returns the first whose memory has changed, if any.
pub fn restore(py: Python<'_>, params: &[Pinned], backup: &mut Backup) -> PyResult<Option<usize>> {
    let mut moved = None;
    for (i, param) in params.iter().enumerate() {
        let same = param.in_place(py);
        backup.set_data(i, if same { param.data } else { std::ptr::null_mut() });
        moved = moved.or((!same).then_some(i));
    }
    copy_back(py, params, backup)?;
    Ok(moved)
}

/// Restores the parameters without gradients, if they are at their look-ahead point: the step does not touch them.
pub fn put_back_absent(py: Python<'_>, inner: &mut Inner) -> PyResult<()> {
    let Inner { params, work, look_ahead: Some(look_ahead), .. } = inner else { return Ok(()) };
    if !look_ahead.moved {
        return Ok(());
    }
    for (i, param) in params.iter().enumerate() {
        look_ahead.backup.set_data(i, if work.is_absent(i) { param.data } else { std::ptr::null_mut() });
    }
    copy_back(py, params, &mut look_ahead.backup)
}

/// Copies a backup into the parameters whose place it knows.
fn copy_back(py: Python<'_>, params: &[Pinned], backup: &mut Backup) -> PyResult<()> {
    let threads = schuss::num_threads().map_err(PyRuntimeError::new_err)?;
    // SAFETY: the arrays have the memory that they were pinned with, are kept alive, and nobody else may access them.
    detach_if(py, total(params) >= RELEASE_GIL, || unsafe { backup.restore(threads) })
}
