//! The traffic floor of an optimizer step: a loop that loads and stores exactly what the step loads and stores and does
//! next to nothing between. Nobody can update the same arrays in place with less traffic, so the time of this loop is
//! what an optimizer is measured against once its arrays have left the caches.
//!
//! A step reads one gradient, reads and writes one parameter, and reads and writes `states` state arrays. The loop adds
//! a zero that the compiler cannot see to every word, as an integer: every bit survives, so the floor can run over the
//! very arrays that the optimizer uses, on the same pages, without disturbing them.

use std::ffi::c_void;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Words handled in one go. Each group is loaded whole before it is stored, so the compiler may use full vectors
/// without having to prove that the arrays do not overlap.
const GROUP: usize = 64;
/// Elements a thread takes at a time.
const CHUNK: usize = 64 * 1024;

trait Word: Copy + Send + 'static {
    fn zero() -> Self;
    fn add(self, other: Self) -> Self;
    fn and(self, other: Self) -> Self;
}

macro_rules! word {
    ($($t:ty),*) => {$(
        impl Word for $t {
            fn zero() -> Self {
                black_box(0)
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn and(self, other: Self) -> Self {
                self & other
            }
        }
    )*};
}
word!(u8, u16, u32, u64);

/// The arrays of one step: `first` words for gradient and parameter, `rest` words for the states.
#[derive(Clone, Copy)]
struct Streams<P, S, const K: usize> {
    gradient: *const P,
    parameter: *mut P,
    states: [*mut S; K],
}

// SAFETY: the parts handed to different threads never overlap.
unsafe impl<P, S, const K: usize> Send for Streams<P, S, K> {}

/// # Safety
/// The pointers are valid for `begin..end`, and nothing else touches that range meanwhile.
#[inline(always)]
unsafe fn traffic<P: Word, S: Word, const K: usize>(s: &Streams<P, S, K>, begin: usize, end: usize) {
    let (zp, zs) = (P::zero(), S::zero());
    let mut i = begin;
    // SAFETY: every access lies in begin..end; groups are read and written unaligned.
    unsafe {
        while i + GROUP <= end {
            let g = s.gradient.add(i).cast::<[P; GROUP]>().read_unaligned();
            let at = s.parameter.add(i).cast::<[P; GROUP]>();
            let mut p = at.read_unaligned();
            for j in 0..GROUP {
                p[j] = p[j].add(g[j].and(zp));
            }
            at.write_unaligned(p);
            for k in 0..K {
                let at = s.states[k].add(i).cast::<[S; GROUP]>();
                let mut x = at.read_unaligned();
                for x in &mut x {
                    *x = x.add(zs);
                }
                at.write_unaligned(x);
            }
            i += GROUP;
        }
        for i in i..end {
            let p = s.parameter.add(i);
            *p = (*p).add((*s.gradient.add(i)).and(zp));
            for k in 0..K {
                let x = s.states[k].add(i);
                *x = (*x).add(zs);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn traffic_avx2<P: Word, S: Word, const K: usize>(s: &Streams<P, S, K>, begin: usize, end: usize) {
    // SAFETY: as in `traffic`.
    unsafe { traffic(s, begin, end) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn traffic_avx512<P: Word, S: Word, const K: usize>(s: &Streams<P, S, K>, begin: usize, end: usize) {
    // SAFETY: as in `traffic`.
    unsafe { traffic(s, begin, end) }
}

type Part<P, S, const K: usize> = unsafe fn(&Streams<P, S, K>, usize, usize);

fn best<P: Word, S: Word, const K: usize>() -> Part<P, S, K> {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
            return traffic_avx512;
        }
        if is_x86_feature_detected!("avx2") {
            return traffic_avx2;
        }
    }
    traffic
}

/// The threads, the caller among them, take chunks in order until none is left. One fixed part a thread would lose to
/// this whenever a neighbour keeps one core busy, and a floor must not be easy to beat.
fn run<P: Word, S: Word, const K: usize>(s: Streams<P, S, K>, n: usize, threads: usize) {
    let part = best();
    if threads == 1 {
        // SAFETY: the caller vouches for 0..n.
        return unsafe { part(&s, 0, n) };
    }
    let next = AtomicUsize::new(0);
    let next = &next;
    let work = move || {
        let s = s; // the whole struct moves, not its pointers one by one
        loop {
            let begin = next.fetch_add(CHUNK, Relaxed);
            if begin >= n {
                break;
            }
            // SAFETY: the chunks are disjoint and inside 0..n; the scope ends before the call returns.
            unsafe { part(&s, begin, (begin + CHUNK).min(n)) }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
}

unsafe fn with_states<P: Word, S: Word>(gradient: *const c_void, rw: &[*mut c_void], n: usize, threads: usize) -> i32 {
    macro_rules! states {
        ($($k:literal),*) => {
            match rw.len() - 1 {
                $($k => {
                    let states = std::array::from_fn::<_, $k, _>(|k| rw[k + 1].cast::<S>());
                    run(Streams { gradient: gradient.cast::<P>(), parameter: rw[0].cast::<P>(), states }, n, threads);
                    0
                })*
                _ => -1,
            }
        };
    }
    states!(0, 1, 2, 3, 4)
}

/// One pass over `n` elements. `rw` holds `rw_count` pointers: the parameter, then up to four states. The gradient and
/// the parameter have words of `first` bytes, the states of `rest` bytes. Returns 0, or -1 for an unknown combination.
///
/// # Safety
/// The pointers are valid for `n` words each, the written arrays do not overlap, and nobody else uses them meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn schuss_floor(
    gradient: *const c_void,
    rw: *const *mut c_void,
    rw_count: usize,
    first: usize,
    rest: usize,
    n: usize,
    threads: usize,
) -> i32 {
    if rw_count == 0 {
        return -1;
    }
    let threads = threads.max(1);
    // SAFETY: the caller vouches for the pointers.
    unsafe {
        let rw = std::slice::from_raw_parts(rw, rw_count);
        match (first, rest) {
            (2, 1) => with_states::<u16, u8>(gradient, rw, n, threads),
            (2, 2) => with_states::<u16, u16>(gradient, rw, n, threads),
            (2, 4) => with_states::<u16, u32>(gradient, rw, n, threads),
            (4, 1) => with_states::<u32, u8>(gradient, rw, n, threads),
            (4, 2) => with_states::<u32, u16>(gradient, rw, n, threads),
            (4, 4) => with_states::<u32, u32>(gradient, rw, n, threads),
            (8, 8) => with_states::<u64, u64>(gradient, rw, n, threads),
            _ => -1,
        }
    }
}
