//! Copies many arrays into one block of memory and back, byte for byte, in one parallel region. Knows no types.

use super::pool;

/// Bytes of a task.
const CHUNK: usize = 1 << 17;
/// Bytes that take as long to copy as a step takes for one element.
const ELEMENT: usize = 16;

/// The arrays and the block, shared by all threads.
struct Shared<'a>(&'a [(*mut u8, usize)], *mut u8);

// SAFETY: each byte is copied by one task only.
unsafe impl Sync for Shared<'_> {}

/// Bytes that an array of this size takes in a block, rounded up so that the next array is aligned for any element type.
pub const fn padded_length(bytes: usize) -> usize {
    bytes.next_multiple_of(size_of::<f64>())
}

/// Copies arrays, given as pointers and byte counts, into a block of memory, one after the other.
///
/// # Safety
/// Each pointer must be valid for its bytes, and `block` for the sum of the [`padded_length`] of all; nothing may overlap, and
/// nobody else may access the written memory during the call.
pub unsafe fn pack(arrays: &[(*mut u8, usize)], block: *mut u8, threads: usize) {
    // SAFETY: upheld by the caller.
    unsafe { copy(arrays, block, false, threads) }
}

/// Copies a block of memory back into the arrays, except those whose pointer is null.
///
/// # Safety
/// As for [`pack`].
pub unsafe fn unpack(arrays: &[(*mut u8, usize)], block: *mut u8, threads: usize) {
    // SAFETY: upheld by the caller.
    unsafe { copy(arrays, block, true, threads) }
}

/// # Safety
/// As for [`pack`].
unsafe fn copy(arrays: &[(*mut u8, usize)], block: *mut u8, back: bool, threads: usize) {
    let mut total = 0;
    let starts: Vec<usize> = arrays
        .iter()
        .map(|&(_, bytes)| {
            total += padded_length(bytes);
            total - padded_length(bytes)
        })
        .collect();
    let shared = Shared(arrays, block);
    let task = |number: usize| {
        let shared = &shared;
        let end = total.min((number + 1) * CHUNK);
        let mut at = number * CHUNK;
        let mut i = starts.partition_point(|&start| start <= at) - 1;
        while at < end {
            let (array, bytes) = shared.0[i];
            let offset = at - starts[i];
            let n = bytes.saturating_sub(offset).min(end - at);
            if !array.is_null() {
                // SAFETY: `n` bytes from `offset` lie within the array, and at `at` in the block: upheld by the caller.
                unsafe {
                    let (there, here) = (array.add(offset), shared.1.add(at));
                    let (from, to) = if back { (here, there) } else { (there, here) };
                    to.copy_from_nonoverlapping(from, n);
                }
            }
            at = end.min(starts[i] + padded_length(bytes));
            i += 1;
        }
    };
    pool::run(total.div_ceil(CHUNK), false, total / ELEMENT, threads, &task);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_go_into_the_block_and_come_back() {
        let sizes = [0, 5, 0, 3 * CHUNK + 1, CHUNK - 6, 0, 7, 50 * CHUNK, 0];
        let mut arrays: Vec<Vec<u8>> =
            sizes.iter().enumerate().map(|(i, &n)| (0..n).map(|k| (k * (i + 3)) as u8).collect()).collect();
        let all = arrays.concat();
        let padded: Vec<u8> =
            arrays.iter().flat_map(|a| [&a[..], &vec![0; padded_length(a.len()) - a.len()]].concat()).collect();
        let mut block = vec![0u8; padded.len()];
        for threads in [1, 3] {
            let mut pointers: Vec<_> = arrays.iter_mut().map(|a| (a.as_mut_ptr(), a.len())).collect();
            // SAFETY: separate vectors, and a block as long as all of them together.
            unsafe { pack(&pointers, block.as_mut_ptr(), threads) };
            assert!(block == padded);
            for &(pointer, n) in &pointers {
                // SAFETY: as above.
                unsafe { pointer.write_bytes(1, n) };
            }
            pointers[1].0 = std::ptr::null_mut();
            // SAFETY: as above.
            unsafe { unpack(&pointers, block.as_mut_ptr(), threads) };
            assert!(arrays[1] == [1; 5] && arrays.concat()[5..] == all[5..]);
            arrays[1].copy_from_slice(&all[..5]);
        }
    }
}
