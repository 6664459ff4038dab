//! Where the partial results of an array's reductions are stored, and how they are combined. Knows no thread.

use super::item::Item;
use super::matrix::{Cells, Matrix};
use super::plan::Numbered;
use super::scratch::Scratch;
use crate::cpu::prefetch;
use crate::numeric::Dtype;
use crate::numeric::reduce::{Form, combine, neutral};
use crate::rule::{Kind, Operation, Reduction, Right, Scope, Stage};

/// The operation that is applied to a reduction's terms.
pub(crate) fn form(reduction: &Reduction) -> Form {
    match (reduction.operation, &reduction.right) {
        (Operation::Max, _) => Form::Max,
        (_, Right::None) => Form::Plain,
        (Operation::FastSum, Right::Same) => Form::FastSquare,
        (_, Right::Same) => Form::Square,
        (_, Right::Factor(_)) => Form::Product,
    }
}

/// The result of a reduction over no elements.
pub(super) fn neutral_of(reduction: &Reduction) -> f64 {
    neutral(form(reduction))
}

/// The layout of a reduction's partial results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// One for each unit.
    Units,
    /// One for each row in memory and strip.
    Rows,
    /// One for each panel and column in memory.
    Cols,
}

pub(super) fn layout(reduction: &Reduction, matrix: Option<Matrix>) -> Layout {
    match (reduction.scope, matrix) {
        (Scope::Row | Scope::Col, Some(matrix)) if matrix.lies_in_rows(reduction.scope) => Layout::Rows,
        (Scope::Row | Scope::Col, Some(_)) => Layout::Cols,
        _ => Layout::Units,
    }
}

/// Whether a stage processes an array cell by cell instead of block by block, as reductions over rows or columns require.
pub(crate) fn by_cells(stage: &Stage) -> bool {
    stage.reductions.iter().any(|reduction| matches!(reduction.scope, Scope::Row | Scope::Col))
}

/// Number of partial results of a reduction.
fn places(reduction: &Reduction, units: usize, cells: Option<&Cells>) -> usize {
    match (layout(reduction, cells.map(|cells| cells.matrix)), cells) {
        (Layout::Rows, Some(cells)) => cells.row_partials(),
        (Layout::Cols, Some(cells)) => cells.col_partials(),
        _ => units,
    }
}

/// The first partial result of each reduction of a stage.
pub(super) fn first_places(item: &Item, numbered: &Numbered) -> impl Iterator<Item = usize> {
    let (units, cells) = (item.units(numbered.stage), item.cells.as_deref());
    // A rule of one pass without reductions has none.
    let mut next = item.partials.get(numbered.number).copied().unwrap_or(0);
    numbered.stage.reductions.iter().map(move |one| {
        let first = next;
        next += places(one, units, cells);
        first
    })
}

/// Total number of partial results of a stage's reductions.
pub(super) fn stage_places(stage: &Stage, units: usize, cells: Option<&Cells>) -> usize {
    if let (Kind::Vector { .. }, Some(cells)) = (&stage.kind, cells) {
        return stage.reductions.len() * sums_at_once(stage, cells.matrix);
    }
    stage.reductions.iter().map(|reduction| places(reduction, units, cells)).sum()
}

/// The sums that a stage over rows or columns has at a time for each of its reductions: those of interleaved matrices.
pub(super) fn sums_at_once(stage: &Stage, matrix: Matrix) -> usize {
    if stage.reductions.iter().any(|reduction| reduction.scope == Scope::Matrix) { matrix.interleaved } else { 1 }
}

/// How many partial results ahead are prefetched: other CPUs have written some, from whose caches they come slowly.
const AHEAD: usize = 128;

/// Combines partial results in order.
///
/// # Safety
/// Nobody may write these entries during the call.
pub(super) unsafe fn fold(form: Form, scratch: &Scratch, places: std::ops::Range<usize>, start: f64) -> f64 {
    places.fold(start, |sum, place| {
        prefetch(scratch.at(place + AHEAD));
        // SAFETY: upheld by the caller.
        combine(form, sum, unsafe { scratch.get(place) })
    })
}

/// Combines the partial results of rows or columns into the vector of the reduction.
///
/// # Safety
/// The partial results from `first` on must be complete, nobody else may access them or the vector during the call, and the
/// vector must be valid for one `compute` number for each row or column.
pub(super) unsafe fn finish_vector(
    reduction: &Reduction,
    cells: &Cells,
    scratch: &Scratch,
    first: usize,
    (compute, vector): (Dtype, *mut u8),
) {
    let (form, matrix) = (form(reduction), cells.matrix);
    let count = matrix.of_one(reduction.scope.other());
    // SAFETY: upheld by the caller; each index is within the vector.
    let set = |i: usize, sum: f64| unsafe { put(compute, vector, i, reduction.divided(sum, count)) };
    let in_rows = layout(reduction, Some(matrix)) == Layout::Rows;
    if in_rows && matrix.interleaved > 1 {
        let of_row = matrix.interleaved;
        for sum in 0..cells.row_sums() {
            let partials = cells.row_partials_of(sum / of_row, sum % of_row);
            // SAFETY: upheld by the caller.
            let add = |total, place| combine(form, total, unsafe { scratch.get(first + place) });
            set(sum, partials.fold(neutral(form), add));
        }
        return;
    }
    // Vectors whose partial results are added: those of all strips, or of the panels of each matrix.
    let (batch, parts, n) = match in_rows {
        true => (1, cells.strips, cells.row_sums()),
        false => (matrix.batch, cells.panels, matrix.cols),
    };
    for of_matrix in 0..batch {
        // The first one's entries hold the sums: they are added in order.
        // SAFETY: upheld by the caller.
        let sums = unsafe { scratch.slice(first + of_matrix * parts * n, parts * n) };
        let (total, others) = sums.split_at_mut(n);
        for other in others.chunks_exact(n) {
            for (sum, x) in total.iter_mut().zip(other) {
                *sum = combine(form, *sum, *x);
            }
        }
        for (i, &x) in total.iter().enumerate() {
            set(of_matrix * n + i, x);
        }
    }
}

/// Stores a number of a vector.
///
/// # Safety
/// The vector must be valid for writing the number of this index in the compute type.
pub(super) unsafe fn put(compute: Dtype, vector: *mut u8, i: usize, x: f64) {
    // SAFETY: upheld by the caller.
    unsafe {
        match compute {
            Dtype::F64 => vector.cast::<f64>().add(i).write(x),
            _ => vector.cast::<f32>().add(i).write(x as f32),
        }
    }
}

impl Scope {
    /// Swaps rows and columns.
    fn other(self) -> Scope {
        if self == Scope::Row { Scope::Col } else { Scope::Row }
    }
}
