//! Threads: a pool that helps the calling thread with numbered tasks.
//!
//! The caller starts on the tasks at once and waits at the end only for tasks in flight, never for a helper that has
//! not begun: between two steps of a training loop the pool falls asleep, and waking it takes as long as a small step.
//! A pool does not survive `fork()`, so one that belongs to another process is left alone and a new one is made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// Threads that a step may use, the caller included; 0 before the first question.
static THREADS: AtomicUsize = AtomicUsize::new(0);
/// The pool of this process, or of the process that this one was forked from.
static POOL: AtomicPtr<Pool> = AtomicPtr::new(std::ptr::null_mut());

struct Pool {
    process: u32,
    helpers: usize,
    threads: rayon::ThreadPool,
}

/// The number of threads that a step may use, the caller included.
///
/// At first that is `SCHUSS_NUM_THREADS`, or else the number of CPUs that this process may run on.
///
/// # Errors
/// `SCHUSS_NUM_THREADS` is set to something else than a positive number.
pub fn num_threads() -> Result<usize, String> {
    match THREADS.load(Ordering::Relaxed) {
        0 => {
            let threads = match std::env::var("SCHUSS_NUM_THREADS") {
                Ok(text) if !text.is_empty() => {
                    text.parse::<usize>().ok().filter(|&n| n >= 1).ok_or_else(|| {
                        format!("SCHUSS_NUM_THREADS={text:?} is not a positive whole number of threads")
                    })?
                }
                _ => std::thread::available_parallelism().map_or(1, |n| n.get()),
            };
            THREADS.store(threads, Ordering::Relaxed);
            Ok(threads)
        }
        threads => Ok(threads),
    }
}

/// Sets the number of threads that a step may use, the caller included; 0 is taken as 1.
pub fn set_num_threads(threads: usize) {
    THREADS.store(threads.max(1), Ordering::Relaxed);
}

/// One parallel region. Helpers may see it after it has ended, so it owns nothing but numbers.
struct Job {
    next: AtomicUsize,
    done: AtomicUsize,
    count: usize,
    panicked: AtomicBool,
    task: *const (dyn Fn(usize) + Sync),
}

// SAFETY: `task` is Sync, and is only called for a claimed number below `count`; `run` outlives all of those.
unsafe impl Send for Job {}
// SAFETY: as above.
unsafe impl Sync for Job {}

impl Job {
    /// Claims and runs tasks until none is left.
    fn work(&self) {
        /// Counts a task as done even when it panics, since the caller waits for the count.
        struct Done<'a>(&'a Job);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.panicked.store(true, Ordering::Relaxed);
                }
                self.0.done.fetch_add(1, Ordering::Release);
            }
        }
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.count {
                return;
            }
            let _done = Done(self);
            // SAFETY: a number below `count` was claimed, so `run` is still waiting and the task is alive.
            unsafe { (*self.task)(number) };
        }
    }
}

/// Runs tasks `0..count`, each once, on up to `threads` threads, the caller among them.
pub(crate) fn run(count: usize, threads: usize, task: &(dyn Fn(usize) + Sync)) {
    let helpers = threads.min(count).saturating_sub(1);
    let pool = if helpers > 0 { pool(helpers) } else { None };
    let Some(pool) = pool else {
        (0..count).for_each(task);
        return;
    };
    // SAFETY: only the lifetime changes; the task is called for claimed numbers alone, all of which end before this
    // function returns.
    let task = unsafe {
        std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync + 'static)>(task)
    };
    let job = Arc::new(Job {
        next: AtomicUsize::new(0),
        done: AtomicUsize::new(0),
        count,
        panicked: AtomicBool::new(false),
        task,
    });
    for _ in 0..helpers {
        let job = Arc::clone(&job);
        pool.threads.spawn(move || job.work());
    }
    job.work();
    let mut rounds = 0u32;
    while job.done.load(Ordering::Acquire) < count {
        // Tasks take microseconds; a helper that lost its CPU takes longer, and gets ours.
        rounds += 1;
        if rounds < 10_000 { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
    assert!(!job.panicked.load(Ordering::Relaxed), "a parallel task panicked");
}

/// Runs `f` on the pool, for libraries that bring their own rayon tasks; on the calling thread where one is enough.
pub(crate) fn install<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    match if threads > 1 { pool(threads) } else { None } {
        Some(pool) => pool.threads.install(f),
        None => f(),
    }
}

/// This process's pool with at least so many helpers, or nothing when threads cannot be had.
fn pool(helpers: usize) -> Option<&'static Pool> {
    let process = std::process::id();
    let current = POOL.load(Ordering::Acquire);
    // SAFETY: a pool that was published is never freed.
    if let Some(pool) = unsafe { current.as_ref() }
        && pool.process == process
        && pool.helpers >= helpers
    {
        return Some(pool);
    }
    let helpers = helpers.max(std::thread::available_parallelism().map_or(1, |n| n.get()));
    let threads =
        rayon::ThreadPoolBuilder::new().num_threads(helpers).thread_name(|i| format!("schuss-{i}")).build().ok()?;
    let new = Box::into_raw(Box::new(Pool { process, helpers, threads }));
    match POOL.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire) {
        // The old pool is leaked on purpose: another thread may be using it, and after a fork its threads are gone
        // and joining them would hang.
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
        for count in [0, 1, 2, 1000] {
            for threads in [1, 2, 5] {
                let runs: Vec<_> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                run(count, threads, &|i| {
                    runs[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(runs.iter().all(|n| n.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let broken = std::panic::catch_unwind(|| run(100, 2, &|i| assert_ne!(i, 50)));
        assert!(broken.is_err());
        every_task_runs_once();
    }
}
