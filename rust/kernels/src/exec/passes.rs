//! Runs a pass over some units of an array: calls its kernel with the streams that it needs. Starts no thread.

use std::ops::Range;

use super::from_memory::{col_place, in_memory, sums_whole_rows};
use super::item::Item;
use super::matrix::Cells;
use super::plan::Numbered;
use super::reductions::{Layout, by_cells, first_places, form, layout};
use super::tiles::{Call, MAX_TAIL, TILE, Tile, with_kept_term, with_tail_tiles};
use super::work_list::WorkList;
use crate::kernel::{Kernel, Tail};
use crate::numeric::StateFormat;
use crate::numeric::reduce::{BLOCK, combine};
use crate::rule::{DECAY, Factor, Kind, L2, Pass, Right, Scope, Stage};

/// Rows that a pass of several sums adds up at a time.
const SUMMED: usize = 4;

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
    pub(super) unsafe fn pass(&self, i: usize, numbered: &Numbered, call: &Call<'_>, units: Range<usize>, whole: bool) {
        let (item, stage) = (&self.items[i], numbered.stage);
        let Kind::Pass(pass) = &stage.kind else { unreachable!("the stage is a pass") };
        // What is computed again is another number than before where states are quantized, or where the parameter decays first.
        let keeps =
            (whole || !self.terms.is_empty()) && item.format == StateFormat::Compute && call.scalars[DECAY] == 1.0;
        let recall = pass.recalls.as_ref().filter(|_| keeps);
        let pass = recall.map_or(pass, |recall| recall.pass);
        if stage.reductions.is_empty() && pass.operands.is_empty() && recall.is_none() {
            let (start, end) = (units.start * BLOCK, item.len.min(units.end * BLOCK));
            if start < end {
                // SAFETY: upheld by the caller.
                unsafe { item.call(self.streams_of(i), pass, call, (start, end - start), Tail::NONE) };
            }
            return;
        }
        if stage.reductions.is_empty() && recall.is_none() && item.has_long_rows(pass) {
            // SAFETY: upheld by the caller.
            return unsafe { self.by_rows(i, pass, call, units.start * BLOCK..item.len.min(units.end * BLOCK)) };
        }
        // SAFETY: upheld by the caller.
        let mut run = |kept| unsafe {
            match whole && item.len <= BLOCK && numbered.in_kernel {
                true => self.one_block((i, numbered, pass), call, kept),
                false => self.units(&mut self.new_run((i, numbered, pass), call, kept), units.clone()),
            }
        };
        if recall.is_none() && !(keeps && numbered.recalled.is_some()) {
            run(std::ptr::null_mut());
        } else if whole {
            with_kept_term(&mut run);
        } else {
            run(self.terms.at(item.first_block * BLOCK).cast());
        }
    }

    fn new_run<'a>(
        &'a self,
        (i, numbered, pass): (usize, &Numbered, &'a Pass),
        call: &'a Call<'a>,
        kept: *mut u8,
    ) -> Run<'a> {
        let (item, stage) = (&self.items[i], numbered.stage);
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
            kept,
            recalled: numbered.recalled,
            of_row: item.of_row(pass, call),
        };
        run.places.iter_mut().zip(first_places(item, numbered)).for_each(|(own, place)| *own = place);
        run
    }

    /// Runs a pass over an array of one block, whose kernel adds up all reductions: one call. Models have many such arrays, so
    /// there is little around it.
    ///
    /// # Safety
    /// As for [`WorkList::pass`].
    unsafe fn one_block(&self, (i, numbered, pass): (usize, &Numbered, &Pass), call: &Call<'_>, kept: *mut u8) {
        let (item, n, streams) = (&self.items[i], self.items[i].len, self.streams_of(i));
        let reductions = numbered.stage.reductions;
        if reductions.is_empty() {
            let tail = Tail { streams: &raw const kept, ..Tail::NONE };
            // SAFETY: upheld by the caller; the pass recalls the term that is kept.
            return unsafe { item.call(streams, pass, call, (0, n), tail) };
        }
        with_tail_tiles(&mut |tiles| {
            let tiles = tiles.as_mut_ptr();
            let mut terms = [std::ptr::null_mut::<u8>(); MAX_TAIL];
            for (k, term) in terms.iter_mut().enumerate().take(pass.tiles) {
                *term = tiles.wrapping_add(k).cast();
            }
            if !kept.is_null() {
                terms[numbered.recalled.unwrap_or(0)] = kept;
            }
            let first = item.partials[numbered.number];
            let tail = Tail { streams: terms.as_ptr(), sums: self.partials.at(first), stride: 1 };
            // SAFETY: upheld by the caller; a tile holds a block.
            unsafe {
                item.call(streams, pass, call, (0, n), tail);
                if !reductions.iter().zip(first..).all(|(one, place)| self.is_summed(item, one, place)) {
                    let mut run = self.new_run((i, numbered, pass), call, kept);
                    run.tiles = tiles;
                    self.finish_piece(&run, 0, Piece { at: 0, n, row: 0, rows: 1, col: 0, cols: n }, &terms);
                }
            }
        });
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
        with_tail_tiles(&mut |tiles| {
            run.tiles = tiles.as_mut_ptr();
            // SAFETY: upheld by the caller.
            unsafe { self.pieces(run, units.clone(), !one_call) };
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

    /// Calls the kernel of a pass.
    ///
    /// # Safety
    /// As for [`WorkList::pass`]; the streams must be those of the pass.
    unsafe fn call(&self, run: &Run<'_>, unit: usize, range: (usize, usize), tail: &[*mut u8]) {
        let sums = self.partials.at(run.places[0] + unit);
        let tail = Tail { streams: tail.as_ptr(), sums, stride: run.item.units(run.stage) };
        // SAFETY: upheld by the caller.
        unsafe { run.item.call(self.streams_of(run.i), run.pass, run.call, range, tail) };
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
