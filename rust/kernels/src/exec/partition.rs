//! Splits a step into tasks: chunks of about equal size over all arrays. The split depends on the sizes alone; knows no rule
//! and no thread.

use std::collections::TryReserveError;

use crate::numeric::reduce::BLOCK;

/// Elements of a chunk: enough to outweigh the cost of claiming it, few enough to balance the load.
const CHUNK: usize = 16_384;
/// Elements of a chunk for small totals, and for millions of elements, where long contiguous runs use memory bandwidth better.
const FEW: usize = 4_096;
const MANY: usize = 65_536;

/// A range of units over neighbouring arrays: from `(first, start)` up to `(last, end)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    pub first: usize,
    pub start: usize,
    pub last: usize,
    pub end: usize,
}

/// The sizes of an array that the split depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Elements of a unit, which is never split.
    pub unit: usize,
    /// The first unit that this process updates, and the number of units from there.
    pub first: usize,
    pub units: usize,
    /// Whether the whole array is one task.
    pub whole: bool,
}

impl Extent {
    /// An array of `len` elements, in blocks.
    pub fn blocks(len: usize) -> Extent {
        Extent { unit: BLOCK.min(len.max(1)), first: 0, units: len.div_ceil(BLOCK), whole: false }
    }
}

/// Splits arrays into chunks.
pub(crate) fn cut(extents: &[Extent], total: usize) -> Result<Vec<Chunk>, TryReserveError> {
    let size = (total / 16).clamp(FEW, CHUNK).max(total / 64).min(MANY).next_multiple_of(BLOCK);
    cut_to(extents, size)
}

/// Splits arrays into chunks of about `size` elements.
fn cut_to(extents: &[Extent], size: usize) -> Result<Vec<Chunk>, TryReserveError> {
    let mut chunks = Vec::new();
    let mut open: Option<(usize, usize, usize)> = None; // first array, unit in it, elements so far
    for (i, extent) in extents.iter().enumerate() {
        let mut at = 0;
        loop {
            chunks.try_reserve(2)?; // this one, and the last one
            let (first, start, have) = open.unwrap_or((i, at, 0));
            let room = if extent.whole { extent.units } else { (size - have).div_ceil(extent.unit) };
            if extent.units - at < room || extent.units == at {
                let have = have + (extent.units - at) * extent.unit;
                if have < size {
                    open = Some((first, start, have));
                } else {
                    chunks.push(Chunk { first, start, last: i, end: extent.units });
                    open = None;
                }
                break;
            }
            at += room;
            let have = have + room * extent.unit;
            if at == extent.units && have < size {
                open = Some((first, start, have));
                break;
            }
            chunks.push(Chunk { first, start, last: i, end: at });
            open = None;
            if at == extent.units {
                break;
            }
        }
    }
    if let Some((first, start, _)) = open {
        let last = extents.len() - 1;
        chunks.push(Chunk { first, start, last, end: extents[last].units });
    }
    Ok(chunks)
}

impl Chunk {
    /// Calls `f` with each array that has units in the chunk, and its range of units.
    pub fn each(&self, extents: &[Extent], mut f: impl FnMut(usize, std::ops::Range<usize>)) {
        for (i, extent) in extents.iter().enumerate().take(self.last + 1).skip(self.first) {
            let start = if i == self.first { self.start } else { 0 };
            let end = if i == self.last { self.end } else { extent.units };
            if start < end {
                f(i, extent.first + start..extent.first + end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_every_unit_once() {
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
            for whole in [false, true] {
                let extents: Vec<Extent> = lengths.iter().map(|&n| Extent { whole, ..Extent::blocks(n) }).collect();
                let mut seen: Vec<Vec<u32>> = extents.iter().map(|extent| vec![0; extent.units]).collect();
                for chunk in cut_to(&extents, CHUNK).unwrap() {
                    let mut elements = 0;
                    chunk.each(&extents, |i, units| {
                        assert!(!whole || units.len() == extents[i].units);
                        elements += units.len() * extents[i].unit;
                        seen[i][units].iter_mut().for_each(|n| *n += 1);
                    });
                    assert!(whole || elements < CHUNK + BLOCK);
                }
                assert!(seen.iter().flatten().all(|&n| n == 1), "{lengths:?}");
            }
        }
    }
}
