//! Prefetching of memory. It changes speed, never a bit, and knows nothing else of the crate.

/// Prefetches a cache line.
#[inline(always)]
pub fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is allowed; it reads nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast())
    };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(nomem, nostack, preserves_flags))
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

/// Elements between two prefetches of a loop. With more, the prefetches of a batch wait for each other.
pub(crate) const PREFETCH_BATCH: usize = 128;
/// The distance of a prefetch in elements.
pub(crate) const DISTANCE: usize = 512;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Prefetches `n` elements of a stream, [`DISTANCE`] elements from `at`.
#[inline(always)]
pub(crate) fn prefetch_batch<T>(at: *const T, n: usize) {
    prefetch_lines(at.wrapping_add(DISTANCE), n);
}

/// Prefetches `n` elements. They may be past the end of the array, which is harmless.
#[inline(always)]
pub(crate) fn prefetch_lines<T>(at: *const T, n: usize) {
    for line in (0..n).step_by(LINE / size_of::<T>()) {
        prefetch(at.wrapping_add(line));
    }
}
