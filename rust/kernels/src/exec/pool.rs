//! A thread pool whose helpers share numbered tasks with the calling thread. Knows neither arrays nor rules.
//!
//! The caller starts on the tasks at once and waits at the end only for running tasks, never for a helper that has not started:
//! waking a sleeping helper takes as long as a small step. In a loop that steps often, helpers keep spinning for the next
//! region, and yield their CPU to other threads meanwhile.
//! A pool does not survive `fork()`, so a forked process leaves its parent's pool alone and makes a new one.

mod region;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use region::{Board, WaitPolicy};

/// What `region.rs` needs of threads; `rust/pool_model` has a simulated one.
mod threads {
    pub use std::hint::spin_loop;
    pub use std::sync::{Arc, Mutex, atomic};
    pub use std::thread::yield_now;
}

/// Minimum elements for helpers that are spinning and have not yielded their CPU.
const HOT: usize = 16_384;
/// Minimum elements for helpers that are awake.
const AWAKE: usize = 32_768;
/// Minimum elements for helpers that have to be woken.
const ASLEEP: usize = 262_144;
/// How long a helper spins after a region before it yields: enough for what a loop of small steps does between them. A yield
/// takes longer than that, and the helper would come late.
const EAGER: Duration = Duration::from_micros(20);
/// The longest pause between two regions during which helpers keep spinning; after a longer one, the cost of waking them hardly
/// matters.
const KEEP_SPINNING: Duration = Duration::from_millis(2);

/// Threads that a step may use, the caller included; 0 until first used.
static THREADS: AtomicUsize = AtomicUsize::new(0);
/// The pool of this process, or of the process that it was forked from.
static POOL: AtomicPtr<Pool> = AtomicPtr::new(std::ptr::null_mut());

struct Pool {
    process: (u32, u32),
    helpers: usize,
    threads: rayon::ThreadPool,
    board: Board,
    /// The one before, so that tools that look for leaks find it.
    _replaced: Option<&'static Pool>,
}

/// How long a helper waits for the next region: it spins, then yields its CPU, then sleeps.
#[derive(Default)]
struct Spinning {
    /// When the last region ended, if helpers wait for the next one.
    since: Option<Instant>,
}

impl WaitPolicy for Spinning {
    fn region_ended(&mut self, keep_spinning: bool) {
        self.since = keep_spinning.then(Instant::now);
    }

    fn wait(&mut self, posted: impl Fn() -> bool) -> bool {
        let Some(pause) = self.since.map(|since| since.elapsed()).filter(|pause| *pause < KEEP_SPINNING) else {
            return false;
        };
        for _ in 0..100 {
            std::hint::spin_loop();
            if posted() {
                return true;
            }
        }
        if pause > EAGER && rayon::yield_now() == Some(rayon::Yield::Idle) {
            std::thread::yield_now();
        }
        true
    }
}

/// The number of threads that a step may use, the caller included.
///
/// The default is `SCHUSS_NUM_THREADS`, or else the number of CPUs available to this process.
///
/// # Errors
/// `SCHUSS_NUM_THREADS` is not a number of threads.
pub fn num_threads() -> Result<usize, String> {
    match THREADS.load(Ordering::Relaxed) {
        0 => {
            let threads = match std::env::var("SCHUSS_NUM_THREADS") {
                Ok(text) if !text.is_empty() => {
                    text.parse::<usize>().ok().filter(|n| (1..1 << 16).contains(n)).ok_or_else(|| {
                        format!("SCHUSS_NUM_THREADS={text:?} is not a whole number of threads >= 1 and < 65536")
                    })?
                }
                _ => cpus(),
            };
            THREADS.store(threads, Ordering::Relaxed);
            Ok(threads)
        }
        threads => Ok(threads),
    }
}

/// CPUs available to this process when it first asked.
fn cpus() -> usize {
    static CPUS: OnceLock<usize> = OnceLock::new();
    *CPUS.get_or_init(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
}

/// Sets the number of threads that a step may use, the caller included; 0 means 1.
pub fn set_num_threads(threads: usize) {
    THREADS.store(threads.max(1), Ordering::Relaxed);
}

/// When the last region ended, in nanoseconds of [`clock`].
static ENDED: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds since the first call.
fn clock() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Runs tasks `0..count`, of `elements` elements in all, each once, on up to `threads` threads, including the caller. Threads
/// work from both ends to the middle, or with `reverse` in reverse order, so that a second pass over the same memory starts
/// with what the first left in the caches.
pub(crate) fn run(count: usize, reverse: bool, elements: usize, threads: usize, task: &(dyn Fn(usize) + Sync)) {
    let alone = || (0..count).for_each(|place| task(if reverse { count - 1 - place } else { place }));
    // A few threads for each CPU do no harm; hundreds make a step many times slower.
    let helpers = threads.min(count).min(4 * cpus()).saturating_sub(1);
    if helpers == 0 || elements < HOT {
        alone();
        return;
    }
    let pause = Duration::from_nanos(clock().saturating_sub(ENDED.load(Ordering::Relaxed)));
    let keep_spinning = pause < KEEP_SPINNING;
    let pays = elements >= ASLEEP || (keep_spinning && elements >= AWAKE) || pause < EAGER;
    match if pays { pool(helpers) } else { None } {
        Some(pool) => {
            let wake = || pool.threads.spawn(|| pool.board.help(&mut Spinning::default()));
            pool.board.run((count, reverse), helpers, keep_spinning, task, wake);
        }
        None => alone(),
    }
    ENDED.store(clock(), Ordering::Relaxed);
}

/// Runs tasks `0..count` that cost as much as a step over `elements` elements.
pub fn in_parallel(count: usize, elements: usize, threads: usize, task: &(dyn Fn(usize) + Sync)) {
    run(count, false, elements, threads, task);
}

#[cfg(unix)]
unsafe extern "C" {
    /// Has functions called before each fork, and after it in the parent and in the child; POSIX has it.
    pub fn pthread_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> std::ffi::c_int;
}

/// Identifies this process among its forks: one in another process-number space, as in a container, may have the same number.
fn process() -> (u32, u32) {
    static FORKS: AtomicU32 = AtomicU32::new(0);
    #[cfg(unix)]
    {
        extern "C" fn forked() {
            FORKS.fetch_add(1, Ordering::Relaxed);
        }
        static ONCE: std::sync::Once = std::sync::Once::new();
        // SAFETY: the function is never unloaded, and only counts.
        ONCE.call_once(|| unsafe {
            pthread_atfork(None, None, Some(forked));
        });
    }
    (std::process::id(), FORKS.load(Ordering::Relaxed))
}

/// A pool of `count` threads, or `None` when they cannot be created.
fn workers(count: usize) -> Option<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new().num_threads(count).thread_name(|i| format!("schuss-{i}")).build().ok()
}

/// This process's pool with at least this many helpers, or `None` when threads cannot be created.
fn pool(helpers: usize) -> Option<&'static Pool> {
    let process = process();
    let current = POOL.load(Ordering::Acquire);
    // SAFETY: a pool that was published is never freed.
    if let Some(pool) = unsafe { current.as_ref() }
        && pool.process == process
        && pool.helpers >= helpers
    {
        return Some(pool);
    }
    let helpers = helpers.max(cpus());
    let threads = workers(helpers)?;
    // SAFETY: as above.
    let _replaced = unsafe { current.as_ref() };
    let new = Box::into_raw(Box::new(Pool { process, helpers, threads, board: Board::new(), _replaced }));
    match POOL.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire) {
        // The old pool is kept for ever: another thread may be using it, and after a fork its threads are gone and joining them
        // would hang.
        // SAFETY: just made, and published pools are never freed.
        Ok(_) => Some(unsafe { &*new }),
        Err(_) => {
            // SAFETY: never published.
            drop(unsafe { Box::from_raw(new) });
            pool(helpers)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn every_task_runs_once() {
        // The first size wakes helpers; the smaller ones use awake helpers or none.
        for (elements, count) in [ASLEEP, AWAKE, HOT, HOT - 1].into_iter().flat_map(|n| [0, 1, 2, 1000].map(|c| (n, c)))
        {
            for (threads, reverse) in [(1, false), (1, true), (2, false), (2, true), (5, true)] {
                let runs: Vec<_> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                run(count, reverse, elements, threads, &|i| {
                    runs[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(runs.iter().all(|n| n.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        for broken in [0, 50, 99] {
            let result = catch_unwind(|| run(100, false, ASLEEP, 2, &|i| assert_ne!(i, broken)));
            assert!(result.is_err());
        }
        every_task_runs_once();
    }
}
