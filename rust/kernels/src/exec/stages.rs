//! Runs the stages of an array's program: passes over its units, reductions, and the scalar and vector stages between them.
//! Starts no thread.

use std::ops::Range;

use super::matrix::Cells;
use super::plan::Numbered;
use super::reductions::{Layout, by_cells, finish_vector, fold, form, layout, places};
use super::tiles::{Call, MAX_TAIL, TILE, with_kept_term, with_tail_tiles};
use super::work_list::{Item, WorkList};
use crate::cpu::Level;
use crate::kernel::{Extras, find_vector};
use crate::numeric::reduce::{self, BLOCK, combine, neutral};
use crate::numeric::{Dtype, StateFormat, convert};
use crate::rule::{DECAY, Factor, Kind, L2, Operand, Operation, Pass, Reduction, Right, Scope, Stage, Stream};

/// Some neighbouring elements of an array. In a cell they are part of a row, or several whole short rows.
#[derive(Clone, Copy)]
struct Piece {
    at: usize,
    n: usize,
    /// The first row, counted over the batch, and the number of rows.
    row: usize,
    rows: usize,
    /// The first column, and the number of elements of each row.
    col: usize,
    cols: usize,
}

/// A pass over an array.
struct Run<'a> {
    i: usize,
    item: &'a Item,
    stage: &'a Stage,
    pass: &'a Pass,
    call: &'a Call<'a>,
    /// Whether gradients are scaled, so that reductions need the kernel's scaled values.
    scaled: bool,
    /// Whether the kernel has anything to compute.
    computes: bool,
    /// The first partial result of each reduction.
    places: [usize; MAX_TAIL],
    /// The tiles for operands and terms.
    tiles: [*mut u8; MAX_TAIL],
    /// The buffer for a term that a later pass reuses, and the term's index.
    kept: *mut u8,
    recalled: Option<usize>,
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
                unsafe { item.call(self.streams_of(i), pass, call, (start, end - start), std::ptr::null()) };
            }
            return;
        }
        let scaled = call.scalars[0] != 1.0 || call.scalars[L2] != 0.0;
        // Gradients that the pass sets to zero are no longer in memory when they are reduced.
        let wanted = |factor: &Factor| !in_memory(factor, scaled, call.zero_grads);
        let needs_terms = stage.reductions.iter().any(|reduction| {
            wanted(&reduction.left) || matches!(&reduction.right, Right::Factor(factor) if wanted(factor))
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
            tiles: [std::ptr::null_mut(); MAX_TAIL],
            kept: std::ptr::null_mut(),
            recalled: numbered.recalled,
        };
        for (k, place) in run.places.iter_mut().enumerate().take(stage.reductions.len()) {
            *place = self.first_place(item, stage, numbered.number, k);
        }
        with_tail_tiles(|tiles| {
            for (pointer, tile) in run.tiles.iter_mut().zip(tiles) {
                *pointer = tile.pointer();
            }
            let all = |run: &Run<'_>| {
                // SAFETY: upheld by the caller.
                unsafe { self.units(run, units.clone()) }
            };
            if !(recalls || (keeps && numbered.recalled.is_some())) {
                all(&run);
            } else if whole {
                with_kept_term(|kept| {
                    run.kept = kept;
                    all(&run);
                });
            } else {
                run.kept = self.terms.at(item.first_block * BLOCK).cast();
                all(&run);
            }
        });
    }

    /// # Safety
    /// As for [`WorkList::pass`].
    unsafe fn units(&self, run: &Run<'_>, units: Range<usize>) {
        let Some(cells) = run.item.cells.as_ref().filter(|_| by_cells(run.stage)) else {
            for unit in units {
                let at = unit * BLOCK;
                let n = BLOCK.min(run.item.len - at);
                // SAFETY: upheld by the caller.
                unsafe { self.piece(run, unit, Piece { at, n, row: 0, rows: 1, col: at, cols: n }) };
            }
            return;
        };
        for unit in units {
            for (k, reduction) in run.stage.reductions.iter().enumerate() {
                self.start_cell(run.places[k], cells, reduction, unit);
            }
            // SAFETY: upheld by the caller.
            each_piece(cells, unit, |piece| unsafe { self.piece(run, unit, piece) });
        }
    }

    /// Resets the partial results that a cell adds to.
    fn start_cell(&self, first: usize, cells: &Cells, reduction: &Reduction, unit: usize) {
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

    /// # Safety
    /// As for [`WorkList::pass`].
    unsafe fn piece(&self, run: &Run<'_>, unit: usize, piece: Piece) {
        let Run { i, item, stage, pass, call, kept, .. } = *run;
        let compute = item.param_type.compute();
        let mut tail = run.tiles;
        // SAFETY: upheld by the caller; a tile holds a piece, and a pass has at most `MAX_TAIL` operands and terms.
        unsafe {
            for (k, operand) in pass.operands.iter().enumerate() {
                tail[k] = self.operand(i, operand, compute, piece, run.tiles[k]);
            }
            let term = kept.wrapping_add(piece.at * compute.size());
            if pass.recalls.is_some() && !kept.is_null() {
                tail[pass.operands.len()] = term;
                item.call_recalling(self.streams_of(i), pass, call, (piece.at, piece.n), tail.as_ptr());
                return;
            }
            if let (Some(tile), false) = (run.recalled, kept.is_null()) {
                tail[pass.operands.len() + tile] = term;
            }
            let terms = &tail[pass.operands.len()..];
            if run.computes {
                item.call(self.streams_of(i), pass, call, (piece.at, piece.n), tail.as_ptr());
            }
            for (k, reduction) in stage.reductions.iter().enumerate() {
                let factor = |factor: &Factor| match factor.memory {
                    Some(Stream::Param) => (item.param_type, self.stream(i, 0, piece.at)),
                    Some(Stream::Grad) if in_memory(factor, run.scaled, call.zero_grads) => {
                        (item.grad_type, self.stream(i, 1, piece.at))
                    }
                    _ => (compute, terms[factor.tile]),
                };
                let mut left = factor(&reduction.left);
                let mut right = (compute, std::ptr::null_mut());
                if let Right::Factor(second) = &reduction.right {
                    // A product needs both in the compute type.
                    right = self.widened(call.level, factor(second), compute, run.tiles[MAX_TAIL - 1], piece.n);
                    left = self.widened(call.level, left, compute, run.tiles[MAX_TAIL - 2], piece.n);
                } else if reduction.operation == Operation::Max {
                    // So does a maximum.
                    left = self.widened(call.level, left, compute, run.tiles[MAX_TAIL - 2], piece.n);
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
            let Some(cells) = run.item.cells.as_ref().filter(|_| by_cells(run.stage)) else {
                return self.partials.set(first + unit, block(0, piece.n));
            };
            let add = |place: usize, x: f64| self.partials.set(place, combine(form, self.partials.get(place), x));
            match layout(reduction, Some(cells.matrix)) {
                Layout::Rows => {
                    let of_row = cells.matrix.interleaved;
                    let strip = piece.col / cells.strip;
                    if of_row == 1 {
                        let place = first + cells.row_partial(strip, piece.row, 0);
                        for row in 0..piece.rows {
                            add(place + row, block(row * piece.cols, piece.cols));
                        }
                        return;
                    }
                    // Interleaved matrices: neighbouring elements belong to neighbouring sums.
                    let (_, data) = self.widened(level, (dtype, left), compute, run.tiles[MAX_TAIL - 2], piece.n);
                    for row in 0..piece.rows {
                        let mut done = 0;
                        while done < piece.cols {
                            let col = piece.col + done;
                            let n = (of_row - col % of_row).min(piece.cols - done);
                            let at = row * piece.cols + done;
                            let pair =
                                (offset(data, compute, at).cast_const(), offset(right, compute, at).cast_const());
                            let sums = self.partials.at(first + cells.row_partial(strip, piece.row + row, col));
                            reduce::columns(level, form, compute, sums, pair, n);
                            done += n;
                        }
                    }
                }
                Layout::Cols => {
                    let (_, data) = self.widened(level, (dtype, left), compute, run.tiles[MAX_TAIL - 2], piece.n);
                    for row in 0..piece.rows {
                        let at = row * piece.cols;
                        let place = first + col_place(cells, piece.row + row) + piece.col;
                        let pair = (offset(data, compute, at).cast_const(), offset(right, compute, at).cast_const());
                        reduce::columns(level, form, compute, self.partials.at(place), pair, piece.cols);
                    }
                }
                Layout::Units => add(first + unit, block(0, piece.n)),
            }
        }
    }

    /// The stream of a row or column vector for a piece: the vector itself if its layout matches the elements, else a tile.
    ///
    /// # Safety
    /// The vector must be valid, and the tile for a piece.
    unsafe fn operand(&self, i: usize, operand: &Operand, compute: Dtype, piece: Piece, tile: *mut u8) -> *mut u8 {
        let matrix = self.items[i].matrix().expect("rules with operands have matrices");
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
                match (by_row, compute) {
                    (true, _) if matrix.interleaved > 1 => {
                        let from = vector.add((row * matrix.interleaved + one) * size);
                        into.copy_from_nonoverlapping(from, run * size);
                    }
                    (true, Dtype::F64) => {
                        let value = *vector.cast::<f64>().add(row);
                        std::slice::from_raw_parts_mut(into.cast::<f64>(), run).fill(value);
                    }
                    (true, _) => {
                        let value = *vector.cast::<f32>().add(row);
                        std::slice::from_raw_parts_mut(into.cast::<f32>(), run).fill(value);
                    }
                    (false, _) => {
                        let from = vector.add((row / matrix.rows * matrix.cols + col) * size);
                        if run == piece.n {
                            return from;
                        }
                        into.copy_from_nonoverlapping(from, run * size);
                    }
                }
            }
            at += run;
        }
        tile
    }

    /// Combines the partial results of a pass into scalars and vectors of the array; reductions over all arrays stay partial.
    ///
    /// # Safety
    /// All units of the pass must be done, and nobody else may access the array's entries during the call.
    pub(super) unsafe fn finish_pass(&self, i: usize, numbered: Numbered) {
        let (item, stage) = (&self.items[i], numbered.stage);
        let compute = item.param_type.compute();
        for (k, reduction) in stage.reductions.iter().enumerate() {
            let (form, first) = (form(reduction), self.first_place(item, stage, numbered.number, k));
            // SAFETY: upheld by the caller.
            unsafe {
                match reduction.scope {
                    Scope::Row | Scope::Col => {
                        let cells = item.cells.as_ref().expect("rules with rows or columns have matrices");
                        let vector = self.vector(i, reduction.scope, reduction.place);
                        finish_vector(reduction, cells, &self.partials, first, (compute, vector));
                    }
                    Scope::Array => {
                        let result = fold(form, &self.partials, first..first + item.units(stage), neutral(form));
                        let count = if reduction.operation == Operation::Mean { item.len as f64 } else { 1.0 };
                        self.scalars.set(item.scalars + reduction.place, result / count);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Runs one of the array's stages between passes: over rows, over columns, or over its scalars.
    ///
    /// # Safety
    /// As for [`WorkList::finish_pass`].
    pub(super) unsafe fn text(&self, i: usize, stage: &Stage, level: Level) {
        // SAFETY: upheld by the caller.
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
        // SAFETY: upheld by the caller.
        let scalars = unsafe { self.scalars.slice(item.scalars, rule.scalars.len()) };
        let vectors = self.vectors_of(i, scope);
        // A run is one matrix; interleaved matrices share one run.
        let by_matrix = stage.reductions.iter().any(|reduction| reduction.scope == Scope::Matrix);
        let together = if by_matrix { matrix.interleaved } else { 1 };
        let length = if by_matrix { matrix.of_one(scope) * together } else { matrix.vector(scope) };
        let mut of_array: Vec<f64> = stage.reductions.iter().map(|reduction| neutral(form(reduction))).collect();
        with_tail_tiles(|tiles| {
            let mut tail = [std::ptr::null_mut::<u8>(); MAX_TAIL];
            for (pointer, tile) in tail.iter_mut().zip(tiles) {
                *pointer = tile.pointer();
            }
            let extras = Extras { tail: tail.as_ptr(), ..Extras::NONE };
            for start in (0..matrix.vector(scope)).step_by(length.max(1)) {
                let mut sums: Vec<Vec<f64>> =
                    stage.reductions.iter().map(|reduction| vec![neutral(form(reduction)); together]).collect();
                for at in (0..length).step_by(TILE) {
                    let n = TILE.min(length - at);
                    // SAFETY: upheld by the caller; the tiles hold a piece.
                    unsafe { kernel(vectors, start + at, n, scalars, &extras) };
                    for (sums, reduction) in sums.iter_mut().zip(stage.reductions) {
                        // SAFETY: as above.
                        unsafe { add_terms(sums, reduction, &tail, level, compute, (at, n)) };
                    }
                }
                for (k, reduction) in stage.reductions.iter().enumerate() {
                    if reduction.scope == Scope::Matrix {
                        let count =
                            if reduction.operation == Operation::Mean { matrix.of_one(scope) as f64 } else { 1.0 };
                        let vector = self.vector(i, scope, reduction.place);
                        for place in 0..length {
                            let x = sums[k][place % together] / count;
                            // SAFETY: upheld by the caller; the run's indices are within the vector.
                            unsafe {
                                match compute {
                                    Dtype::F64 => vector.cast::<f64>().add(start + place).write(x),
                                    _ => vector.cast::<f32>().add(start + place).write(x as f32),
                                }
                            }
                        }
                    } else {
                        let form = form(reduction);
                        of_array[k] = sums[k].iter().fold(of_array[k], |sum, &x| combine(form, sum, x));
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
    pub(super) fn first_place(&self, item: &Item, stage: &Stage, number: usize, k: usize) -> usize {
        let (units, cells) = (item.units(stage), item.cells.as_ref());
        item.partials[number] + stage.reductions[..k].iter().map(|one| places(one, units, cells)).sum::<usize>()
    }

    fn stream(&self, i: usize, k: usize, at: usize) -> *mut u8 {
        let item = &self.items[i];
        let size = if k == 0 { item.param_type.size() } else { item.grad_type.size() };
        self.streams[item.streams + k].wrapping_add(at * size)
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
            reduce::columns(level, form, compute, sums[one..].as_mut_ptr(), pair(done), run);
            done += run;
        }
    }
}

/// Whether a factor is in memory when the pass is done.
fn in_memory(factor: &Factor, scaled: bool, zero_grads: bool) -> bool {
    match factor.memory {
        Some(Stream::Grad) => !(zero_grads || (factor.unscaled && scaled)),
        Some(Stream::Param) => true,
        None => false,
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

/// The index of a row's column sums: those of its matrix and panel.
fn col_place(cells: &Cells, row: usize) -> usize {
    let (matrix, within) = (row / cells.matrix.rows, row % cells.matrix.rows);
    (matrix * cells.panels + within / cells.panel) * cells.matrix.cols
}
