//! The driver: one work list over all arrays of a step, run serially or in one parallel region.
//!
//! Arrays are cut into chunks of about equal size, small ones are put together; the cut depends on their sizes alone,
//! so it is made once. Safety rests on the caller: see [`WorkList::run`].

use crate::kernel::{self, Streams};
use crate::level::Level;
use crate::norm::{self, BLOCK};
use crate::rule::{MAX_STATES, Rule, Scalars};
use crate::storage::{Dtype, convert};
use crate::{fpenv, pool};

/// Elements of a chunk: enough to outweigh claiming it, few enough to share work evenly. A multiple of [`BLOCK`].
const CHUNK: usize = 32_768;
/// Elements of a step from which a second thread pays, also when it has to be woken first.
const PARALLEL: usize = 131_072;
/// Elements that are converted or zeroed at a time: what stays in the first-level cache.
const TILE: usize = 1024;

/// One array of a step: its rule, its group, and where its numbers lie.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// What updates it.
    pub rule: &'static Rule,
    /// Which entry of the step's scalars is its own.
    pub group: usize,
    /// Elements.
    pub len: usize,
    /// The parameter's type; its state has the compute type of it.
    pub param_type: Dtype,
    /// The parameter.
    pub param: *mut u8,
    /// Its state, as many pointers as the rule has states.
    pub states: [*mut u8; MAX_STATES],
    /// The gradient's type.
    pub grad_type: Dtype,
    /// The gradient; written to only when a step zeroes it.
    pub grad: *mut u8,
}

/// A run of elements over neighbouring segments: from `(first, start)` up to `(last, end)`.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    first: usize,
    start: usize,
    last: usize,
    end: usize,
}

/// All arrays of an optimizer, and how a step over them is shared among threads.
#[derive(Debug, Default)]
pub struct WorkList {
    segments: Vec<Segment>,
    chunks: Vec<Chunk>,
    total: usize,
    /// For each segment, the index of its first block among all blocks.
    blocks: Vec<usize>,
    /// The sum of squares of each block.
    partials: Vec<f64>,
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
        self.chunks = cut(&self.segments, CHUNK);
        self.blocks.clear();
        let mut blocks = 0;
        for segment in &self.segments {
            self.blocks.push(blocks);
            blocks += segment.len.div_ceil(BLOCK);
        }
        self.partials = vec![0.0; blocks];
    }

    /// The arrays, in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The arrays, to set this step's gradients.
    pub fn segments_mut(&mut self) -> impl Iterator<Item = &mut Segment> {
        self.segments.iter_mut()
    }

    /// One array, to set this step's gradient.
    pub fn segment_mut(&mut self, i: usize) -> &mut Segment {
        &mut self.segments[i]
    }

    /// Elements of all arrays.
    pub fn total(&self) -> usize {
        self.total
    }

    /// All elements as one chunk.
    fn whole(&self) -> Chunk {
        let last = self.segments.len() - 1;
        Chunk { first: 0, start: 0, last, end: self.segments[last].len }
    }

    /// Updates every array, and zeroes the gradients behind itself when asked.
    ///
    /// # Safety
    /// Every segment's pointers must be valid and aligned for its length and types, for reading and writing (a gradient
    /// for reading, unless it is to be zeroed); what is written may overlap nothing else that the step touches; nobody
    /// else may write there meanwhile. The CPU must have the level. `scalars` must hold one entry a group.
    pub unsafe fn run(&self, level: Level, threads: usize, scalars: &[Scalars], zero_grads: bool) {
        let part = |_, segment: &Segment, start: usize, end: usize| {
            // SAFETY: `start..end` lies within the segment; the rest is the caller's promise.
            unsafe { update(segment, start, end, level, &scalars[segment.group], zero_grads) }
        };
        self.share(threads, &part);
    }

    /// The sum of squares of all gradients, in float64 and with a shape that depends on the lengths alone.
    ///
    /// # Safety
    /// Every segment's gradient must be valid and aligned for reading; the CPU must have the level.
    pub unsafe fn sum_of_squares(&mut self, level: Level, threads: usize) -> f64 {
        let out = Shared(self.partials.as_mut_ptr());
        let part = |index: usize, segment: &Segment, start: usize, end: usize| {
            for at in (start..end).step_by(BLOCK) {
                let n = BLOCK.min(end - at);
                // SAFETY: block `at / BLOCK` of this segment belongs to this chunk alone, since chunks are cut at
                // multiples of BLOCK; the gradient is the caller's promise.
                unsafe {
                    let data = segment.grad.add(at * segment.grad_type.size());
                    *out.get().add(self.blocks[index] + at / BLOCK) =
                        norm::sum_of_squares(level, segment.grad_type, segment.param_type.compute(), data, n);
                }
            }
        };
        self.share(threads, &part);
        self.partials.iter().sum()
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

    /// Runs `part` over all elements, in one parallel region or without any.
    fn share(&self, threads: usize, part: &(impl Fn(usize, &Segment, usize, usize) + Sync)) {
        if self.segments.is_empty() {
            return;
        }
        if self.total < PARALLEL || threads == 1 {
            fpenv::standard(|| self.each(&self.whole(), part));
        } else {
            pool::run(self.chunks.len(), threads, &|i| fpenv::standard(|| self.each(&self.chunks[i], part)));
        }
    }

    fn each(&self, chunk: &Chunk, part: &impl Fn(usize, &Segment, usize, usize)) {
        for i in chunk.first..=chunk.last {
            let segment = &self.segments[i];
            if i < chunk.last {
                fetch(&self.segments[i + 1]);
            }
            let start = if i == chunk.first { chunk.start } else { 0 };
            let end = if i == chunk.last { chunk.end } else { segment.len };
            part(i, segment, start, end);
        }
    }
}

/// Asks for the first cache lines of a segment while the one before it is worked on: the hardware's prefetchers start
/// anew with each array.
#[inline(always)]
fn fetch(segment: &Segment) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        for line in 0..4 {
            // SAFETY: a prefetch reads nothing and may name any address.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(segment.param.wrapping_add(64 * line).cast());
                _mm_prefetch::<_MM_HINT_T0>(segment.grad.wrapping_add(64 * line).cast());
                for state in &segment.states[..segment.rule.states.len()] {
                    _mm_prefetch::<_MM_HINT_T0>(state.wrapping_add(64 * line).cast());
                }
            }
        }
    }
}

/// A pointer that tasks share; each writes a place of its own.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);
// SAFETY: the tasks answer for writing to different places.
unsafe impl<T> Sync for Shared<T> {}
impl<T> Shared<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

/// Cuts segments into chunks of about `size` elements; inside a segment only at multiples of [`BLOCK`].
fn cut(segments: &[Segment], size: usize) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut open: Option<(usize, usize, usize)> = None; // first segment, start in it, elements so far
    for (i, segment) in segments.iter().enumerate() {
        let mut at = 0;
        loop {
            let (first, start, have) = open.unwrap_or((i, at, 0));
            let room = (size - have).next_multiple_of(BLOCK);
            if segment.len - at < room {
                open = Some((first, start, have + segment.len - at));
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

/// Updates elements `start..end` of one segment.
///
/// # Safety
/// As for [`WorkList::run`], for this range.
unsafe fn update(segment: &Segment, start: usize, end: usize, level: Level, scalars: &Scalars, zero_grads: bool) {
    let kernels = &segment.rule.kernels;
    let (param_size, grad_size) = (segment.param_type.size(), segment.grad_type.size());
    let compute = segment.param_type.compute();
    let streams = |at: usize| {
        let mut states = segment.states;
        for state in &mut states[..segment.rule.states.len()] {
            // SAFETY: `at` lies within the segment.
            *state = unsafe { state.add(at * compute.size()) };
        }
        // SAFETY: as above.
        unsafe { Streams { param: segment.param.add(at * param_size), grad: segment.grad.add(at * grad_size), states } }
    };
    let direct = kernel::find(kernels, level, segment.param_type, segment.grad_type);
    if let (Some(kernel), false) = (direct, zero_grads) {
        // SAFETY: the caller's promise.
        unsafe { kernel(&streams(start), end - start, scalars) };
        return;
    }
    let converting = kernel::find(kernels, level, segment.param_type, compute).expect("the compute type has a kernel");
    let mut tile = [0f64; TILE];
    for at in (start..end).step_by(TILE) {
        let n = TILE.min(end - at);
        let mut streams = streams(at);
        let grad = streams.grad.cast_mut();
        // SAFETY: the caller's promise, for `n` elements from `at`; the tile holds `TILE` elements of any type.
        unsafe {
            if let Some(kernel) = direct {
                kernel(&streams, n, scalars);
            } else {
                convert(segment.grad_type, grad, compute, tile.as_mut_ptr().cast(), n);
                streams.grad = tile.as_ptr().cast();
                converting(&streams, n, scalars);
            }
            if zero_grads {
                grad.write_bytes(0, n * grad_size);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                list.each(chunk, &|i, segment, start, end| {
                    assert_eq!(start % BLOCK, 0);
                    assert!(end == segment.len || end % BLOCK == 0);
                    elements.set(elements.get() + end - start);
                    seen.borrow_mut()[i][start..end].iter_mut().for_each(|n| *n += 1);
                });
                assert!(elements.get() < CHUNK + BLOCK);
            }
            assert!(seen.iter().flatten().all(|&n| n == 1), "{lengths:?}");
        }
    }
}
