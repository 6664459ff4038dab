//! Runs a pass over some units of an array: calls its kernel with the streams that it needs. Starts no thread.

use std::ops::Range;

use super::from_memory::{col_place, in_memory, sums_whole_rows};
use super::item::Item;
use super::matrix::Cells;
use super::plan::Numbered;
use super::reductions::{Layout, by_cells, form, layout};
use super::tiles::{Call, MAX_TAIL, TILE, Tile, with_kept_term, with_tail_tiles};
use super::work_list::WorkList;
use crate::cpu::Level;
use crate::kernel::{Kernel, Tail};
use crate::numeric::reduce::{BLOCK, combine};
use crate::numeric::{StateFormat, convert};
use crate::rule::{DECAY, Factor, Kind, L2, Operand, Pass, Right, Scope, Stage};

/// Rows from this length on take a kernel call each; shorter ones share one, with operands in tiles.
const LONG: usize = 64;
/// Rows that a pass of several sums adds up at a time.
const SUMMED: usize = 4;

impl Item {
    /// Whether a pass can run row by row: rows are long, and its operands lie in memory as their elements do. With int8 states it
    /// cannot, since their blocks cross rows.
    fn has_long_rows(&self, pass: &Pass) -> bool {
        let long = self.matrix().filter(|matrix| matrix.cols >= LONG && self.format != StateFormat::Int8);
        long.is_some_and(|matrix| pass.operands.iter().all(|operand| !matrix.lies_in_rows(operand.scope)))
    }
}

/// Some elements of an array. In a cell they are part of a row, several whole short rows or, where a pass does nothing but add up,
/// some rows of the cell.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub at: usize,
    /// Neighbouring elements; 0 for rows of a cell, which others may separate.
    pub n: usize,
    /// The first row, counted over the batch, and the number of rows.
    pub row: usize,
    pub rows: usize,
    /// The first column, and the number of elements of each row.
    pub col: usize,
    pub cols: usize,
}

/// A pass over an array.
pub(super) struct Run<'a> {
    pub i: usize,
    pub item: &'a Item,
    pub stage: &'a Stage,
    pass: &'a Pass,
    pub call: &'a Call<'a>,
    /// Whether gradients are scaled, so that reductions need the kernel's scaled values.
    pub scaled: bool,
    /// Whether the kernel has anything to compute.
    computes: bool,
    /// The first partial result of each reduction.
    pub places: [usize; MAX_TAIL],
    /// The tiles for operands and terms: [`MAX_TAIL`].
    tiles: *mut Tile,
    /// The buffer for a term that a later pass reuses, and the term's index.
    kept: *mut u8,
    recalled: Option<usize>,
    /// The kernel for elements of one row, which adds up all reductions.
    of_row: Option<Kernel>,
}

impl Run<'_> {
    /// Whether the kernel reads the term that an earlier pass kept.
    fn recalls(&self) -> bool {
        self.pass.recalls.is_some() && !self.kept.is_null()
    }

    /// Whether the pass does nothing but add up numbers in memory, many rows at a time. Short rows that share a tile have a sum
    /// over the tile.
    fn only_sums(&self, cells: &Cells) -> bool {
        let Item { param_type, grad_type, .. } = *self.item;
        // Only sums of rows take numbers of any type.
        let in_place = (param_type, grad_type) == (param_type.compute(), param_type.compute());
        !self.computes
            && cells.matrix.interleaved == 1
            && (self.stage.reductions.len() == 1 || cells.rows_at_once() == 1)
            && self
                .stage
                .reductions
                .iter()
                .all(|one| sums_whole_rows(form(one)) && (in_place || layout(one, Some(cells.matrix)) == Layout::Rows))
    }

    /// The tile of this index, for an operand or a term.
    pub fn tile(&self, k: usize) -> *mut u8 {
        self.tiles.wrapping_add(k).cast()
    }

    /// Where the kept term of an element is.
    fn term(&self, at: usize) -> *mut u8 {
        self.kept.wrapping_add(at * self.item.param_type.compute().size())
    }

    /// Whether one call of the kernel can process many blocks: no tile, which holds one block, is in use.
    fn is_one_call(&self) -> bool {
        let terms = if self.kept.is_null() { 0 } else { usize::from(self.recalled.is_some()) };
        self.pass.operands.is_empty()
            && self.pass.tiles == terms
            && self.stage.reductions.iter().all(|reduction| reduction.fused)
            && self.item.direct(self.pass, self.call).is_some()
    }
}

impl WorkList {
    /// Runs a pass over some units of an array, or over all of a `whole` one. A term that a later pass recalls is kept where
    /// that pass finds it in a cache.
    ///
    /// # Safety
    /// As for [`WorkList::run`]; nobody else may run a pass over these units at the same time.
    pub(super) unsafe fn pass(&self, i: usize, numbered: Numbered, call: &Call<'_>, units: Range<usize>, whole: bool) {
        let (item, stage) = (&self.items[i], numbered.stage);
        let Kind::Pass(pass) = &stage.kind else { unreachable!("the stage is a pass") };
        // What is computed again is another number than before where states are quantized, or where the parameter decays first.
        let keeps =
            (whole || !self.terms.is_empty()) && item.format == StateFormat::Compute && call.scalars[DECAY] == 1.0;
        let recalls = keeps && pass.recalls.is_some();
        if stage.reductions.is_empty() && pass.operands.is_empty() && !recalls {
            let (start, end) = (units.start * BLOCK, item.len.min(units.end * BLOCK));
            if start < end {
                // SAFETY: upheld by the caller.
                unsafe { item.call(self.streams_of(i), pass, call, (start, end - start), Tail::NONE) };
            }
            return;
        }
        if stage.reductions.is_empty() && !recalls && item.has_long_rows(pass) {
            // SAFETY: upheld by the caller.
            return unsafe { self.by_rows(i, pass, call, units.start * BLOCK..item.len.min(units.end * BLOCK)) };
        }
        let scaled = call.scalars[0] != 1.0 || call.scalars[L2] != 0.0;
        // Gradients that the pass sets to zero are no longer in memory when they are reduced.
        let wanted = |factor: &Factor| !in_memory(factor, scaled, call.zero_grads);
        let needs_terms = stage.reductions.iter().any(|reduction| {
            reduction.fused
                || wanted(&reduction.left)
                || matches!(&reduction.right, Right::Factor(factor) if wanted(factor))
        });
        let mut run = Run {
            i,
            item,
            stage,
            pass,
            call,
            scaled,
            computes: needs_terms || pass.writes != 0 || pass.writes_param || call.zero_grads,
            places: [0; MAX_TAIL],
            tiles: std::ptr::null_mut(),
            kept: std::ptr::null_mut(),
            recalled: numbered.recalled,
            of_row: item.of_row(pass, call),
        };
        for (k, place) in run.places.iter_mut().enumerate().take(stage.reductions.len()) {
            *place = self.first_place(item, stage, numbered.number, k);
        }
        // SAFETY: upheld by the caller.
        unsafe {
            if !(recalls || (keeps && numbered.recalled.is_some())) {
                self.units(&mut run, units);
            } else if whole {
                with_kept_term(|kept| {
                    run.kept = kept;
                    self.units(&mut run, units);
                });
            } else {
                run.kept = self.terms.at(item.first_block * BLOCK).cast();
                self.units(&mut run, units);
            }
        }
    }

    /// # Safety
    /// As for [`WorkList::pass`].
    unsafe fn units(&self, run: &mut Run<'_>, units: Range<usize>) {
        let one_call = run.is_one_call();
        if one_call {
            let (start, end) = (units.start * BLOCK, run.item.len.min(units.end * BLOCK));
            // SAFETY: upheld by the caller.
            unsafe {
                self.call(run, units.start, (start, end - start), &[run.term(start)]);
                if units.clone().all(|unit| self.is_complete(run, unit)) {
                    return;
                }
            }
        }
        with_tail_tiles(|tiles| {
            run.tiles = tiles.as_mut_ptr();
            // SAFETY: upheld by the caller.
            unsafe { self.pieces(run, units, !one_call) };
        });
    }

    /// Runs a pass piece by piece; `calls` says whether the kernel is still to be called.
    ///
    /// # Safety
    /// As for [`WorkList::pass`].
    unsafe fn pieces(&self, run: &Run<'_>, units: Range<usize>, calls: bool) {
        let Some(cells) = run.item.cells.as_deref().filter(|_| by_cells(run.stage)) else {
            for unit in units {
                let at = unit * BLOCK;
                let n = BLOCK.min(run.item.len - at);
                let piece = Piece { at, n, row: 0, rows: 1, col: at, cols: n };
                // SAFETY: upheld by the caller.
                unsafe {
                    match calls {
                        true => self.piece(run, unit, piece),
                        false => self.finish_piece(run, unit, piece, &[run.term(at)]),
                    }
                }
            }
            return;
        };
        let only_sums = run.only_sums(cells);
        for unit in units {
            for (k, reduction) in run.stage.reductions.iter().enumerate() {
                self.start_cell(run.places[k], cells, reduction, unit);
            }
            if only_sums {
                let (cell, width) = (cells.unit(unit), cells.matrix.cols);
                // What several sums read stays in the L1 cache.
                let most = if run.stage.reductions.len() == 1 { cell.rows.len() } else { SUMMED };
                for row in cell.rows.clone().step_by(most.max(1)) {
                    let (at, rows) = (row * width + cell.cols.start, most.min(cell.rows.end - row));
                    let piece = Piece { at, n: 0, row, rows, col: cell.cols.start, cols: cell.cols.len() };
                    // SAFETY: upheld by the caller; no number is converted.
                    unsafe { self.finish_piece(run, unit, piece, &[]) };
                }
                continue;
            }
            // SAFETY: upheld by the caller.
            each_piece(cells, unit, |piece| unsafe { self.piece(run, unit, piece) });
        }
    }

    /// Runs a pass without reductions over some elements of long rows, whose operands are used where they are.
    ///
    /// # Safety
    /// As for [`WorkList::pass`].
    unsafe fn by_rows(&self, i: usize, pass: &Pass, call: &Call<'_>, range: Range<usize>) {
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

    /// Calls the kernel of a pass.
    ///
    /// # Safety
    /// As for [`WorkList::pass`]; the streams must be those of the pass.
    unsafe fn call(&self, run: &Run<'_>, unit: usize, range: (usize, usize), tail: &[*mut u8]) {
        let sums = self.partials.at(run.places[0] + unit);
        let tail = Tail { streams: tail.as_ptr(), sums, stride: run.item.units(run.stage) };
        let recalling;
        let pass = match run.recalls() {
            true => {
                recalling = Pass { kernel: run.pass.kernel + 1, ..*run.pass };
                &recalling
            }
            false => run.pass,
        };
        // SAFETY: upheld by the caller.
        unsafe { run.item.call(self.streams_of(run.i), pass, run.call, range, tail) };
    }

    /// # Safety
    /// As for [`WorkList::pass`].
    unsafe fn piece(&self, run: &Run<'_>, unit: usize, piece: Piece) {
        let Run { i, pass, .. } = *run;
        if let Some(kernel) = run.of_row.filter(|_| piece.rows == 1) {
            // SAFETY: upheld by the caller.
            return unsafe { self.piece_of_row(run, kernel, unit, piece) };
        }
        let mut tail = [std::ptr::null_mut::<u8>(); MAX_TAIL];
        (0..pass.operands.len() + pass.tiles).for_each(|k| tail[k] = run.tile(k));
        // SAFETY: upheld by the caller; a tile holds a piece, and a pass has at most `MAX_TAIL` operands and terms.
        unsafe {
            for (k, operand) in pass.operands.iter().enumerate() {
                tail[k] = self.operand(i, operand, run.call.level, piece, run.tile(k));
            }
            if !run.kept.is_null() {
                tail[pass.operands.len() + run.recalled.unwrap_or(0)] = run.term(piece.at);
            }
            if run.computes {
                self.call(run, unit, (piece.at, piece.n), &tail);
            }
            self.finish_piece(run, unit, piece, &tail[pass.operands.len()..]);
        }
    }

    /// A piece of one row, whose kernel adds up all reductions.
    ///
    /// # Safety
    /// As for [`WorkList::pass`].
    unsafe fn piece_of_row(&self, run: &Run<'_>, kernel: Kernel, unit: usize, piece: Piece) {
        let (item, reductions) = (run.item, run.stage.reductions);
        let cells = item.cells.as_deref().expect("a pass with kernels for rows has a matrix");
        let size = item.param_type.compute().size();
        let mut sums = [0.0; MAX_TAIL];
        let mut streams = [std::ptr::null_mut::<u8>(); MAX_TAIL];
        let operands = run.pass.operands.iter().map(|operand| {
            let place = match operand.scope {
                Scope::Row => piece.row,
                _ => piece.row / cells.matrix.rows * cells.matrix.cols + piece.col,
            };
            self.vector(run.i, operand.scope, operand.place).wrapping_add(place * size)
        });
        let cols = reductions.iter().zip(run.places).filter(|(reduction, _)| reduction.scope == Scope::Col);
        let cols = cols.map(|(_, first)| self.partials.at(first + col_place(cells, piece.row) + piece.col).cast());
        let tail = operands.chain(cols).chain((0..run.pass.tiles).map(|k| run.tile(k)));
        streams.iter_mut().zip(tail).for_each(|(stream, own)| *stream = own);
        let tail = Tail { streams: streams.as_ptr(), sums: sums.as_mut_ptr(), stride: 1 };
        // SAFETY: upheld by the caller; the entries belong to the unit.
        unsafe {
            kernel(self.streams_of(run.i), piece.at, piece.n, run.call.scalars, &item.extras(run.call, piece.at, tail));
            for ((reduction, first), sum) in reductions.iter().zip(run.places).zip(sums) {
                let place = match reduction.scope {
                    Scope::Col => continue,
                    Scope::Row => first + cells.row_partial(piece.col / cells.strip, piece.row, 0),
                    _ => first + unit,
                };
                self.partials.set(place, combine(form(reduction), self.partials.get(place), sum));
            }
        }
    }

    /// The stream of a row or column vector for a piece: the vector itself if its layout matches the elements, else a tile.
    ///
    /// # Safety
    /// The vector must be valid, and the tile for a piece.
    unsafe fn operand(&self, i: usize, operand: &Operand, level: Level, piece: Piece, tile: *mut u8) -> *mut u8 {
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

/// The pieces of a cell.
fn each_piece(cells: &Cells, unit: usize, mut f: impl FnMut(Piece)) {
    let (cell, width) = (cells.unit(unit), cells.matrix.cols);
    let together = cells.rows_at_once();
    if together > 1 {
        let mut row = cell.rows.start;
        while row < cell.rows.end {
            let rows = together.min(cell.rows.end - row);
            f(Piece { at: row * width, n: rows * width, row, rows, col: 0, cols: width });
            row += rows;
        }
        return;
    }
    for row in cell.rows.clone() {
        for col in cell.cols.clone().step_by(TILE) {
            let n = TILE.min(cell.cols.end - col);
            f(Piece { at: row * width + col, n, row, rows: 1, col, cols: n });
        }
    }
}
