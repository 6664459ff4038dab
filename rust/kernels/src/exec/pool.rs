//! A thread pool whose helpers share numbered tasks with the calling thread. Knows neither arrays nor rules.
//!
//! The caller starts on the tasks at once and waits at the end only for running tasks, never for a helper that has not started:
//! waking a sleeping helper takes as long as a small step. In a loop that steps often, helpers keep spinning for the next
//! region, and yield their CPU to other threads meanwhile.
//! A pool does not survive `fork()`, so a forked process leaves its parent's pool alone and makes a new one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

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
    /// The latest region; `posted` counts all of them.
    latest: Mutex<Arc<Job>>,
    posted: AtomicU32,
    /// Helpers that are working or spinning.
    awake: AtomicUsize,
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

/// One parallel region. Helpers may still read it after it has ended, so it owns only numbers.
struct Job {
    /// Number of tasks claimed by the caller, in ascending order, in the low half; by helpers, in descending order, in the high
    /// half. So, in a loop, each thread finds its own tasks' data in its cache.
    taken: AtomicU64,
    done: AtomicUsize,
    count: usize,
    /// Whether tasks are taken in reverse order: from the middle to both ends.
    reverse: bool,
    /// Open slots: how many helpers may still join.
    open_slots: AtomicUsize,
    /// Whether helpers keep spinning for the next region.
    keep_spinning: bool,
    panicked: AtomicBool,
    task: *const (dyn Fn(usize) + Sync),
}

// SAFETY: `task` is Sync, and is only called for a claimed number below `count`; `run` returns only after all of those calls.
unsafe impl Send for Job {}
// SAFETY: as above.
unsafe impl Sync for Job {}

impl Job {
    fn new(
        count: usize,
        reverse: bool,
        helpers: usize,
        keep_spinning: bool,
        task: *const (dyn Fn(usize) + Sync),
    ) -> Job {
        Job {
            taken: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            count,
            reverse,
            open_slots: AtomicUsize::new(helpers),
            keep_spinning,
            panicked: AtomicBool::new(false),
            task,
        }
    }

    /// Claims and runs tasks until none is left.
    fn work(&self, helper: bool) {
        loop {
            let taken = self.taken.fetch_add(if helper { 1 << 32 } else { 1 }, Ordering::Relaxed);
            let (front, back) = ((taken & 0xffff_ffff) as usize, (taken >> 32) as usize);
            if front + back >= self.count {
                return;
            }
            let place = if helper { self.count - 1 - back } else { front };
            let middle = self.count / 2;
            let number = match self.reverse {
                false => place,
                true if place < middle => middle - 1 - place,
                true => middle + (self.count - 1 - place),
            };
            // A panic must not keep the caller from waiting for the other tasks; the caller panics at the end.
            // SAFETY: a number below `count` was claimed, so `run` is still waiting and the task is alive.
            if catch_unwind(AssertUnwindSafe(|| unsafe { (*self.task)(number) })).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.done.fetch_add(1, Ordering::Release);
        }
    }
}

impl Pool {
    /// The loop of a woken helper: it joins the latest region, and those that follow soon.
    fn help(&self) {
        let mut seen = None;
        let mut idle: Option<Instant> = None;
        loop {
            let posted = self.posted.load(Ordering::SeqCst);
            if seen != Some(posted) {
                seen = Some(posted);
                let job = Arc::clone(&self.latest.lock().unwrap_or_else(PoisonError::into_inner));
                let slot = job
                    .open_slots
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open_slots| open_slots.checked_sub(1));
                if slot.is_ok() {
                    job.work(true);
                }
                idle = job.keep_spinning.then(Instant::now);
            } else if let Some(pause) = idle.map(|since| since.elapsed()).filter(|pause| *pause < KEEP_SPINNING) {
                for _ in 0..100 {
                    std::hint::spin_loop();
                    if self.posted.load(Ordering::Relaxed) != posted {
                        break;
                    }
                }
                if pause > EAGER && rayon::yield_now() == Some(rayon::Yield::Idle) {
                    std::thread::yield_now();
                }
            } else {
                self.awake.fetch_sub(1, Ordering::SeqCst);
                // A region posted since then may have counted on this helper.
                if self.posted.load(Ordering::SeqCst) == posted {
                    return;
                }
                self.awake.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// Runs a region with up to `helpers` helpers.
    fn run(
        &'static self,
        (count, reverse): (usize, bool),
        helpers: usize,
        keep_spinning: bool,
        task: &(dyn Fn(usize) + Sync),
    ) {
        // SAFETY: only the lifetime changes; the task is called for claimed numbers alone, and all of those calls end before
        // this function returns.
        let task = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync + 'static)>(task)
        };
        let new = Job::new(count, reverse, helpers, keep_spinning, task);
        let job = {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            match Arc::get_mut(&mut latest) {
                Some(old) => *old = new,
                None => *latest = Arc::new(new),
            }
            Arc::clone(&latest)
        };
        self.posted.fetch_add(1, Ordering::SeqCst);
        for _ in self.awake.load(Ordering::SeqCst)..helpers {
            self.awake.fetch_add(1, Ordering::SeqCst);
            self.threads.spawn(|| self.help());
        }
        job.work(false);
        let mut rounds = 0u32;
        while job.done.load(Ordering::Acquire) < count {
            // Tasks take microseconds; a helper that takes longer was preempted, so yield this CPU to it.
            rounds += 1;
            if rounds < 10_000 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        assert!(!job.panicked.load(Ordering::Relaxed), "a parallel task panicked");
    }
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
        Some(pool) => pool.run((count, reverse), helpers, keep_spinning, task),
        None => alone(),
    }
    ENDED.store(clock(), Ordering::Relaxed);
}

/// Runs tasks `0..count` that cost as much as a step over `elements` elements.
pub fn in_parallel(count: usize, elements: usize, threads: usize, task: &(dyn Fn(usize) + Sync)) {
    run(count, false, elements, threads, task);
}

/// Identifies this process among its forks: one in another process-number space, as in a container, may have the same number.
fn process() -> (u32, u32) {
    static FORKS: AtomicU32 = AtomicU32::new(0);
    #[cfg(unix)]
    {
        extern "C" fn forked() {
            FORKS.fetch_add(1, Ordering::Relaxed);
        }
        unsafe extern "C" {
            fn pthread_atfork(
                prepare: Option<extern "C" fn()>,
                parent: Option<extern "C" fn()>,
                child: Option<extern "C" fn()>,
            ) -> std::ffi::c_int;
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
    let latest = Mutex::new(Arc::new(Job::new(0, false, 0, false, &|_: usize| {})));
    let (posted, awake) = (AtomicU32::new(0), AtomicUsize::new(0));
    let new = Box::into_raw(Box::new(Pool { process, helpers, threads, latest, posted, awake }));
    match POOL.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire) {
        // The old pool is leaked on purpose: another thread may be using it, and after a fork its threads are gone and joining
        // them would hang.
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
