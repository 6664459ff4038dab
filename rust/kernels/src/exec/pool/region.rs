//! The protocol by which threads share the numbered tasks of a parallel region. Knows no thread pool, clock or process.
//!
//! # Why no task is lost or run twice
//! A thread claims a task by one addition to `taken`, which counts the claims of the caller in its low half and those of all
//! helpers in its high half. The caller takes tasks from the front, helpers take them from the back. A claim counts only if
//! the two counts before it add up to less than the number of tasks, so the claims that count are exactly that many, and front
//! and back never meet. A claim that does not count ends the thread's work.
//!
//! # Why a late helper touches nothing
//! `task` is a pointer to a closure on the caller's stack. A thread calls it only after a claim that counts, and the caller
//! returns only when as many tasks are done as there are. So whoever calls it finds it alive. A helper that comes after that
//! reads the numbers of the [`Job`], which it owns a share of, finds no task, and leaves. A `Job` is used again for the next
//! region only if nobody else has a share of it.
//!
//! # Why the caller sees what helpers wrote
//! A helper adds to `done` with release ordering, after the task; the caller reads it with acquire ordering.
//!
//! # States of a helper
//! ```text
//! asleep --run() counts too few awake--> working --no task left--> waiting --a region has an open slot--> working
//!                                                                     `--wait() is false--> asleep
//! ```
//! A waiting helper reads one word, which has the region's number and its open slots. So a helper that is not wanted leaves the
//! lock alone; with many of them the next region would wait for it. A helper that took a slot may find that another region has
//! been posted since; then it looks again.
//!
//! `awake` counts the helpers that are not asleep. A helper that falls asleep first takes itself off that count, then looks
//! for a region once more; `run` first posts the region, then reads the count. So one of the two sees the other, and no region
//! is left waiting for a helper that went to sleep. If it were, the caller would do the tasks alone: slower, but right.
//!
//! `rust/pool_model` runs this file under `loom`, which tries the orders in which threads may run and what they may read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

use super::threads::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use super::threads::{Arc, Mutex, spin_loop, yield_now};

/// One parallel region. Helpers may still read it after it has ended, so it owns only numbers.
struct Job {
    /// Number of tasks claimed by the caller, in ascending order, in the low half; by helpers, in descending order, in the high
    /// half. So, in a loop, each thread finds its own tasks' data in its cache.
    taken: AtomicU64,
    done: AtomicUsize,
    count: usize,
    /// Whether tasks are taken in reverse order: from the middle to both ends.
    reverse: bool,
    /// The region's number; wraps.
    number: u32,
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
        number: u32,
        (count, reverse): (usize, bool),
        keep_spinning: bool,
        task: *const (dyn Fn(usize) + Sync),
    ) -> Job {
        Job {
            taken: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            count,
            reverse,
            number,
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

/// Where regions are posted, and how helpers find them.
pub struct Board {
    latest: Mutex<Arc<Job>>,
    /// The latest region's number in the high half; in the low half its open slots: how many helpers may still join.
    posted: AtomicU64,
    /// Helpers that are working or waiting.
    awake: AtomicUsize,
}

/// The number of a posted region.
fn number(posted: u64) -> u32 {
    (posted >> 32) as u32
}

/// How many helpers may still join a posted region.
fn open_slots(posted: u64) -> u32 {
    posted as u32
}

/// How long a helper waits for the next region.
pub trait WaitPolicy {
    /// The helper has left a region, after which helpers keep spinning or not.
    fn region_ended(&mut self, keep_spinning: bool);

    /// Waits a little, at most until a region is `posted`. False: the helper shall sleep.
    fn wait(&mut self, posted: impl Fn() -> bool) -> bool;
}

impl Board {
    pub fn new() -> Board {
        let nothing = Job::new(0, (0, false), false, &|_: usize| {});
        Board { latest: Mutex::new(Arc::new(nothing)), posted: AtomicU64::new(0), awake: AtomicUsize::new(0) }
    }

    /// The loop of a woken helper: it joins the latest region, and those that follow soon.
    pub fn help(&self, policy: &mut impl WaitPolicy) {
        let mut joined = None;
        let wanted = |posted: u64, joined| open_slots(posted) > 0 && Some(number(posted)) != joined;
        loop {
            let posted = self.posted.load(Ordering::SeqCst);
            if wanted(posted, joined) {
                let slot = self.posted.compare_exchange(posted, posted - 1, Ordering::Relaxed, Ordering::Relaxed);
                if slot.is_ok() {
                    joined = Some(number(posted));
                    let job = Arc::clone(&self.latest.lock().unwrap_or_else(PoisonError::into_inner));
                    if Some(job.number) == joined {
                        job.work(true);
                        policy.region_ended(job.keep_spinning);
                    }
                }
            } else if !policy.wait(|| wanted(self.posted.load(Ordering::Relaxed), joined)) {
                self.awake.fetch_sub(1, Ordering::SeqCst);
                // A region posted since then may have counted on this helper.
                if number(self.posted.load(Ordering::SeqCst)) == number(posted) {
                    return;
                }
                self.awake.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// Runs a region with up to `helpers` helpers. `wake` starts a thread that calls [`Board::help`].
    pub fn run(
        &self,
        (count, reverse): (usize, bool),
        helpers: usize,
        keep_spinning: bool,
        task: &(dyn Fn(usize) + Sync),
        wake: impl Fn(),
    ) {
        // SAFETY: only the lifetime changes; the task is called for claimed numbers alone, and all of those calls end before
        // this function returns.
        let task = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync + 'static)>(task)
        };
        let job = {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            let number = latest.number.wrapping_add(1);
            let new = Job::new(number, (count, reverse), keep_spinning, task);
            match Arc::get_mut(&mut latest) {
                Some(old) => *old = new,
                None => *latest = Arc::new(new),
            }
            // While the lock is held: another thread may post a region too.
            self.posted.store((u64::from(number) << 32) | helpers as u64, Ordering::SeqCst);
            Arc::clone(&latest)
        };
        for _ in self.awake.load(Ordering::SeqCst)..helpers {
            self.awake.fetch_add(1, Ordering::SeqCst);
            wake();
        }
        job.work(false);
        let mut rounds = 0u32;
        while job.done.load(Ordering::Acquire) < count {
            // Tasks take microseconds; a helper that takes longer was preempted, so yield this CPU to it.
            rounds += 1;
            if rounds < 10_000 { spin_loop() } else { yield_now() }
        }
        assert!(!job.panicked.load(Ordering::Relaxed), "a parallel task panicked");
    }
}
