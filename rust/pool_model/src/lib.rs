//! Runs the thread pool's protocol, `rust/kernels/src/exec/pool/region.rs`, under loom: in each order in which its threads
//! may run, up to a bound, and with each value that they may read. Knows no kernel and no real thread.
//!
//! Loom treats sequentially consistent operations as acquire and release, so that these tests say nothing about whether a
//! region may count on a helper that falls asleep; they show that it would harm nobody.
#![cfg(test)]

#[path = "../../kernels/src/exec/pool/region.rs"]
mod region;

mod threads {
    pub use loom::hint::spin_loop;
    pub use loom::sync::{Arc, Mutex, atomic};
    pub use loom::thread::yield_now;
}

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use region::{Board, WaitPolicy};

/// Waits a number of times, whatever the regions say.
struct Waits(u32);

impl WaitPolicy for Waits {
    fn region_ended(&mut self, _keep_spinning: bool) {}

    fn wait(&mut self, posted: impl Fn() -> bool) -> bool {
        if self.0 == 0 {
            return false;
        }
        self.0 -= 1;
        if !posted() {
            thread::yield_now();
        }
        true
    }
}

/// What a task writes: a counter that loom watches for unordered accesses.
struct Cell(UnsafeCell<usize>);

// SAFETY: loom reports accesses that are not ordered.
unsafe impl Sync for Cell {}

/// Runs `regions` of so many tasks with one helper each, and checks each after it ended.
fn regions(counts: &'static [usize], helpers: usize, waits: u32) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let board = Arc::new(Board::new());
        let woken = std::cell::RefCell::new(Vec::new());
        for &count in counts {
            // The closure and the cells end with the region: loom reports a helper that touches them later.
            let cells: Vec<_> = (0..count).map(|_| Cell(UnsafeCell::new(0))).collect();
            let task = |i: usize| {
                let cell: &Cell = &cells[i];
                // SAFETY: each task runs once, which is what loom checks.
                cell.0.with_mut(|n| unsafe { *n += 1 });
            };
            board.run((count, count % 2 == 1), helpers, true, &task, || {
                let board = board.clone();
                woken.borrow_mut().push(thread::spawn(move || board.help(&mut Waits(waits))));
            });
            for cell in &cells {
                // SAFETY: as above.
                assert_eq!(cell.0.with(|n| unsafe { *n }), 1);
            }
        }
        for helper in woken.into_inner() {
            helper.join().unwrap();
        }
    });
}

#[test]
fn one_helper() {
    regions(&[3], 1, 0);
}

#[test]
fn two_helpers() {
    regions(&[2], 2, 0);
}

#[test]
fn a_helper_that_waits_joins_the_next_region() {
    regions(&[2, 2], 1, 1);
}

#[test]
fn a_helper_that_falls_asleep_between_regions() {
    regions(&[1, 2], 1, 0);
}
