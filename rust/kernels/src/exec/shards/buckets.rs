//! How the elements of all arrays are divided into messages: buckets, and the segments in them, which tasks copy. Touches no
//! array.

use std::collections::TryReserveError;

use super::padded_length;
use crate::exec::partition::{Chunk, Extent, cut};
use crate::memory::try_collect;
use crate::numeric::Dtype;
use crate::numeric::reduce::BLOCK;

/// The most elements of a segment, which one task copies or adds.
const SEGMENT: usize = 65_536;

/// A contiguous part of an array in a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// The process that updates them.
    pub(super) rank: usize,
    pub(super) array: usize,
    pub(super) start: usize,
    pub(super) len: usize,
    /// Its offset in the bytes of its process: in a message of gradients, and in one of parameters.
    pub(super) at: [usize; 2],
}

/// The segments of one exchange.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Sorted by process.
    pub(super) segments: Vec<Segment>,
    /// The index of each process's first segment, and at last the number of all.
    firsts: Vec<usize>,
    /// Bytes of each process in a message of gradients and in one of parameters, and of the processes before it.
    pub(super) bytes: Vec<[usize; 2]>,
    pub(super) before: Vec<[usize; 2]>,
    /// The units of this process's segments, and how a step over them is divided into tasks.
    pub(super) extents: Vec<Extent>,
    pub(super) chunks: Vec<Chunk>,
}

impl Bucket {
    fn new(ranks: usize) -> Result<Bucket, TryReserveError> {
        let zeros = || try_collect((0..ranks).map(|_| [0; 2]));
        let firsts = try_collect((0..=ranks).map(|_| 0))?;
        let (segments, extents, chunks) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Bucket { segments, firsts, bytes: zeros()?, before: zeros()?, extents, chunks })
    }

    /// Appends a segment; segments come in the order of their processes.
    fn push(&mut self, one: Segment, dtype: Dtype) -> Result<(), TryReserveError> {
        self.segments.try_reserve(1)?;
        self.segments.push(one);
        self.firsts[one.rank + 1..].fill(self.segments.len());
        self.bytes[one.rank] = [0, 1].map(|kind| one.at[kind] + padded_length(one.len * size(dtype, kind)));
        Ok(())
    }

    /// The indices of this process's segments.
    pub(super) fn own(&self, rank: usize) -> std::ops::Range<usize> {
        self.firsts[rank]..self.firsts[rank + 1]
    }

    /// Completes it for process `rank`, once it has all segments.
    fn finish(&mut self, rank: usize, cuts: &[Vec<usize>]) -> Result<(), TryReserveError> {
        for place in 1..self.bytes.len() {
            self.before[place] = [0, 1].map(|kind| self.before[place - 1][kind] + self.bytes[place - 1][kind]);
        }
        let lens = cuts.iter().map(|cuts| cuts.last().copied().unwrap_or(0));
        self.extents = try_collect(lens.map(|len| Extent { units: 0, ..Extent::blocks(len) }))?;
        let mut elements = 0;
        for one in &self.segments[self.own(rank)] {
            let extent = &mut self.extents[one.array];
            if extent.units == 0 {
                extent.first = one.start / BLOCK;
            }
            extent.units += one.len.div_ceil(BLOCK);
            elements += one.len;
        }
        self.chunks = cut(&self.extents, elements)?;
        Ok(())
    }
}

/// Divides the arrays of processes, which are cut at these elements, into buckets of about `elements`; for process `rank`.
pub(super) fn divide(
    rank: usize,
    types: &[Dtype],
    cuts: &[Vec<usize>],
    elements: usize,
) -> Result<Vec<Bucket>, TryReserveError> {
    let ranks = cuts.first().map_or(1, |cuts| cuts.len() - 1);
    let share = (elements / ranks).max(1).next_multiple_of(BLOCK);
    let mut buckets: Vec<Bucket> = Vec::new();
    for owner in 0..ranks {
        segments(owner, types, cuts, share, |number, one| {
            if number == buckets.len() {
                buckets.try_reserve(1)?;
                buckets.push(Bucket::new(ranks)?);
            }
            buckets[number].push(one, types[one.array])
        })?;
    }
    buckets.iter_mut().try_for_each(|bucket| bucket.finish(rank, cuts))?;
    Ok(buckets)
}

/// Bytes of an element in a message of gradients (0) or of parameters (1).
fn size(dtype: Dtype, kind: usize) -> usize {
    if kind == 0 { dtype.compute().size() } else { dtype.size() }
}

/// Calls `push` with each segment of a process and the number of its bucket; a bucket has at most `share` elements.
fn segments(
    rank: usize,
    types: &[Dtype],
    cuts: &[Vec<usize>],
    share: usize,
    mut push: impl FnMut(usize, Segment) -> Result<(), TryReserveError>,
) -> Result<(), TryReserveError> {
    let (mut bucket, mut room, mut at) = (0, share, [0; 2]);
    for (array, (&dtype, cuts)) in types.iter().zip(cuts).enumerate() {
        let (mut start, end) = (cuts[rank], cuts[rank + 1]);
        while start < end {
            if room == 0 {
                (bucket, room, at) = (bucket + 1, share, [0; 2]);
            }
            let len = (end - start).min(SEGMENT).min(room);
            push(bucket, Segment { rank, array, start, len, at })?;
            at = [0, 1].map(|kind| at[kind] + padded_length(len * size(dtype, kind)));
            start += len;
            // Whole blocks, so that the next segment begins with one.
            room = room.saturating_sub(len.next_multiple_of(BLOCK));
        }
    }
    Ok(())
}
