//! Asking for memory before it is needed. Knows no rule and no kernel; it changes time, never a bit.

/// How many elements ahead an update asks for memory where that is worth it, and how many it updates before it asks again:
/// few enough that what it asks for at once, four lines of each float32 stream, does not wait.
pub(crate) const AHEAD: usize = 256;
pub(crate) const GROUP: usize = 64;
/// Bytes that memory gives at once.
const LINE: usize = 64;

/// Asks for what lies [`AHEAD`] of a group, if there is one.
#[inline(always)]
pub(crate) fn fetch_ahead<T>(group: &[T]) {
    if !group.is_empty() {
        for line in (0..GROUP).step_by(LINE / size_of::<T>()) {
            fetch(group.as_ptr().wrapping_add(AHEAD + line));
        }
    }
}

/// Asks for a line of memory before it is read.
#[inline(always)]
pub fn fetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is allowed; it reads nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
