//! The driver: one work list over all arrays of a step, run serially or in one parallel region.
//!
//! Arrays are cut into chunks of about equal size, small ones are put together; the cut depends on their sizes alone,
//! so it is made once. Safety rests on the caller: see [`WorkList::run`].

use std::sync::atomic::{AtomicBool, Ordering};

use crate::level::Level;
use crate::norm::{self, BLOCK};
use crate::numbers::{Means, Numbers};
use crate::rows::Rows;
use crate::rule::{Layer, PROLOGUE_SCALARS, Scalars};
use crate::segment::{After, How, Segment};
use crate::small::{Aside, Noise};
use crate::{fpenv, pool};

/// Elements of a chunk: enough to outweigh claiming it, few enough to share work evenly. A multiple of [`BLOCK`].
const CHUNK: usize = 16_384;
/// Elements of a chunk where there are few, and where there are millions: memory likes long runs.
const SMALL: usize = 4_096;
const LARGE: usize = 65_536;
/// The longest layerwise array that one task takes through both phases: the second finds it in that CPU's cache.
const WHOLE: usize = 32_768;
/// Bytes of a step from which it asks for memory ahead. Measured with 32 MiB of shared cache: a gain from twice those on, a
/// loss below.
const FAR: usize = 128 << 20;

/// A run of elements over neighbouring segments: from `(first, start)` up to `(last, end)`.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    first: usize,
    start: usize,
    last: usize,
    end: usize,
}

/// How a step is run.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The CPU level, which this machine must have.
    pub level: Level,
    /// Threads, the caller included.
    pub threads: usize,
    /// The scalars of each group.
    pub scalars: &'a [Scalars],
    /// What happens to gradients once they have been used.
    pub after: After,
    /// How states that are kept in less memory are rounded.
    pub noise: &'a Noise,
}

/// All arrays of an optimizer, and how a step over them is shared among threads.
#[derive(Debug, Default)]
pub struct WorkList {
    segments: Vec<Segment>,
    chunks: Vec<Chunk>,
    total: usize,
    /// Whether a step goes through more bytes than caches hold.
    far: bool,
    /// Which way the next look at all arrays goes.
    outwards: AtomicBool,
    /// For each segment, the index of its first block among all blocks.
    blocks: Vec<usize>,
    /// For each block, sums of squares: of gradients or parameters, and of directions.
    partials: [Numbers; 2],
    /// For each layerwise segment that was measured in parts, its ratio.
    ratios: Numbers,
    /// For each segment, the index of its first row among all rows that are centered; and the means of all.
    rows: Vec<usize>,
    means: Numbers,
}

// SAFETY: the pointers are only followed inside `run` and `sum_of_squares`, whose callers answer for them.
unsafe impl Send for WorkList {}
// SAFETY: as above.
unsafe impl Sync for WorkList {}

impl WorkList {
    /// Adds arrays behind those already there.
    pub fn extend(&mut self, segments: impl IntoIterator<Item = Segment>) {
        self.segments.extend(segments);
        self.total = self.segments.iter().map(|s| s.len).sum();
        self.far = self.segments.iter().map(Segment::bytes).sum::<usize>() >= FAR;
        self.chunks = cut(
            &self.segments,
            (self.total / 16).clamp(SMALL, CHUNK).max(self.total / 64).min(LARGE).next_multiple_of(BLOCK),
        );
        let (mut blocks, mut rows) = (0, 0);
        self.blocks.clear();
        self.rows.clear();
        for segment in &self.segments {
            self.blocks.push(blocks);
            self.rows.push(rows);
            blocks += segment.len.div_ceil(BLOCK);
            rows += segment.center.map_or(0, |center| center.count);
        }
        self.partials.iter_mut().for_each(|partials| partials.resize(blocks));
        self.ratios.resize(self.segments.len());
        self.means.resize(rows);
    }

    /// The arrays, in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Sets an array's gradient for the next step.
    pub fn set_gradient(&mut self, i: usize, grad: *mut u8, grad_type: crate::Dtype) {
        (self.segments[i].grad, self.segments[i].grad_type) = (grad, grad_type);
    }

    /// Sets what becomes of an array's copy aside, from the next step on.
    pub fn set_aside(&mut self, i: usize, aside: Option<Aside>) {
        self.segments[i].form.aside = aside;
    }

    /// Elements of all arrays.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Updates every array.
    ///
    /// # Safety
    /// Every segment's pointers must be valid and aligned for its length and types, for reading and, where the rule or
    /// `after` writes, for writing; what is written may overlap nothing else that the step touches; nobody else may write
    /// there meanwhile. The CPU must have the level. There must be scalars for every group.
    pub unsafe fn run(&self, step: &Step<'_>) {
        // SAFETY: the caller's promise, in all three phases.
        fpenv::standard(|| unsafe {
            if !self.means.is_empty() {
                self.find_means(step);
            }
            self.share(step.threads, &|i, (start, end)| self.first_phase(step, i, (start, end)));
            let mut split = false;
            for (i, segment) in self.segments.iter().enumerate() {
                if let (Some(layer), true) = (&segment.rule.layer, segment.len > WHOLE) {
                    self.ratios.set(i, self.ratio(i, layer, &step.scalars[segment.group]));
                    split = true;
                }
            }
            if split {
                self.share(step.threads, &|i, (start, end)| self.second_phase(step, i, (start, end)));
            }
        });
    }

    /// Updates a part of an elementwise segment, or a layerwise one that is whole; else measures.
    ///
    /// # Safety
    /// As for [`WorkList::run`].
    unsafe fn first_phase(&self, step: &Step<'_>, i: usize, (start, end): (usize, usize)) {
        let (segment, scalars) = (&self.segments[i], &step.scalars[self.segments[i].group]);
        let how = self.how(step, i, scalars);
        let Some(layer) = &segment.rule.layer else {
            // SAFETY: the caller's promise; the range lies within the segment.
            unsafe { segment.update((start, end), &how) };
            return;
        };
        let [of_param, of_direction] = &self.partials;
        for at in (start..end).step_by(BLOCK) {
            // SAFETY: as above.
            let (p, d) = unsafe { segment.measure(layer, at, step.level, scalars, how.bits) };
            of_param.set(self.blocks[i] + at / BLOCK, p);
            of_direction.set(self.blocks[i] + at / BLOCK, d);
        }
        if segment.len <= WHOLE {
            let mut scalars = *scalars;
            scalars[PROLOGUE_SCALARS] = self.ratio(i, layer, &scalars);
            // SAFETY: as above.
            unsafe { segment.update((start, end), &How { scalars: &scalars, ..how }) };
        }
    }

    /// Updates a part of a layerwise segment that was measured in parts.
    ///
    /// # Safety
    /// As for [`WorkList::run`].
    unsafe fn second_phase(&self, step: &Step<'_>, i: usize, range: (usize, usize)) {
        let segment = &self.segments[i];
        if segment.rule.layer.is_some() && segment.len > WHOLE {
            let mut scalars = step.scalars[segment.group];
            scalars[PROLOGUE_SCALARS] = self.ratios.get(i);
            // SAFETY: the caller's promise; the range lies within the segment.
            unsafe { segment.update(range, &self.how(step, i, &scalars)) };
        }
    }

    /// The ratio of a segment that has been measured.
    fn ratio(&self, i: usize, layer: &Layer, scalars: &Scalars) -> f64 {
        let blocks = self.blocks[i]..self.blocks[i] + self.segments[i].len.div_ceil(BLOCK);
        let [of_param, of_direction] = self.partials.each_ref().map(|partials| partials.sum(blocks.clone()).sqrt());
        (layer.ratio)(scalars, of_param, of_direction)
    }

    /// How a segment is updated, with these scalars.
    fn how<'a>(&'a self, step: &Step<'a>, i: usize, scalars: &'a Scalars) -> How<'a> {
        let means = Means { all: &self.means, first: self.rows[i] };
        // What converts states as well computes for longer than memory takes, and would lose by asking.
        let far = self.far && !self.segments[i].is_small();
        How { level: step.level, scalars, means, after: step.after, bits: step.noise.of(i), far }
    }

    /// Finds the means of all rows that are centered.
    ///
    /// # Safety
    /// As for [`WorkList::run`].
    unsafe fn find_means(&self, step: &Step<'_>) {
        let mut pieces: Vec<(usize, Rows, std::ops::Range<usize>)> = Vec::new();
        let mut centered = 0;
        for (i, segment) in self.segments.iter().enumerate() {
            let Some(rows) = segment.center else { continue };
            centered += segment.len;
            let at_once = (CHUNK * rows.count / segment.len.max(1)).max(1);
            let starts = (0..rows.count).step_by(at_once);
            pieces.extend(starts.map(|row| (i, rows, row..rows.count.min(row + at_once))));
        }
        pool::run(pieces.len(), self.turn(), centered, step.threads, &|k| {
            let (i, rows, range) = &pieces[k];
            let segment = &self.segments[*i];
            let factor = step.scalars[segment.group][0].abs();
            fpenv::standard(|| {
                for row in range.clone() {
                    // SAFETY: the caller's promise; the row is one of the segment's.
                    self.means.set(self.rows[*i] + row, unsafe { segment.row_mean(*rows, row, factor, step.level) });
                }
            });
        });
    }

    /// The sum of squares of all gradients, in float64 and with a shape that depends on the lengths alone.
    ///
    /// # Safety
    /// Every segment's gradient must be valid and aligned for reading; the CPU must have the level.
    pub unsafe fn sum_of_squares(&self, level: Level, threads: usize) -> f64 {
        let partials = &self.partials[0];
        self.share(threads, &|i, (start, end)| {
            let segment = &self.segments[i];
            for at in (start..end).step_by(BLOCK) {
                let n = BLOCK.min(end - at);
                let (from, compute) = (segment.grad_type, segment.param_type.compute());
                // SAFETY: the block lies within the segment, whose gradient is the caller's promise.
                let sum = unsafe { norm::sum_of_squares(level, from, compute, segment.grad.add(at * from.size()), n) };
                partials.set(self.blocks[i] + at / BLOCK, sum);
            }
        });
        fpenv::standard(|| partials.sum(0..partials.len()))
    }

    /// Zeroes all gradients, for a step that is not taken.
    ///
    /// # Safety
    /// Every segment's gradient must be valid for writing, and nobody else may read or write there meanwhile.
    pub unsafe fn zero_grads(&self) {
        for segment in &self.segments {
            // SAFETY: the caller's promise.
            unsafe { segment.grad.write_bytes(0, segment.len * segment.grad_type.size()) };
        }
    }

    /// The first gradient that holds a NaN or an infinity, and where: array and flat index.
    ///
    /// # Safety
    /// Every segment's gradient must be valid and aligned for reading.
    pub unsafe fn first_nonfinite(&self) -> Option<(usize, usize)> {
        self.segments.iter().enumerate().find_map(|(i, s)| {
            // SAFETY: the caller's promise.
            unsafe { norm::first_nonfinite(s.grad_type, s.param_type.compute(), s.grad, s.len) }.map(|at| (i, at))
        })
    }

    /// Runs `part` over all elements, given as a segment's number and a range, in one parallel region or without any.
    fn share(&self, threads: usize, part: &(impl Fn(usize, (usize, usize)) + Sync)) {
        let task = |i: usize| fpenv::standard(|| self.each(&self.chunks[i], part));
        pool::run(self.chunks.len(), self.turn(), self.total, threads, &task);
    }

    /// The way of the next look at all arrays, from both ends or outwards: each begins where the one before has ended, in
    /// this step or the last, and finds in the caches what was touched last.
    fn turn(&self) -> bool {
        self.outwards.fetch_xor(true, Ordering::Relaxed)
    }

    fn each(&self, chunk: &Chunk, part: &impl Fn(usize, (usize, usize))) {
        for i in chunk.first..=chunk.last {
            let start = if i == chunk.first { chunk.start } else { 0 };
            let end = if i == chunk.last { chunk.end } else { self.segments[i].len };
            part(i, (start, end));
        }
    }
}

/// Cuts segments into chunks of about `size` elements; inside a segment only at multiples of [`BLOCK`], and never inside a
/// layerwise one that a single task can take through both phases.
fn cut(segments: &[Segment], size: usize) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut open: Option<(usize, usize, usize)> = None; // first segment, start in it, elements so far
    for (i, segment) in segments.iter().enumerate() {
        let whole = segment.rule.layer.is_some() && segment.len <= WHOLE;
        let mut at = 0;
        loop {
            let (first, start, have) = open.unwrap_or((i, at, 0));
            let room = if whole { segment.len.max(size - have) } else { (size - have).next_multiple_of(BLOCK) };
            if segment.len - at < room {
                let have = have + segment.len - at;
                if have < size {
                    open = Some((first, start, have));
                } else {
                    chunks.push(Chunk { first, start, last: i, end: segment.len });
                    open = None;
                }
                break;
            }
            at += room;
            chunks.push(Chunk { first, start, last: i, end: at });
            open = None;
            if at == segment.len {
                break;
            }
        }
    }
    if let Some((first, start, _)) = open {
        let last = segments.len() - 1;
        chunks.push(Chunk { first, start, last, end: segments[last].len });
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::MAX_STATES;
    use crate::{Dtype, Form};

    fn segments(lengths: &[usize]) -> Vec<Segment> {
        let null = std::ptr::null_mut();
        lengths
            .iter()
            .map(|&len| Segment {
                rule: crate::rules::sgd::sgd(),
                group: 0,
                len,
                param_type: Dtype::F32,
                param: null,
                states: [null; MAX_STATES],
                grad_type: Dtype::F32,
                grad: null,
                center: None,
                form: Form::default(),
            })
            .collect()
    }

    #[test]
    fn chunks_cover_every_element_once_and_cut_at_blocks() {
        let cases: &[&[usize]] = &[
            &[],
            &[0],
            &[1],
            &[CHUNK],
            &[CHUNK, CHUNK],
            &[CHUNK - 1, 2, CHUNK + 1, 0, 0],
            &[0, 0, 5, 3 * CHUNK + 17, 0, 9, BLOCK, 100_003],
            &[1000; 300],
        ];
        for lengths in cases {
            let segments = segments(lengths);
            let mut seen: Vec<Vec<u32>> = lengths.iter().map(|&n| vec![0; n]).collect();
            let list = WorkList { chunks: cut(&segments, CHUNK), segments, ..WorkList::default() };
            for chunk in &list.chunks {
                let elements = std::cell::Cell::new(0);
                let seen = std::cell::RefCell::new(&mut seen);
                list.each(chunk, &|i, (start, end)| {
                    assert_eq!(start % BLOCK, 0);
                    assert!(end == list.segments[i].len || end % BLOCK == 0);
                    elements.set(elements.get() + end - start);
                    seen.borrow_mut()[i][start..end].iter_mut().for_each(|n| *n += 1);
                });
                assert!(elements.get() < CHUNK + BLOCK);
            }
            assert!(seen.iter().flatten().all(|&n| n == 1), "{lengths:?}");
        }
    }
}
