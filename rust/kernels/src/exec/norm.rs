//! The sum of squares of all gradients, for the global norm. Runs no rule.

use std::collections::TryReserveError;
use std::ops::Range;

use super::item::Item;
use super::pool;
use super::reductions::fold;
use super::tiles::with_tail_tiles;
use super::work_list::WorkList;
use crate::cpu::Level;
use crate::numeric::reduce::{self, BLOCK, Form};
use crate::numeric::{Dtype, Squares, fpenv};

/// Blocks of gradients that lie one behind the other in memory, of one array or of several. Each block is summed by itself, but
/// all in one call: a call for each small array takes longer than its sum.
#[derive(Clone, Debug)]
struct Run {
    /// Null for arrays without a gradient, whose sums are 0.
    data: *const u8,
    elements: usize,
    /// As stored, and as computed with.
    types: (Dtype, Dtype),
    blocks: Range<usize>,
}

/// The runs of all gradients, and where those of each task end.
#[derive(Debug, Default)]
pub(super) struct Runs {
    all: Vec<Run>,
    ends: Vec<usize>,
}

impl Runs {
    /// Memory for what `arrays` arrays in `tasks` tasks need at most.
    pub fn reserve(&mut self, arrays: usize, tasks: usize) -> Result<(), TryReserveError> {
        self.forget();
        self.all.try_reserve(arrays + tasks)?;
        self.ends.try_reserve(tasks)
    }

    /// Gradients have moved: they are found again when they are next needed.
    pub fn forget(&mut self) {
        self.ends.clear();
    }

    /// The runs of a task.
    fn of(&self, task: usize) -> &[Run] {
        let start = if task == 0 { 0 } else { self.ends[task - 1] };
        &self.all[start..self.ends[task]]
    }
}

impl WorkList {
    /// The sum of squares of all gradients as they are in memory, in float64, as the rule `clip_norm` needs it. Its order of
    /// additions depends on the lengths alone. It is infinite or NaN only if a gradient is.
    ///
    /// # Safety
    /// Every array's gradient must be valid and aligned for reading; the CPU must support the level.
    pub unsafe fn sum_of_squares(&mut self, level: Level, threads: usize) -> Squares {
        // SAFETY: upheld by the caller.
        let plain = Squares { sum: unsafe { self.squares(level, threads, 1.0) }, unit: 1.0 };
        match plain.better_unit() {
            // SAFETY: upheld by the caller.
            Some(unit) if self.items.iter().any(Item::sums_float64) => unsafe {
                Squares { sum: self.squares(level, threads, unit), unit }
            },
            _ => plain,
        }
    }

    /// The sum of squares of all gradients divided by `unit`.
    ///
    /// # Safety
    /// As for [`WorkList::sum_of_squares`].
    unsafe fn squares(&mut self, level: Level, threads: usize, unit: f64) -> f64 {
        self.reverse = !self.reverse;
        self.form_runs();
        let this = &*self;
        // SAFETY: no task runs.
        let sums = || unsafe { this.partials.slice(0, this.block_count) };
        if this.peers.is_some() {
            sums().fill(0.0);
        }
        pool::run(this.runs.ends.len(), this.reverse, this.own, threads, &|task| {
            // SAFETY: upheld by the caller; the entries are this task's own.
            fpenv::standard(|| this.runs.of(task).iter().for_each(|run| unsafe { this.sum_run(run, level, unit) }));
        });
        if let Some(peers) = &this.peers {
            (peers.combine)(sums());
        }
        // SAFETY: no task runs.
        fpenv::standard(|| unsafe { fold(Form::Square, &this.partials, 0..this.block_count, 0.0) })
    }

    /// # Safety
    /// As for [`WorkList::sum_of_squares`]; nobody else may access the entries of these blocks.
    unsafe fn sum_run(&self, run: &Run, level: Level, unit: f64) {
        let (types, lens) = (run.types, &self.block_lens[run.blocks.clone()]);
        // SAFETY: upheld by the caller.
        let sums = unsafe { self.partials.slice(run.blocks.start, lens.len()) };
        if run.data.is_null() {
            sums.fill(0.0);
        } else if unit == 1.0 {
            // SAFETY: upheld by the caller.
            unsafe { reduce::block_squares(level, types, sums.as_mut_ptr(), run.data, lens) };
        } else {
            let mut data = run.data;
            for (sum, &n) in sums.iter_mut().zip(lens) {
                let n = usize::from(n);
                // SAFETY: upheld by the caller.
                *sum = unsafe {
                    match types {
                        (Dtype::F64, Dtype::F64) => scaled_squares(level, data.cast(), n, 1.0 / unit),
                        _ => reduce::block(level, Form::Square, types, (data, data), n) / unit / unit,
                    }
                };
                data = data.wrapping_add(n * types.0.size());
            }
        }
    }

    /// Forms the runs, if gradients have moved: those of a task never go on in the next one.
    fn form_runs(&mut self) {
        if !self.runs.ends.is_empty() {
            return;
        }
        let mut runs = std::mem::take(&mut self.runs);
        runs.all.clear();
        for chunk in &self.block_chunks {
            let first = runs.all.len();
            chunk.each(&self.blocks, |i, units| {
                let (item, start) = (&self.items[i], units.start * BLOCK);
                let size = item.grad_type.size();
                let (data, elements) = match item.present {
                    true => (self.streams[item.streams + 1].wrapping_add(start * size), units.end * BLOCK),
                    false => (std::ptr::null_mut(), start),
                };
                let new = Run {
                    data: data.cast_const(),
                    elements: elements.min(item.len) - start,
                    types: (item.grad_type, item.param_type.compute()),
                    blocks: item.first_block + units.start..item.first_block + units.end,
                };
                match runs.all[first..].last_mut() {
                    Some(last)
                        if (last.types, last.blocks.end) == (new.types, new.blocks.start)
                            && last.data.wrapping_add(last.elements * size) == new.data =>
                    {
                        last.elements += new.elements;
                        last.blocks.end = new.blocks.end;
                    }
                    _ => runs.all.push(new),
                }
            });
            runs.ends.push(runs.all.len());
        }
        self.runs = runs;
    }
}

/// The sum of squares of a block of float64 numbers that are multiplied by `factor`, a power of two.
///
/// # Safety
/// As for [`reduce::block`].
unsafe fn scaled_squares(level: Level, data: *const f64, n: usize, factor: f64) -> f64 {
    with_tail_tiles(&mut |tiles| {
        let tile = tiles[0].pointer().cast::<f64>();
        // SAFETY: upheld by the caller; a tile holds a block.
        unsafe {
            (0..n).for_each(|i| tile.add(i).write(*data.add(i) * factor));
            let tile = tile.cast_const().cast();
            reduce::block(level, Form::Square, (Dtype::F64, Dtype::F64), (tile, tile), n)
        }
    })
}
