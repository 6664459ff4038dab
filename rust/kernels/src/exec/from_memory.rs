//! The reductions that a pass's kernel does not add up: over rows and columns, maxima, and sums that float32 cannot hold. They
//! read streams and tiles that the kernel has left. Starts no thread.

use super::item::Item;
use super::matrix::Cells;
use super::passes::{Piece, Run};
use super::reductions::{Layout, by_cells, form, layout};
use super::tiles::MAX_TAIL;
use super::work_list::WorkList;
use crate::cpu::Level;
use crate::numeric::reduce::{self, BLOCK, Form, Rows, combine, neutral};
use crate::numeric::{Dtype, convert};
use crate::rule::{Factor, Operation, Reduction, Right, Stream};

impl WorkList {
    /// Resets the partial results that a cell adds to.
    pub(super) fn start_cell(&self, first: usize, cells: &Cells, reduction: &Reduction, unit: usize) {
        let nothing = neutral(form(reduction));
        let cell = cells.unit(unit);
        // SAFETY: these entries belong to the cell alone.
        unsafe {
            match layout(reduction, Some(cells.matrix)) {
                Layout::Rows => {
                    let at = |row| first + cells.row_partial(cell.cols.start / cells.strip, row, 0);
                    let (start, end) = (at(cell.rows.start), at(cell.rows.end));
                    self.partials.slice(start, end - start).fill(nothing);
                }
                Layout::Cols => {
                    let mut row = cell.rows.start;
                    while row < cell.rows.end {
                        let place = first + col_place(cells, row) + cell.cols.start;
                        self.partials.slice(place, cell.cols.len()).fill(nothing);
                        row = (row / cells.matrix.rows + 1) * cells.matrix.rows;
                    }
                }
                Layout::Units => self.partials.set(first + unit, nothing),
            }
        }
    }

    /// Whether the kernel has added up everything for a unit.
    ///
    /// # Safety
    /// As for [`WorkList::pass`]; the kernel must have been called.
    pub(super) unsafe fn is_complete(&self, run: &Run<'_>, unit: usize) -> bool {
        let mut sums = run.places.iter().zip(run.stage.reductions);
        // SAFETY: upheld by the caller.
        sums.all(|(place, reduction)| unsafe { self.is_summed(run.item, reduction, place + unit) })
    }

    /// Whether the kernel has added up a reduction into this place, and float32 was enough.
    ///
    /// # Safety
    /// As for [`WorkList::is_complete`].
    pub(super) unsafe fn is_summed(&self, item: &Item, reduction: &Reduction, place: usize) -> bool {
        let in_float32 = form(reduction) == Form::FastSquare && item.param_type.compute() == Dtype::F32;
        // SAFETY: the entry is the unit's own.
        let accurate = || reduce::is_accurate(unsafe { self.partials.get(place) });
        reduction.fused && (!in_float32 || accurate())
    }

    /// Reduces what the kernel did not add up.
    ///
    /// # Safety
    /// As for [`WorkList::pass`]; the kernel must have written the terms.
    pub(super) unsafe fn finish_piece(&self, run: &Run<'_>, unit: usize, piece: Piece, terms: &[*mut u8]) {
        let (item, level, compute) = (run.item, run.call.level, run.item.param_type.compute());
        let pair = if piece.n == 0 { squares_both_ways(run) } else { None };
        if let Some(pair) = pair {
            // SAFETY: upheld by the caller.
            unsafe { self.reduce_both(run, pair, piece) };
        }
        for (k, reduction) in run.stage.reductions.iter().enumerate() {
            if pair.is_some_and(|(row, col)| k == row || k == col) {
                continue;
            }
            // SAFETY: upheld by the caller.
            if unsafe { self.is_summed(item, reduction, run.places[k] + unit) } {
                continue;
            }
            let factor = |factor: &Factor| match factor.memory {
                Some(Stream::Param) => (item.param_type, self.stream(run.i, 0, piece.at)),
                Some(Stream::Grad) if in_memory(factor, run.scaled, run.call.zero_grads) => {
                    (item.grad_type, self.stream(run.i, 1, piece.at))
                }
                _ => (compute, terms[factor.tile]),
            };
            let mut left = factor(&reduction.left);
            let mut right = (compute, std::ptr::null_mut());
            // SAFETY: upheld by the caller.
            unsafe {
                if let Right::Factor(second) = &reduction.right {
                    // A product needs both in the compute type.
                    right = self.widened(level, factor(second), compute, run.tile(MAX_TAIL - 1), piece.n);
                    left = self.widened(level, left, compute, run.tile(MAX_TAIL - 2), piece.n);
                } else if reduction.operation == Operation::Max {
                    // So does a maximum.
                    left = self.widened(level, left, compute, run.tile(MAX_TAIL - 2), piece.n);
                }
                self.reduce(run, (k, reduction), unit, piece, (left, right.1));
            }
        }
    }

    /// Numbers in the compute type: converted into a tile if they are stored in another type.
    ///
    /// # Safety
    /// The pointers must be valid for `n` elements.
    unsafe fn widened(
        &self,
        level: Level,
        (dtype, data): (Dtype, *mut u8),
        compute: Dtype,
        tile: *mut u8,
        n: usize,
    ) -> (Dtype, *mut u8) {
        if dtype == compute {
            return (dtype, data);
        }
        // SAFETY: upheld by the caller.
        unsafe { convert::load(level, (dtype, data), (compute, tile), n) };
        (compute, tile)
    }

    /// Adds a piece to the partial results of a reduction.
    ///
    /// # Safety
    /// As for [`WorkList::pass`]; the numbers must be valid for the piece.
    unsafe fn reduce(
        &self,
        run: &Run<'_>,
        (k, reduction): (usize, &Reduction),
        unit: usize,
        piece: Piece,
        ((dtype, left), right): ((Dtype, *mut u8), *mut u8),
    ) {
        let (form, first, level) = (form(reduction), run.places[k], run.call.level);
        let compute = run.item.param_type.compute();
        let offset = |data: *mut u8, dtype: Dtype, elements: usize| data.wrapping_add(elements * dtype.size());
        // SAFETY: upheld by the caller; the entries belong to the unit.
        unsafe {
            let block = |at: usize, n: usize| {
                let pair = (offset(left, dtype, at).cast_const(), offset(right, compute, at).cast_const());
                reduce::block(level, form, (dtype, compute), pair, n)
            };
            let Some(cells) = run.item.cells.as_deref().filter(|_| by_cells(run.stage)) else {
                return self.partials.set(first + unit, block(0, piece.n));
            };
            let add = |place: usize, x: f64| self.partials.set(place, combine(form, self.partials.get(place), x));
            match layout(reduction, Some(cells.matrix)) {
                Layout::Rows => {
                    let of_row = cells.matrix.interleaved;
                    let strip = piece.col / cells.strip;
                    if of_row == 1 {
                        let (place, stride) = (first + cells.row_partial(strip, piece.row, 0), cells.matrix.cols);
                        if sums_whole_rows(form) {
                            let rows = Rows { count: piece.rows, cols: piece.cols, stride };
                            return reduce::rows(level, form, (dtype, compute), self.partials.at(place), left, rows);
                        }
                        for row in 0..piece.rows {
                            add(place + row, block(row * stride, piece.cols));
                        }
                        return;
                    }
                    // Interleaved matrices: neighbouring elements belong to neighbouring sums.
                    let (_, data) = self.widened(level, (dtype, left), compute, run.tile(MAX_TAIL - 2), piece.n);
                    for row in 0..piece.rows {
                        let mut done = 0;
                        while done < piece.cols {
                            let col = piece.col + done;
                            let n = (of_row - col % of_row).min(piece.cols - done);
                            let at = row * piece.cols + done;
                            let pair =
                                (offset(data, compute, at).cast_const(), offset(right, compute, at).cast_const());
                            let sums = self.partials.at(first + cells.row_partial(strip, piece.row + row, col));
                            reduce::columns(level, form, compute, sums, pair, Rows::one(n));
                            done += n;
                        }
                    }
                }
                Layout::Cols => {
                    let (_, data) = self.widened(level, (dtype, left), compute, run.tile(MAX_TAIL - 2), piece.n);
                    let stride = cells.matrix.cols;
                    each_matrix(cells, piece, |row, count| {
                        let rows = Rows { count, cols: piece.cols, stride };
                        let at = (row - piece.row) * stride;
                        let sums = self.partials.at(first + col_place(cells, row) + piece.col);
                        let pair = (offset(data, compute, at).cast_const(), offset(right, compute, at).cast_const());
                        reduce::columns(level, form, compute, sums, pair, rows);
                    });
                }
                Layout::Units if piece.n > 0 => add(first + unit, block(0, piece.n)),
                Layout::Units => {
                    for row in 0..piece.rows {
                        for col in (0..piece.cols).step_by(BLOCK) {
                            add(first + unit, block(row * cells.matrix.cols + col, BLOCK.min(piece.cols - col)));
                        }
                    }
                }
            }
        }
    }

    /// Adds the squares of some rows of a cell to a reduction of rows and to one of columns.
    ///
    /// # Safety
    /// As for [`WorkList::finish_piece`].
    unsafe fn reduce_both(&self, run: &Run<'_>, (of_rows, of_cols): (usize, usize), piece: Piece) {
        let cells = run.item.cells.as_deref().expect("sums of rows have a matrix");
        let compute = run.item.param_type.compute();
        let data = match run.stage.reductions[of_rows].left.memory {
            Some(Stream::Param) => self.stream(run.i, 0, piece.at),
            _ => self.stream(run.i, 1, piece.at),
        };
        each_matrix(cells, piece, |row, count| {
            let data = data.wrapping_add((row - piece.row) * cells.matrix.cols * compute.size());
            let rows = Rows { count, cols: piece.cols, stride: cells.matrix.cols };
            let of_row = run.places[of_rows] + cells.row_partial(piece.col / cells.strip, row, 0);
            let of_col = run.places[of_cols] + col_place(cells, row) + piece.col;
            let sums = (self.partials.at(of_row), self.partials.at(of_col));
            // SAFETY: upheld by the caller; the entries belong to the unit.
            unsafe { reduce::both_squares(run.call.level, compute, sums, data, rows) };
        });
    }

    fn stream(&self, i: usize, k: usize, at: usize) -> *mut u8 {
        let item = &self.items[i];
        let size = if k == 0 { item.param_type.size() } else { item.grad_type.size() };
        self.streams[item.streams + k].wrapping_add(at * size)
    }
}

/// The first row and the number of rows of a piece in each of its matrices: several small ones may share it.
fn each_matrix(cells: &Cells, piece: Piece, mut f: impl FnMut(usize, usize)) {
    let (mut row, end) = (piece.row, piece.row + piece.rows);
    while row < end {
        let next = end.min((row / cells.matrix.rows + 1) * cells.matrix.rows);
        f(row, next - row);
        row = next;
    }
}

/// A reduction of rows and one of columns over the squares of the same numbers in memory, if the pass has such.
fn squares_both_ways(run: &Run<'_>) -> Option<(usize, usize)> {
    let matrix = run.item.matrix();
    let place = |wanted: Layout| {
        let mut all = run.stage.reductions.iter();
        all.position(|one| form(one) == Form::Square && layout(one, matrix) == wanted)
    };
    let (row, col) = (place(Layout::Rows)?, place(Layout::Cols)?);
    let memory = |k: usize| run.stage.reductions[k].left.memory;
    (memory(row) == memory(col)).then_some((row, col))
}

/// Whether many long rows can be summed at once.
pub(super) fn sums_whole_rows(form: Form) -> bool {
    matches!(form, Form::Plain | Form::Square)
}

/// Whether a factor is in memory when the pass is done.
pub(super) fn in_memory(factor: &Factor, scaled: bool, zero_grads: bool) -> bool {
    match factor.memory {
        Some(Stream::Grad) => !(zero_grads || (factor.unscaled && scaled)),
        Some(Stream::Param) => true,
        None => false,
    }
}

/// The index of a row's column sums: those of its matrix and panel.
pub(super) fn col_place(cells: &Cells, row: usize) -> usize {
    let (matrix, within) = (row / cells.matrix.rows, row % cells.matrix.rows);
    (matrix * cells.panels + within / cells.panel) * cells.matrix.cols
}
