//! The traffic floor of an optimizer step: loops that load and store the same arrays as the step, with almost no
//! arithmetic. No in-place update of the same arrays needs less traffic, so the time of these loops is a lower bound for
//! arrays larger than the caches. In cache, divisions and square roots may be the bound: [`schuss_divider`] does only
//! those of a step.
//!
//! A step has one or more passes; a pass reads some arrays, and reads and writes others. To every written word the loop
//! adds, as an integer, a zero that the compiler does not know. So no bit changes, and the floor can run over the
//! optimizer's own arrays.

use std::ffi::c_void;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Words per group. A group is loaded completely before it is stored, so the compiler can use full vectors without
/// proving that the arrays do not overlap.
const GROUP: usize = 64;
/// Values that are divided at once; few enough to stay in registers.
const LANES: usize = 32;
/// Elements a thread takes at a time.
const CHUNK: usize = 64 * 1024;

trait Word: Copy + Send + 'static {
    fn zero() -> Self;
    fn add(self, other: Self) -> Self;
    fn and(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
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
            #[inline(always)]
            fn xor(self, other: Self) -> Self {
                self ^ other
            }
        }
    )*};
}
word!(u8, u16, u32, u64);

/// Arrays of one word type: `R` are read, `W` are read and written.
#[derive(Clone, Copy)]
struct Arrays<T, const R: usize, const W: usize> {
    read: [*const T; R],
    written: [*mut T; W],
}

impl<T: Word, const R: usize, const W: usize> Arrays<T, R, W> {
    /// # Safety
    /// The first `R + W` pointers are those of arrays of `T`.
    unsafe fn new(pointers: *const *mut c_void) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            Arrays {
                read: std::array::from_fn(|k| (*pointers.add(k)).cast_const().cast()),
                written: std::array::from_fn(|k| (*pointers.add(R + k)).cast()),
            }
        }
    }

    /// One group, starting at `i`. Read values are masked with the zero and added to the written ones. Without written
    /// arrays they go into `sum`, so that the compiler cannot remove the loads.
    ///
    /// # Safety
    /// The pointers are valid for `i..i + GROUP`.
    #[inline(always)]
    unsafe fn group(&self, i: usize, zero: T, sum: &mut [T; GROUP]) {
        let mut seen = [zero; GROUP];
        // SAFETY: the caller's promise; groups are read and written unaligned.
        unsafe {
            for array in self.read {
                let x = array.add(i).cast::<[T; GROUP]>().read_unaligned();
                (0..GROUP).for_each(|j| seen[j] = seen[j].xor(x[j]));
            }
            if R > 0 && W == 0 {
                (0..GROUP).for_each(|j| sum[j] = sum[j].xor(seen[j]));
            }
            for array in self.written {
                let at = array.add(i).cast::<[T; GROUP]>();
                let mut x = at.read_unaligned();
                (0..GROUP).for_each(|j| x[j] = x[j].add(seen[j].and(zero)));
                at.write_unaligned(x);
            }
        }
    }

    /// One element.
    ///
    /// # Safety
    /// The pointers are valid at `i`.
    unsafe fn single(&self, i: usize, zero: T, sum: &mut [T; GROUP]) {
        // SAFETY: the caller's promise.
        unsafe {
            for array in self.read {
                sum[0] = sum[0].xor(*array.add(i));
            }
            for array in self.written {
                *array.add(i) = (*array.add(i)).add(zero);
            }
        }
    }
}

/// A pass: gradients and parameters have one word type, states another.
#[derive(Clone, Copy)]
struct Pass<P, S, const A: usize, const B: usize, const C: usize, const D: usize> {
    first: Arrays<P, A, B>,
    rest: Arrays<S, C, D>,
}

// SAFETY: the parts handed to different threads never overlap.
unsafe impl<P, S, const A: usize, const B: usize, const C: usize, const D: usize> Send for Pass<P, S, A, B, C, D> {}

/// # Safety
/// The pointers are valid for `begin..end`, and nothing else uses that range meanwhile.
#[inline(always)]
unsafe fn traffic<P: Word, S: Word, const A: usize, const B: usize, const C: usize, const D: usize>(
    pass: &Pass<P, S, A, B, C, D>,
    begin: usize,
    end: usize,
) {
    let (zp, zs) = (P::zero(), S::zero());
    let (mut sp, mut ss) = ([zp; GROUP], [zs; GROUP]);
    let mut i = begin;
    // SAFETY: every access lies in begin..end.
    unsafe {
        while i + GROUP <= end {
            pass.first.group(i, zp, &mut sp);
            pass.rest.group(i, zs, &mut ss);
            i += GROUP;
        }
        for i in i..end {
            pass.first.single(i, zp, &mut sp);
            pass.rest.single(i, zs, &mut ss);
        }
    }
    black_box((sp, ss));
}

/// The divisions and square roots of `count` elements, without memory traffic.
#[inline(always)]
fn divider(count: usize, divisions: usize, roots: usize) -> f32 {
    let mut x: [f32; LANES] = std::array::from_fn(|k| 1.5 + k as f32);
    let mut sum = [0.0f32; LANES];
    let next = black_box(0.5f32);
    for _ in 0..count.div_ceil(LANES) {
        x.iter_mut().for_each(|x| *x += next);
        let mut y = x;
        for _ in 0..roots {
            y.iter_mut().for_each(|y| *y = y.sqrt());
        }
        for _ in 0..divisions {
            (0..LANES).for_each(|k| y[k] = x[k] / y[k]);
        }
        (0..LANES).for_each(|k| sum[k] += y[k]);
    }
    sum.iter().sum()
}

macro_rules! levels {
    ($($name:ident, $divider:ident, $features:literal;)*) => {$(
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        unsafe fn $name<P: Word, S: Word, const A: usize, const B: usize, const C: usize, const D: usize>(
            pass: &Pass<P, S, A, B, C, D>, begin: usize, end: usize,
        ) {
            // SAFETY: as in `traffic`.
            unsafe { traffic(pass, begin, end) }
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        unsafe fn $divider(count: usize, divisions: usize, roots: usize) -> f32 {
            divider(count, divisions, roots)
        }
    )*};
}
levels! {
    traffic_avx2, divider_avx2, "avx2";
    traffic_avx512, divider_avx512, "avx512f,avx512bw,avx512vl";
}

/// The widest vectors of this CPU: 0 for the baseline, 1 for AVX2, 2 for AVX-512.
fn width() -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
            return 2;
        }
        if is_x86_feature_detected!("avx2") {
            return 1;
        }
    }
    0
}

/// All threads, including the caller, take chunks in order until none is left. With one fixed part per thread, a busy
/// core would delay the whole loop, and the floor must be the fastest loop possible.
fn run<P: Word, S: Word, const A: usize, const B: usize, const C: usize, const D: usize>(
    pass: Pass<P, S, A, B, C, D>,
    n: usize,
    threads: usize,
) {
    #[cfg(target_arch = "x86_64")]
    let part = [traffic::<P, S, A, B, C, D>, traffic_avx2, traffic_avx512][width()];
    #[cfg(not(target_arch = "x86_64"))]
    let part = traffic::<P, S, A, B, C, D>;
    if threads == 1 {
        // SAFETY: the caller vouches for 0..n, and the CPU has this level.
        return unsafe { part(&pass, 0, n) };
    }
    let next = AtomicUsize::new(0);
    let next = &next;
    let work = move || {
        let pass = pass; // capture the struct, which is Send, and not its pointers
        loop {
            let begin = next.fetch_add(CHUNK, Relaxed);
            if begin >= n {
                break;
            }
            // SAFETY: the chunks are disjoint and inside 0..n; the scope ends before the call returns.
            unsafe { part(&pass, begin, (begin + CHUNK).min(n)) }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
}

/// # Safety
/// As for [`schuss_floor`].
unsafe fn with_words<P: Word, S: Word>(
    arrays: *const *mut c_void,
    counts: [usize; 4],
    n: usize,
    threads: usize,
) -> i32 {
    macro_rules! passes {
        ($($a:literal $b:literal $c:literal $d:literal;)*) => {
            match counts {
                $([$a, $b, $c, $d] => {
                    // SAFETY: the caller's promise.
                    let (first, rest) = unsafe { (Arrays::new(arrays), Arrays::new(arrays.add($a + $b))) };
                    run::<P, S, $a, $b, $c, $d>(Pass { first, rest }, n, threads);
                    0
                })*
                _ => -1,
            }
        };
    }
    passes! {
        // Elementwise rules: a gradient, a parameter, and states.
        1 1 0 0; 1 1 0 1; 1 1 0 2; 1 1 0 3; 1 1 0 4;
        // Sums over gradients, or over gradients and parameters, with states that are updated or only read.
        1 0 0 0; 1 0 0 1; 1 0 0 2; 1 0 1 0; 2 0 0 0; 2 0 0 1; 2 0 0 2; 2 0 1 0; 2 0 1 1;
        // Updates with states of which some are only read.
        1 1 1 0; 1 1 1 1; 1 1 1 2; 1 1 2 0; 0 1 1 0; 0 1 2 0;
        // Lookahead's synchronization; NAG's move to the look-ahead point, and its step from there.
        0 1 0 1; 0 2 1 0; 2 1 0 1;
    }
}

/// One pass over `n` elements. `counts` are the numbers of arrays that are read, and that are read and written, with
/// words of `first` bytes, then the same for words of `rest` bytes; `arrays` has their pointers in this order. Returns 0,
/// or -1 for an unknown combination.
///
/// # Safety
/// The pointers are valid for `n` words each, the written arrays do not overlap, and nobody else uses them meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn schuss_floor(
    arrays: *const *mut c_void,
    counts: *const [usize; 4],
    first: usize,
    rest: usize,
    n: usize,
    threads: usize,
) -> i32 {
    let threads = threads.max(1);
    // SAFETY: the caller vouches for the pointers.
    unsafe {
        let counts = *counts;
        match (first, rest) {
            (2, 1) => with_words::<u16, u8>(arrays, counts, n, threads),
            (2, 2) => with_words::<u16, u16>(arrays, counts, n, threads),
            (2, 4) => with_words::<u16, u32>(arrays, counts, n, threads),
            (4, 1) => with_words::<u32, u8>(arrays, counts, n, threads),
            (4, 2) => with_words::<u32, u16>(arrays, counts, n, threads),
            (4, 4) => with_words::<u32, u32>(arrays, counts, n, threads),
            (8, 8) => with_words::<u64, u64>(arrays, counts, n, threads),
            _ => -1,
        }
    }
}

/// A rule's divisions and square roots for `n` float32 elements, on this thread.
#[unsafe(no_mangle)]
pub extern "C" fn schuss_divider(n: usize, divisions: usize, roots: usize) -> f32 {
    #[cfg(target_arch = "x86_64")]
    match width() {
        // SAFETY: `width` says that the CPU has AVX-512.
        2 => return unsafe { divider_avx512(n, divisions, roots) },
        // SAFETY: `width` says that the CPU has AVX2.
        1 => return unsafe { divider_avx2(n, divisions, roots) },
        _ => {}
    }
    divider(n, divisions, roots)
}
