//! The stages of an array's program: passes over its units, reductions, and the texts between them.

use std::ops::Range;

use super::driver::{Item, WorkList};
use super::reductions::{Layout, finish_vector, fold, form, layout, places};
use super::tiles::{Call, MAX_TAIL, TILE, with_tail_tiles};
use crate::cpu::Level;
use crate::kernel::{Extras, find_vector};
use crate::numeric::reduce::{self, BLOCK, combine, neutral};
use crate::numeric::{Dtype, convert};
use crate::rule::{Factor, Kind, L2, Operand, Operation, Pass, Reduction, Right, Scope, Stage, Stream};

/// Some neighbouring elements of an array, and where they lie among its rows and columns.
#[derive(Clone, Copy)]
struct Piece {
    at: usize,
    n: usize,
    /// The row that it begins in, counted over the batch, and the column.
    row: usize,
    col: usize,
    /// For reductions: how many rows, and how many elements of each.
    rows: usize,
    cols: usize,
}

impl WorkList {
    /// Runs a pass over some units of an array.
    ///
    /// # Safety
    /// As for [`WorkList::run`]; nobody else may run a pass over these units meanwhile.
    pub(super) unsafe fn pass(&self, i: usize, stage: &Stage, pass: &Pass, call: &Call<'_>, units: Range<usize>) {
        let item = &self.items[i];
        let streams = self.streams_of(i);
        if stage.reductions.is_empty() && pass.operands.is_empty() && item.cells.is_none() {
            let (start, end) = (units.start * BLOCK, item.len.min(units.end * BLOCK));
            if start < end {
                // SAFETY: the caller's promise, passed on.
                unsafe { item.call(streams, pass, call, (start, end - start), std::ptr::null()) };
            }
            return;
        }
        with_tail_tiles(|tiles| {
            let mut tail = [std::ptr::null_mut::<u8>(); MAX_TAIL];
            for (pointer, tile) in tail.iter_mut().zip(tiles) {
                *pointer = tile.pointer();
            }
            if stage.reductions.is_empty() && item.quantizes(pass) {
                // Quantization blocks are counted through the array and do not begin where rows do.
                let blocks = item.len.div_ceil(BLOCK);
                let width = item.matrix().map_or(item.len, |matrix| matrix.cols);
                for block in units.start * blocks / item.units..units.end * blocks / item.units {
                    let at = block * BLOCK;
                    let n = BLOCK.min(item.len - at);
                    let piece = Piece { at, n, row: at / width, rows: 1, col: at % width, cols: n };
                    // SAFETY: the caller's promise: other units have other blocks.
                    unsafe { self.piece(i, stage, pass, call, 0, piece, &tail) };
                }
                return;
            }
            for unit in units {
                for reduction in stage.reductions.iter().enumerate() {
                    self.start_unit(i, stage, reduction, unit);
                }
                // SAFETY: the caller's promise, passed on.
                self.each_piece(item, unit, |piece| unsafe { self.piece(i, stage, pass, call, unit, piece, &tail) });
            }
        });
    }

    /// Clears the partial results that a unit adds to.
    fn start_unit(&self, i: usize, stage: &Stage, (k, reduction): (usize, &Reduction), unit: usize) {
        let (item, form) = (&self.items[i], form(reduction));
        let first = self.first_place(item, stage, k);
        // SAFETY: these places belong to the unit alone.
        unsafe {
            match (layout(reduction, item.matrix()), &item.cells) {
                (Layout::Rows, Some(cells)) => {
                    let cell = cells.unit(unit);
                    let strip = cell.cols.start / cells.strip;
                    for row in cell.rows {
                        self.partials.set(first + row * cells.strips + strip, neutral(form));
                    }
                }
                (Layout::Cols, Some(cells)) => {
                    let (cell, matrix) = (cells.unit(unit), cells.matrix);
                    let mut row = cell.rows.start;
                    while row < cell.rows.end {
                        let place = first + col_place(cells, row) + cell.cols.start;
                        self.partials.slice(place, cell.cols.len()).fill(neutral(form));
                        row = (row / matrix.rows + 1) * matrix.rows;
                    }
                }
                _ => self.partials.set(first + unit, neutral(form)),
            }
        }
    }

    /// The pieces of a unit: runs within a row, or some whole short rows.
    fn each_piece(&self, item: &Item, unit: usize, mut f: impl FnMut(Piece)) {
        let Some(cells) = &item.cells else {
            let at = unit * BLOCK;
            let n = BLOCK.min(item.len - at);
            return f(Piece { at, n, row: 0, rows: 1, col: at, cols: n });
        };
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

    /// # Safety
    /// As for [`WorkList::pass`].
    #[allow(clippy::too_many_arguments)] // what a piece needs, from the one caller
    unsafe fn piece(
        &self,
        i: usize,
        stage: &Stage,
        pass: &Pass,
        call: &Call<'_>,
        unit: usize,
        piece: Piece,
        tiles: &[*mut u8; MAX_TAIL],
    ) {
        let item = &self.items[i];
        let compute = item.param_type.compute();
        let mut tail = *tiles;
        // SAFETY: the caller's promise; a tile holds a piece, and each pass has at most so many operands and terms.
        unsafe {
            for (k, operand) in pass.operands.iter().enumerate() {
                tail[k] = self.operand(i, operand, compute, piece, tiles[k]);
            }
            let terms = &tail[pass.operands.len()..];
            let scaled = call.scalars[0] != 1.0 || call.scalars[L2] != 0.0;
            // Gradients that are zeroed on the way are no longer in memory then.
            let gone =
                |factor: &Factor| factor.memory == Some(Stream::Grad) && (call.zero_grads || factor.unscaled && scaled);
            let wanted = |factor: &Factor| factor.memory.is_none() || gone(factor);
            let needs_terms = stage.reductions.iter().any(|reduction| {
                wanted(&reduction.left) || matches!(&reduction.right, Right::Factor(factor) if wanted(factor))
            });
            if needs_terms || pass.writes != 0 || pass.writes_param || call.zero_grads {
                item.call(self.streams_of(i), pass, call, (piece.at, piece.n), tail.as_ptr());
            }
            for (k, reduction) in stage.reductions.iter().enumerate() {
                let factor = |factor: &Factor| match factor.memory {
                    Some(Stream::Param) => (item.param_type, self.stream(i, 0, piece.at)),
                    Some(Stream::Grad) if !gone(factor) => (item.grad_type, self.stream(i, 1, piece.at)),
                    _ => (compute, terms[factor.tile]),
                };
                let left = factor(&reduction.left);
                let mut right = (compute, std::ptr::null_mut());
                let mut left = left;
                if let Right::Factor(second) = &reduction.right {
                    // A product needs both in the compute type.
                    right = self.widened(call.level, factor(second), compute, tiles[MAX_TAIL - 1], piece.n);
                    left = self.widened(call.level, left, compute, tiles[MAX_TAIL - 2], piece.n);
                } else if reduction.operation == Operation::Max {
                    // So does a maximum.
                    left = self.widened(call.level, left, compute, tiles[MAX_TAIL - 2], piece.n);
                }
                self.reduce(i, stage, (k, reduction), call.level, unit, piece, left, right.1);
            }
        }
    }

    /// Numbers as the compute type, converted into a tile where they lie in another.
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
        // SAFETY: the caller's promise.
        unsafe { convert::load(level, (dtype, data), (compute, tile), n) };
        (compute, tile)
    }

    /// Adds a piece to the partial results of a reduction.
    ///
    /// # Safety
    /// As for [`WorkList::pass`]; the numbers must be valid for the piece.
    #[allow(clippy::too_many_arguments)] // as above
    unsafe fn reduce(
        &self,
        i: usize,
        stage: &Stage,
        (k, reduction): (usize, &Reduction),
        level: Level,
        unit: usize,
        piece: Piece,
        (dtype, left): (Dtype, *mut u8),
        right: *mut u8,
    ) {
        let item = &self.items[i];
        let (form, compute) = (form(reduction), item.param_type.compute());
        let first = self.first_place(item, stage, k);
        let offset = |data: *mut u8, dtype: Dtype, elements: usize| data.wrapping_add(elements * dtype.size());
        // SAFETY: the caller's promise; the places belong to the unit.
        unsafe {
            let block = |at: usize, n: usize| {
                let pair = (offset(left, dtype, at).cast_const(), offset(right, compute, at).cast_const());
                reduce::block(level, form, (dtype, compute), pair, n)
            };
            let add = |place: usize, x: f64| self.partials.set(place, combine(form, self.partials.get(place), x));
            match (layout(reduction, item.matrix()), &item.cells) {
                (Layout::Rows, Some(cells)) => {
                    let strip = piece.col / cells.strip;
                    for row in 0..piece.rows {
                        let place = first + (piece.row + row) * cells.strips + strip;
                        add(place, block(row * piece.cols, piece.cols));
                    }
                }
                (Layout::Cols, Some(cells)) => {
                    for row in 0..piece.rows {
                        let at = row * piece.cols;
                        let place = first + col_place(cells, piece.row + row) + piece.col;
                        let data = self.widened_row((dtype, left), compute, (at, piece.cols), level);
                        let pair = (data.cast_const(), offset(right, compute, at).cast_const());
                        reduce::columns(level, form, compute, self.partials.at(place), pair, piece.cols);
                    }
                }
                _ => add(first + unit, block(0, piece.n)),
            }
        }
    }

    /// A row of numbers in the compute type; columns are not summed in any other.
    ///
    /// # Safety
    /// As for [`WorkList::reduce`].
    unsafe fn widened_row(
        &self,
        (dtype, data): (Dtype, *mut u8),
        compute: Dtype,
        (at, n): (usize, usize),
        level: Level,
    ) -> *mut u8 {
        let data = data.wrapping_add(at * dtype.size());
        if dtype == compute {
            return data;
        }
        thread_local!(static ROW: std::cell::UnsafeCell<[f64; TILE]> = const { std::cell::UnsafeCell::new([0.0; TILE]) });
        let tile = ROW.with(|row| row.get().cast::<u8>());
        // SAFETY: the caller's promise; the tile is this thread's own, and read before the next call.
        unsafe { convert::load(level, (dtype, data), (compute, tile), n) };
        tile
    }

    /// The stream of a row or column vector for a piece: the vector itself where it lies as the elements do, else a tile.
    ///
    /// # Safety
    /// The vector must be valid, and the tile for a piece.
    unsafe fn operand(&self, i: usize, operand: &Operand, compute: Dtype, piece: Piece, tile: *mut u8) -> *mut u8 {
        let matrix = self.items[i].matrix().expect("rules with operands have matrices");
        let vector = self.vector(i, operand.scope, operand.place);
        let by_row = matrix.lies_in_rows(operand.scope);
        let size = compute.size();
        let of_col = |row: usize, col: usize| vector.wrapping_add((row / matrix.rows * matrix.cols + col) * size);
        if !by_row && piece.col + piece.n <= matrix.cols {
            return of_col(piece.row, piece.col);
        }
        let (mut row, mut col, mut done) = (piece.row, piece.col, 0);
        while done < piece.n {
            let n = (matrix.cols - col).min(piece.n - done);
            let into = tile.wrapping_add(done * size);
            // SAFETY: the caller's promise; all places are within the vector and the tile.
            unsafe {
                match (by_row, compute) {
                    (false, _) => into.copy_from_nonoverlapping(of_col(row, col), n * size),
                    (true, Dtype::F64) => {
                        let value = *vector.cast::<f64>().add(row);
                        std::slice::from_raw_parts_mut(into.cast::<f64>(), n).fill(value);
                    }
                    (true, _) => {
                        let value = *vector.cast::<f32>().add(row);
                        std::slice::from_raw_parts_mut(into.cast::<f32>(), n).fill(value);
                    }
                }
            }
            (row, col, done) = (row + 1, 0, done + n);
        }
        tile
    }

    /// Turns the partial results of a pass into scalars and vectors of the array; those over all arrays stay.
    ///
    /// # Safety
    /// All units of the pass must be done, and nobody else may use the array's places meanwhile.
    pub(super) unsafe fn finish_pass(&self, i: usize, stage: &Stage) {
        let item = &self.items[i];
        let compute = item.param_type.compute();
        for (k, reduction) in stage.reductions.iter().enumerate() {
            let (form, first) = (form(reduction), self.first_place(item, stage, k));
            // SAFETY: the caller's promise.
            unsafe {
                match reduction.scope {
                    Scope::Row | Scope::Col => {
                        let cells = item.cells.as_ref().expect("rules with rows or columns have matrices");
                        let vector = self.vector(i, reduction.scope, reduction.place);
                        finish_vector(reduction, cells, &self.partials, first, (compute, vector));
                    }
                    Scope::Array => {
                        let result = fold(form, &self.partials, first..first + item.units, neutral(form));
                        let count = if reduction.operation == Operation::Mean { item.len as f64 } else { 1.0 };
                        self.scalars.set(item.scalars + reduction.place, result / count);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Runs a text between passes that belongs to the array: over rows, columns, or its scalars.
    ///
    /// # Safety
    /// As for [`WorkList::finish_pass`].
    pub(super) unsafe fn text(&self, i: usize, stage: &Stage, level: Level) {
        // SAFETY: the caller's promise.
        unsafe {
            match &stage.kind {
                Kind::Vector { scope, kernel } => self.vector_text(i, stage, *scope, *kernel, level),
                Kind::Text(_) => {
                    let item = &self.items[i];
                    (stage.text)(self.scalars.slice(item.scalars, item.compiled.rule.scalars.len()));
                    self.store_array_states(i);
                }
                Kind::Pass(_) => unreachable!("passes have units"),
            }
        }
    }

    /// # Safety
    /// As for [`WorkList::finish_pass`].
    unsafe fn vector_text(&self, i: usize, stage: &Stage, scope: Scope, kernel: usize, level: Level) {
        let item = &self.items[i];
        let (compute, matrix) = (item.param_type.compute(), item.matrix().expect("rules with vectors have matrices"));
        let kernel = find_vector(item.compiled.vector_kernels[kernel], level, compute);
        let rule = item.compiled.rule;
        // SAFETY: the caller's promise.
        let scalars = unsafe { self.scalars.slice(item.scalars, rule.scalars.len()) };
        let vectors = self.vectors_of(i, scope);
        let by_matrix = stage.reductions.iter().any(|reduction| reduction.scope == Scope::Matrix);
        let (length, runs) = match by_matrix {
            true => (matrix.of_one(scope), matrix.batch),
            false => (matrix.vector(scope), 1),
        };
        let mut of_array = [0.0; MAX_TAIL];
        with_tail_tiles(|tiles| {
            let mut tail = [std::ptr::null_mut::<u8>(); MAX_TAIL];
            for (pointer, tile) in tail.iter_mut().zip(tiles) {
                *pointer = tile.pointer();
            }
            for run in 0..runs {
                let mut sums = [0.0; MAX_TAIL];
                for (sum, reduction) in sums.iter_mut().zip(stage.reductions) {
                    *sum = neutral(form(reduction));
                }
                for at in (0..length).step_by(TILE) {
                    let n = TILE.min(length - at);
                    // SAFETY: the caller's promise; the tiles hold a piece.
                    unsafe {
                        let extras = Extras { tail: tail.as_ptr(), ..Extras::NONE };
                        kernel(vectors, run * length + at, n, scalars, &extras);
                        for (sum, reduction) in sums.iter_mut().zip(stage.reductions) {
                            let right = match &reduction.right {
                                Right::Factor(factor) => tail[factor.tile],
                                _ => std::ptr::null_mut(),
                            };
                            let pair = (tail[reduction.left.tile].cast_const(), right.cast_const());
                            let found = reduce::block(level, form(reduction), (compute, compute), pair, n);
                            *sum = combine(form(reduction), *sum, found);
                        }
                    }
                }
                for (k, reduction) in stage.reductions.iter().enumerate() {
                    if reduction.scope == Scope::Matrix {
                        let mean = reduction.operation == Operation::Mean;
                        let x = if mean { sums[k] / length as f64 } else { sums[k] };
                        let vector = self.vector(i, scope, reduction.place);
                        // SAFETY: the caller's promise; the run's places are within the vector.
                        unsafe {
                            match compute {
                                Dtype::F64 => {
                                    std::slice::from_raw_parts_mut(vector.cast::<f64>().add(run * length), length)
                                        .fill(x)
                                }
                                _ => std::slice::from_raw_parts_mut(vector.cast::<f32>().add(run * length), length)
                                    .fill(x as f32),
                            }
                        }
                    } else {
                        of_array[k] = if run == 0 { sums[k] } else { combine(form(reduction), of_array[k], sums[k]) };
                    }
                }
            }
        });
        for (k, reduction) in stage.reductions.iter().enumerate().filter(|(_, r)| r.scope == Scope::Array) {
            let mean = reduction.operation == Operation::Mean;
            scalars[reduction.place] = if mean { of_array[k] / matrix.vector(scope) as f64 } else { of_array[k] };
        }
    }

    /// The first partial result of reduction `k` of a stage.
    fn first_place(&self, item: &Item, stage: &Stage, k: usize) -> usize {
        let before = stage.reductions[..k].iter();
        item.partials + before.map(|reduction| places(reduction, item.units, item.cells.as_ref())).sum::<usize>()
    }

    fn stream(&self, i: usize, k: usize, at: usize) -> *mut u8 {
        let item = &self.items[i];
        let size = if k == 0 { item.param_type.size() } else { item.grad_type.size() };
        self.streams[item.streams + k].wrapping_add(at * size)
    }
}

/// The place of a row's column sums: those of its matrix and panel.
fn col_place(cells: &super::matrix::Cells, row: usize) -> usize {
    let (matrix, within) = (row / cells.matrix.rows, row % cells.matrix.rows);
    (matrix * cells.panels + within / cells.panel) * cells.matrix.cols
}
