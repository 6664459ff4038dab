//! Allocations whose failure is an error and not the end of the process. Everything whose size depends on the arrays is allocated
//! in this way, and before a step writes.

use std::collections::TryReserveError;

/// What an error says about it.
pub const NO_MEMORY: &str = "no memory for what a step over these arrays needs besides them";

/// Collects items into a vector.
///
/// # Errors
/// There is not enough memory.
pub fn try_collect<T>(items: impl IntoIterator<Item = T>) -> Result<Vec<T>, TryReserveError> {
    let mut collected = Vec::new();
    try_extend(&mut collected, items)?;
    Ok(collected)
}

/// Appends items to a vector.
///
/// # Errors
/// There is not enough memory; some of the items may have been appended.
pub fn try_extend<T>(vector: &mut Vec<T>, items: impl IntoIterator<Item = T>) -> Result<(), TryReserveError> {
    let items = items.into_iter();
    vector.try_reserve(items.size_hint().0)?;
    for item in items {
        vector.try_reserve(1)?;
        vector.push(item);
    }
    Ok(())
}

/// A vector of this many zeros.
pub(crate) fn zeros(len: usize) -> Result<Vec<u64>, TryReserveError> {
    let mut vector = Vec::new();
    vector.try_reserve_exact(len)?;
    vector.resize(len, 0);
    Ok(vector)
}

/// A box with a value.
pub(crate) fn try_box<T>(value: T) -> Result<Box<T>, TryReserveError> {
    let mut one = Vec::new();
    one.try_reserve_exact(1)?;
    one.push(value);
    // SAFETY: a box of a slice with one element has the layout of a box of the element.
    Ok(unsafe { Box::from_raw(Box::into_raw(one.into_boxed_slice()).cast()) })
}
