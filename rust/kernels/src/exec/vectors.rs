//! Runs a stage over the rows or columns of an array. Starts no thread.

use super::plan::Numbered;
use super::reductions::{form, put, sums_at_once};
use super::tiles::{MAX_TAIL, TILE, with_tail_tiles};
use super::work_list::WorkList;
use crate::cpu::Level;
use crate::kernel::{Extras, Tail, find_vector};
use crate::numeric::Dtype;
use crate::numeric::reduce::{self, Rows, combine, neutral};
use crate::rule::{Reduction, Right, Scope};

impl WorkList {
    /// # Safety
    /// As for [`WorkList::finish_pass`].
    pub(super) unsafe fn vector_text(
        &self,
        i: usize,
        &Numbered { stage, number, .. }: &Numbered,
        (scope, kernel): (Scope, usize),
        level: Level,
    ) {
        let item = &self.items[i];
        let (compute, matrix) = (item.param_type.compute(), item.matrix().expect("rules with vectors have matrices"));
        let kernel = find_vector(item.compiled.vector_kernels[kernel], level, compute);
        let rule = item.compiled.rule;
        // SAFETY: upheld by the caller.
        let scalars = unsafe { self.scalars.slice(item.scalars, rule.scalars.len()) };
        let vectors = self.vectors_of(i, scope);
        // A run is one matrix; interleaved matrices share one run.
        let by_matrix = stage.reductions.iter().any(|reduction| reduction.scope == Scope::Matrix);
        let together = sums_at_once(stage, matrix);
        let length = if by_matrix { matrix.of_one(scope) * together } else { matrix.vector(scope) };
        // SAFETY: upheld by the caller; each reduction has as many entries as sums.
        let sums_of = |k: usize| unsafe { self.partials.slice(item.partials[number] + k * together, together) };
        let mut of_array = [0.0; MAX_TAIL];
        for (result, reduction) in of_array.iter_mut().zip(stage.reductions) {
            *result = neutral(form(reduction));
        }
        with_tail_tiles(&mut |tiles| {
            let mut tail = [std::ptr::null_mut::<u8>(); MAX_TAIL];
            for (pointer, tile) in tail.iter_mut().zip(tiles) {
                *pointer = tile.pointer();
            }
            let extras = Extras { tail: Tail { streams: tail.as_ptr(), ..Tail::NONE }, ..Extras::NONE };
            for start in (0..matrix.vector(scope)).step_by(length.max(1)) {
                for (k, reduction) in stage.reductions.iter().enumerate() {
                    sums_of(k).fill(neutral(form(reduction)));
                }
                for at in (0..length).step_by(TILE) {
                    let n = TILE.min(length - at);
                    // SAFETY: upheld by the caller; the tiles hold a piece.
                    unsafe { kernel(vectors, start + at, n, scalars, &extras) };
                    for (k, reduction) in stage.reductions.iter().enumerate() {
                        // SAFETY: as above.
                        unsafe { add_terms(sums_of(k), reduction, &tail, level, compute, (at, n)) };
                    }
                }
                for (k, reduction) in stage.reductions.iter().enumerate() {
                    if reduction.scope == Scope::Matrix {
                        let vector = self.vector(i, scope, reduction.place);
                        for place in 0..length {
                            let x = reduction.divided(sums_of(k)[place % together], matrix.of_one(scope));
                            // SAFETY: upheld by the caller; the run's indices are within the vector.
                            unsafe { put(compute, vector, start + place, x) };
                        }
                    } else {
                        let form = form(reduction);
                        of_array[k] = sums_of(k).iter().fold(of_array[k], |sum, &x| combine(form, sum, x));
                    }
                }
            }
        });
        for (k, reduction) in stage.reductions.iter().enumerate().filter(|(_, r)| r.scope == Scope::Array) {
            scalars[reduction.place] = reduction.divided(of_array[k], matrix.vector(scope));
        }
    }
}

/// Adds the terms of `n` vector elements from `at` to the sums of their matrices, which may be interleaved.
///
/// # Safety
/// The tiles must hold the terms, and the CPU must support the level.
unsafe fn add_terms(
    sums: &mut [f64],
    reduction: &Reduction,
    tail: &[*mut u8; MAX_TAIL],
    level: Level,
    compute: Dtype,
    (at, n): (usize, usize),
) {
    let form = form(reduction);
    let left = tail[reduction.left.tile];
    let right = match &reduction.right {
        Right::Factor(factor) => tail[factor.tile],
        _ => left,
    };
    let pair = |done: usize| {
        let offset = done * compute.size();
        (left.wrapping_add(offset).cast_const(), right.wrapping_add(offset).cast_const())
    };
    // SAFETY: upheld by the caller.
    unsafe {
        if let [sum] = sums {
            *sum = combine(form, *sum, reduce::block(level, form, (compute, compute), pair(0), n));
            return;
        }
        let mut done = 0;
        while done < n {
            let one = (at + done) % sums.len();
            let run = (sums.len() - one).min(n - done);
            reduce::columns(level, form, compute, sums[one..].as_mut_ptr(), pair(done), Rows::one(run));
            done += run;
        }
    }
}
