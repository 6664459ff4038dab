//! Row and column operands of a pass: where its kernel reads them. Starts no thread.

use std::ops::Range;

use super::item::Item;
use super::passes::Piece;
use super::tiles::{Call, MAX_TAIL, TILE};
use super::work_list::WorkList;
use crate::cpu::Level;
use crate::kernel::Tail;
use crate::numeric::{StateFormat, convert};
use crate::rule::{Operand, Pass};

/// Rows from this length on take a kernel call each; shorter ones share one, with operands in tiles.
const LONG: usize = 64;

impl Item {
    /// Whether a pass can run row by row: rows are long, and its operands lie in memory as their elements do. With int8 states it
    /// cannot, since their blocks cross rows.
    pub(super) fn has_long_rows(&self, pass: &Pass) -> bool {
        let long = self.matrix().filter(|matrix| matrix.cols >= LONG && self.format != StateFormat::Int8);
        long.is_some_and(|matrix| pass.operands.iter().all(|operand| !matrix.lies_in_rows(operand.scope)))
    }
}

impl WorkList {
    /// Runs a pass without reductions over some elements of long rows, whose operands are used where they are.
    ///
    /// # Safety
    /// As for [`WorkList::pass`].
    pub(super) unsafe fn by_rows(&self, i: usize, pass: &Pass, call: &Call<'_>, range: Range<usize>) {
        let (item, data) = (&self.items[i], self.streams_of(i));
        let matrix = item.matrix().expect("rules with operands have matrices");
        // Looked up once: a call for each row is short.
        let direct = item.direct(pass, call).filter(|_| call.bits.is_none());
        let longest = if direct.is_some() { matrix.cols } else { TILE };
        let mut streams = [std::ptr::null_mut::<u8>(); MAX_TAIL];
        let (mut at, mut row, mut col) = (range.start, range.start / matrix.cols, range.start % matrix.cols);
        while at < range.end {
            let n = (matrix.cols - col).min(range.end - at).min(longest);
            let of_matrix = if matrix.batch > 1 { row / matrix.rows * matrix.cols } else { 0 };
            let offset = (of_matrix + col) * item.param_type.compute().size();
            for (stream, operand) in streams.iter_mut().zip(pass.operands) {
                *stream = self.vector(i, operand.scope, operand.place).wrapping_add(offset);
            }
            let tail = Tail { streams: streams.as_ptr(), ..Tail::NONE };
            // SAFETY: upheld by the caller; the vectors have a number for each column in memory.
            unsafe {
                match direct {
                    Some(kernel) => kernel(data, at, n, call.scalars, &item.extras(call, at, tail)),
                    None => item.call(data, pass, call, (at, n), tail),
                }
            }
            (at, col) = (at + n, col + n);
            if col == matrix.cols {
                (row, col) = (row + 1, 0);
            }
        }
    }

    /// The stream of a row or column vector for a piece: the vector itself if its layout matches the elements, else a tile.
    ///
    /// # Safety
    /// The vector must be valid, and the tile for a piece.
    pub(super) unsafe fn operand(
        &self,
        i: usize,
        operand: &Operand,
        level: Level,
        piece: Piece,
        tile: *mut u8,
    ) -> *mut u8 {
        let matrix = self.items[i].matrix().expect("rules with operands have matrices");
        let compute = self.items[i].param_type.compute();
        let vector = self.vector(i, operand.scope, operand.place);
        let by_row = matrix.lies_in_rows(operand.scope);
        let (size, end) = (compute.size(), piece.at + piece.n);
        let mut at = piece.at;
        while at < end {
            let (row, col) = (at / matrix.cols, at % matrix.cols);
            let mut run = (matrix.cols - col).min(end - at);
            let one = col % matrix.interleaved;
            if by_row && matrix.interleaved > 1 {
                run = run.min(matrix.interleaved - one);
            }
            let into = tile.wrapping_add((at - piece.at) * size);
            // SAFETY: upheld by the caller; all indices are within the vector and the tile.
            unsafe {
                if !by_row {
                    let from = vector.add((row / matrix.rows * matrix.cols + col) * size);
                    if run == piece.n {
                        return from;
                    }
                    into.copy_from_nonoverlapping(from, run * size);
                } else if matrix.interleaved > 1 {
                    let from = vector.add((row * matrix.interleaved + one) * size);
                    into.copy_from_nonoverlapping(from, run * size);
                } else {
                    convert::fill(level, vector.add(row * size), (compute, into), run);
                }
            }
            at += run;
        }
        tile
    }
}
