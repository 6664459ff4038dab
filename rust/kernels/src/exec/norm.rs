//! The sum of squares of all gradients, for the global norm. Runs no rule.

use super::item::Item;
use super::reductions::fold;
use super::tiles::with_tail_tiles;
use super::work_list::WorkList;
use crate::cpu::Level;
use crate::numeric::reduce::{self, BLOCK, Form, Rows, Squares};
use crate::numeric::{Dtype, fpenv};

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
        let this = &*self;
        // SAFETY: no task runs.
        let sums = || unsafe { this.partials.slice(0, this.block_count) };
        if this.peers.is_some() {
            sums().fill(0.0);
        }
        this.share(threads, &this.block_chunks, &this.blocks, &|i, units| {
            let item = &this.items[i];
            if !item.present {
                // SAFETY: the entries are this task's own.
                units.for_each(|block| unsafe { this.partials.set(item.first_block + block, 0.0) });
                return;
            }
            let types = (item.grad_type, item.param_type.compute());
            let grad = |block: usize| {
                let offset = block * BLOCK * item.grad_type.size();
                this.streams[item.streams + 1].wrapping_add(offset).cast_const()
            };
            let length = |block: usize| BLOCK.min(item.len - block * BLOCK);
            let first = item.first_block + units.start;
            // SAFETY: the blocks lie within the array, whose gradient the caller guarantees; the entries are this task's own.
            unsafe {
                let sums = this.partials.slice(first, units.len());
                sums.fill(0.0);
                if unit == 1.0 {
                    // The last block may be shorter.
                    let last = units.end - 1;
                    let whole = Rows { count: last - units.start, cols: BLOCK, stride: BLOCK };
                    let rest = Rows::one(length(last));
                    reduce::rows(level, Form::Square, types, sums.as_mut_ptr(), grad(units.start), whole);
                    reduce::rows(level, Form::Square, types, &raw mut sums[whole.count], grad(last), rest);
                    return;
                }
                for (sum, block) in sums.iter_mut().zip(units) {
                    let (grad, n) = (grad(block), length(block));
                    *sum = match item.sums_float64() {
                        true => scaled_squares(level, grad.cast(), n, 1.0 / unit),
                        false => reduce::block(level, Form::Square, types, (grad, grad), n) / unit / unit,
                    };
                }
            }
        });
        if let Some(peers) = &this.peers {
            (peers.combine)(sums());
        }
        // SAFETY: no task runs.
        fpenv::standard(|| unsafe { fold(Form::Square, &this.partials, 0..this.block_count, 0.0) })
    }
}

/// The sum of squares of a block of float64 numbers that are multiplied by `factor`, a power of two.
///
/// # Safety
/// As for [`reduce::block`].
unsafe fn scaled_squares(level: Level, data: *const f64, n: usize, factor: f64) -> f64 {
    with_tail_tiles(|tiles| {
        let tile = tiles[0].pointer().cast::<f64>();
        // SAFETY: upheld by the caller; a tile holds a block.
        unsafe {
            (0..n).for_each(|i| tile.add(i).write(*data.add(i) * factor));
            let tile = tile.cast_const().cast();
            reduce::block(level, Form::Square, (Dtype::F64, Dtype::F64), (tile, tile), n)
        }
    })
}
