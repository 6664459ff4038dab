//! Lists whose length depends on the arrays, from Python and in memory: a failed allocation raises MemoryError.

use std::collections::TryReserveError;

use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;

/// An argument that is a list or a tuple.
pub struct List<T>(pub Vec<T>);

impl<'py, T: FromPyObjectOwned<'py>> FromPyObject<'_, 'py> for List<T> {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let mut items = Vec::new();
        items.try_reserve_exact(object.len()?).map_err(no_memory)?;
        for item in object.try_iter()? {
            items.try_reserve(1).map_err(no_memory)?;
            items.push(item?.extract::<T>().map_err(Into::into)?);
        }
        Ok(List(items))
    }
}

impl<T> List<T> {
    pub const EMPTY: List<T> = List(Vec::new());
}

/// Collects results until the first error.
pub fn collect<T>(items: impl Iterator<Item = PyResult<T>>) -> PyResult<Vec<T>> {
    let mut collected = Vec::new();
    collected.try_reserve_exact(items.size_hint().1.unwrap_or(0)).map_err(no_memory)?;
    for item in items {
        push(&mut collected, item?)?;
    }
    Ok(collected)
}

/// Appends an item.
pub fn push<T>(items: &mut Vec<T>, item: T) -> PyResult<()> {
    items.try_reserve(1).map_err(no_memory)?;
    items.push(item);
    Ok(())
}

/// The exception for a failed allocation.
pub fn no_memory(_: TryReserveError) -> PyErr {
    PyMemoryError::new_err(schuss::NO_MEMORY)
}
