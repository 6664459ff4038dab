//! A copy of many arrays in one block of memory, made and restored byte for byte in one parallel region. Knows no types.

use std::collections::TryReserveError;

use super::pool;
use crate::memory::{try_collect, zeros};

/// Bytes of a task.
const CHUNK: usize = 1 << 17;
/// Bytes that take as long to copy as a step takes for one element.
const ELEMENT: usize = 16;

/// The memory for a copy of arrays. All of it is allocated at once, so that restoring them cannot fail.
pub struct Backup {
    arrays: Vec<Part>,
    block: Vec<u64>,
}

/// An array, and where its copy begins in the block.
#[derive(Clone, Copy)]
struct Part {
    data: *mut u8,
    bytes: usize,
    start: usize,
}

// SAFETY: the pointers are only dereferenced in functions whose callers guarantee their validity.
unsafe impl Send for Backup {}
// SAFETY: as above.
unsafe impl Sync for Backup {}

impl Backup {
    /// Memory for a copy of these arrays, given as pointers and byte counts.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn new(arrays: impl IntoIterator<Item = (*mut u8, usize)>) -> Result<Backup, TryReserveError> {
        let mut total = 0;
        let arrays = try_collect(arrays.into_iter().map(|(data, bytes)| {
            let start = total;
            // The next array's copy is aligned for any element type.
            total += bytes.next_multiple_of(size_of::<f64>());
            Part { data, bytes, start }
        }))?;
        Ok(Backup { arrays, block: zeros(total / size_of::<u64>())? })
    }

    /// Where the copy of an array begins.
    pub fn of(&mut self, i: usize) -> *mut u8 {
        self.block.as_mut_ptr().cast::<u8>().wrapping_add(self.arrays[i].start)
    }

    /// Moves an array to another address; one at the null pointer is left out.
    pub fn set_data(&mut self, i: usize, data: *mut u8) {
        self.arrays[i].data = data;
    }

    /// Copies the arrays into the block.
    ///
    /// # Safety
    /// Each pointer must be valid for its bytes, and nobody may write them during the call.
    pub unsafe fn save(&mut self, threads: usize) {
        // SAFETY: upheld by the caller.
        unsafe { self.copy(false, threads) }
    }

    /// Copies the block back into the arrays.
    ///
    /// # Safety
    /// Each pointer must be null or valid for writing its bytes; the arrays must not overlap, and nobody else may access them
    /// during the call.
    pub unsafe fn restore(&mut self, threads: usize) {
        // SAFETY: upheld by the caller.
        unsafe { self.copy(true, threads) }
    }

    /// # Safety
    /// As for [`Backup::save`] or [`Backup::restore`].
    unsafe fn copy(&mut self, back: bool, threads: usize) {
        struct Block(*mut u8);
        // SAFETY: each byte is copied by one task only.
        unsafe impl Sync for Block {}
        let total = size_of_val(&self.block[..]);
        let block = Block(self.block.as_mut_ptr().cast());
        let this = &*self;
        let task = |number: usize| {
            let block = &block;
            let end = total.min((number + 1) * CHUNK);
            let mut at = number * CHUNK;
            let mut i = this.arrays.partition_point(|part| part.start <= at) - 1;
            while at < end {
                let Part { data, bytes, start } = this.arrays[i];
                let offset = at - start;
                let n = bytes.saturating_sub(offset).min(end - at);
                if !data.is_null() {
                    // SAFETY: `n` bytes from `offset` lie within the array, and at `at` in the block: upheld by the caller.
                    unsafe {
                        let (there, here) = (data.add(offset), block.0.add(at));
                        let (from, to) = if back { (here, there) } else { (there, here) };
                        to.copy_from_nonoverlapping(from, n);
                    }
                }
                i += 1;
                at = end.min(this.arrays.get(i).map_or(total, |next| next.start));
            }
        };
        pool::run(total.div_ceil(CHUNK), false, total / ELEMENT, threads, &task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_copied_and_come_back() {
        let sizes = [0, 5, 0, 3 * CHUNK + 1, CHUNK - 6, 0, 7, 50 * CHUNK, 0];
        let mut arrays: Vec<Vec<u8>> =
            sizes.iter().enumerate().map(|(i, &n)| (0..n).map(|k| (k * (i + 3)) as u8).collect()).collect();
        let all = arrays.concat();
        for threads in [1, 3] {
            let mut backup = Backup::new(arrays.iter_mut().map(|a| (a.as_mut_ptr(), a.len()))).unwrap();
            // SAFETY: separate vectors.
            unsafe { backup.save(threads) };
            for (i, array) in arrays.iter_mut().enumerate() {
                // SAFETY: the copy is as long as the array.
                assert!(unsafe { std::slice::from_raw_parts(backup.of(i), array.len()) } == &array[..]);
                array.fill(1);
            }
            backup.set_data(1, std::ptr::null_mut());
            // SAFETY: as above.
            unsafe { backup.restore(threads) };
            assert!(arrays[1] == [1; 5] && arrays.concat()[5..] == all[5..]);
            arrays[1].copy_from_slice(&all[..5]);
        }
    }
}
