//! Counts the allocations of a process: glibc's allocator behind a counter, loaded with `LD_PRELOAD`.

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static COUNT: AtomicUsize = AtomicUsize::new(0);

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

#[unsafe(no_mangle)]
unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    COUNT.fetch_add(1, Relaxed);
    // SAFETY: the caller's promise, passed on to glibc.
    unsafe { __libc_malloc(size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    COUNT.fetch_add(1, Relaxed);
    // SAFETY: the caller's promise, passed on to glibc.
    unsafe { __libc_calloc(count, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(old: *mut c_void, size: usize) -> *mut c_void {
    COUNT.fetch_add(1, Relaxed);
    // SAFETY: the caller's promise, passed on to glibc.
    unsafe { __libc_realloc(old, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    COUNT.fetch_add(1, Relaxed);
    // SAFETY: the caller's promise, passed on to glibc.
    unsafe { __libc_memalign(align, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(place: *mut *mut c_void, align: usize, size: usize) -> i32 {
    COUNT.fetch_add(1, Relaxed);
    // SAFETY: as above; `place` is valid for writing by posix_memalign's contract.
    let memory = unsafe {
        *place = __libc_memalign(align, size);
        *place
    };
    if memory.is_null() { 12 } else { 0 }
}
