//! Counts the allocations of a process, and makes one of them fail: glibc's allocator, wrapped, loaded with `LD_PRELOAD`.

use std::ffi::c_void;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Allocations of at least `LEAST` bytes until one fails, and those after it.
static UNTIL: AtomicIsize = AtomicIsize::new(-1);
static LEAST: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(old: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
}

/// The number of allocations so far.
#[unsafe(no_mangle)]
extern "C" fn allocations() -> usize {
    COUNT.load(Relaxed)
}

/// Makes the `nth` allocation of at least `least` bytes fail, counted from now, from 0.
#[unsafe(no_mangle)]
extern "C" fn fail(nth: isize, least: usize) {
    LEAST.store(least, Relaxed);
    UNTIL.store(nth, Relaxed);
}

/// Whether it has failed.
#[unsafe(no_mangle)]
extern "C" fn has_failed() -> bool {
    UNTIL.load(Relaxed) < 0
}

/// Counts an allocation; returns whether it fails.
fn fails(size: usize) -> bool {
    COUNT.fetch_add(1, Relaxed);
    UNTIL.load(Relaxed) >= 0 && size >= LEAST.load(Relaxed) && UNTIL.fetch_sub(1, Relaxed) == 0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    if fails(size) {
        return std::ptr::null_mut();
    }
    // SAFETY: the caller's promise, passed on to glibc.
    unsafe { __libc_malloc(size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    if fails(count.saturating_mul(size)) {
        return std::ptr::null_mut();
    }
    // SAFETY: the caller's promise, passed on to glibc.
    unsafe { __libc_calloc(count, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(old: *mut c_void, size: usize) -> *mut c_void {
    if fails(size) {
        return std::ptr::null_mut();
    }
    // SAFETY: the caller's promise, passed on to glibc.
    unsafe { __libc_realloc(old, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if fails(size) {
        return std::ptr::null_mut();
    }
    // SAFETY: the caller's promise, passed on to glibc.
    unsafe { __libc_memalign(align, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(place: *mut *mut c_void, align: usize, size: usize) -> i32 {
    if fails(size) {
        return 12;
    }
    // SAFETY: as above; `place` is valid for writing by posix_memalign's contract.
    let memory = unsafe {
        *place = __libc_memalign(align, size);
        *place
    };
    if memory.is_null() { 12 } else { 0 }
}
