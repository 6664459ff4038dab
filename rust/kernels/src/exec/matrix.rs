//! An array as a matrix in memory, and how its rows and columns are split into units of work. Knows neither rules nor threads.
//!
//! The split depends on the shape alone, and therefore so does the order of the sums.

use std::ops::Range;

use crate::numeric::reduce::BLOCK;
use crate::rule::Scope;

/// The memory layout of an array as a batch of row-major matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Number of matrices.
    pub batch: usize,
    /// Rows of each, in memory order.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// Whether rows in memory are columns of the array (Fortran order).
    pub transposed: bool,
    /// Number of matrices that are interleaved element by element, as the leading axes are in Fortran order; 1 for none. Each
    /// row in memory then has that many sums instead of one.
    pub interleaved: usize,
}

/// Elements of a panel of rows.
const PANEL: usize = 65_536;
/// The minimum number of rows of a panel.
const PANEL_ROWS: usize = 64;
/// Columns that are summed at a time.
const STRIP: usize = 4_096;
/// Shorter rows share a tile.
const SHORT: usize = 256;

impl Matrix {
    /// Length of a vector with one number for each row or column of the array.
    pub fn vector(&self, scope: Scope) -> usize {
        self.batch * self.interleaved * self.of_one(scope)
    }

    /// Length of the same vector for one matrix of the batch.
    pub(crate) fn of_one(&self, scope: Scope) -> usize {
        if self.lies_in_rows(scope) { self.rows } else { self.cols / self.interleaved }
    }

    /// Whether the elements of one row or column of the array are contiguous in memory.
    pub(crate) fn lies_in_rows(&self, scope: Scope) -> bool {
        (scope == Scope::Row) != self.transposed
    }

    /// Elements of one matrix.
    pub(crate) fn size(&self) -> usize {
        self.rows * self.cols
    }
}

/// A matrix split into cells: small matrices are grouped, large ones divided into panels of rows and strips of columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cells {
    pub matrix: Matrix,
    /// Rows of a panel, panels of a matrix.
    pub panel: usize,
    pub panels: usize,
    /// Columns of a strip, strips of a matrix.
    pub strip: usize,
    pub strips: usize,
    /// Matrices in one unit.
    pub together: usize,
}

/// A unit: a range of rows, counted over the whole batch, and a range of columns.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub rows: Range<usize>,
    pub cols: Range<usize>,
}

impl Cells {
    pub fn new(matrix: Matrix) -> Cells {
        let panel = (PANEL / matrix.cols.max(1)).max(PANEL_ROWS).min(matrix.rows.max(1));
        let strip = STRIP.min(matrix.cols.max(1));
        let (panels, strips) = (matrix.rows.div_ceil(panel), matrix.cols.div_ceil(strip));
        let together = if matrix.size() > 0 { (BLOCK / matrix.size()).max(1) } else { 1 };
        Cells { matrix, panel, panels, strip, strips, together }
    }

    pub fn units(&self) -> usize {
        match self.together {
            1 => self.matrix.batch * self.panels * self.strips,
            together => self.matrix.batch.div_ceil(together),
        }
    }

    /// Number of units before an element at which the array may be cut, or before its end.
    pub fn units_before(&self, element: usize) -> usize {
        let Matrix { rows, cols, .. } = self.matrix;
        let row = element.div_ceil(cols.max(1));
        let (matrix, within) = (row / rows.max(1), row % rows.max(1));
        match self.together {
            1 => (matrix * self.panels + within / self.panel) * self.strips,
            together => matrix.div_ceil(together),
        }
    }

    /// Elements between two places at which the array may be cut without cutting a unit.
    pub fn cut_size(&self) -> usize {
        match (self.matrix.batch, self.panels) {
            (1, 2..) => self.panel * self.matrix.cols,
            _ => self.matrix.size() * self.together,
        }
    }

    pub fn unit(&self, unit: usize) -> Cell {
        let Matrix { batch, rows, cols, .. } = self.matrix;
        if self.together > 1 {
            let first = unit * self.together;
            return Cell { rows: first * rows..batch.min(first + self.together) * rows, cols: 0..cols };
        }
        let (of_matrix, strip) = (unit / self.strips, unit % self.strips);
        let (matrix, panel) = (of_matrix / self.panels, of_matrix % self.panels);
        let first = panel * self.panel;
        let last = rows.min(first + self.panel);
        Cell {
            rows: matrix * rows + first..matrix * rows + last,
            cols: strip * self.strip..cols.min((strip + 1) * self.strip),
        }
    }

    /// Rows that share a tile.
    pub fn rows_at_once(&self) -> usize {
        if self.matrix.cols <= SHORT { (BLOCK / self.matrix.cols.max(1)).max(1) } else { 1 }
    }

    /// Number of row sums.
    pub fn row_sums(&self) -> usize {
        self.matrix.batch * self.matrix.rows * self.matrix.interleaved
    }

    /// Number of partial sums of rows; those of a strip are contiguous.
    pub fn row_partials(&self) -> usize {
        self.row_partial(self.strips, 0, 0)
    }

    /// The index of the partial sum that an element adds to, given its strip, its row over the batch and its column. Of
    /// many interleaved matrices a strip has one element each, and so as many sums as columns.
    pub fn row_partial(&self, strip: usize, row: usize, col: usize) -> usize {
        let width = self.strip.min(self.matrix.interleaved);
        (strip * self.matrix.batch * self.matrix.rows + row) * width + col % width.max(1)
    }

    /// The partial sums of a row of one matrix, in the order in which they are added.
    pub fn row_partials_of(&self, row: usize, one: usize) -> impl Iterator<Item = usize> {
        let many = self.matrix.interleaved > self.strip;
        let count = if many { self.matrix.cols / self.matrix.interleaved } else { self.strips };
        (0..count).map(move |k| {
            let col = if many { one + k * self.matrix.interleaved } else { one };
            self.row_partial(if many { col / self.strip } else { k }, row, col)
        })
    }

    /// Number of partial sums of columns: one for each column and panel.
    pub fn col_partials(&self) -> usize {
        self.matrix.batch * self.panels * self.matrix.cols
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_cover_every_element_once() {
        let shapes =
            [(1, 5, 7), (192, 3, 3), (1, 70_000, 3), (2, 100, 10_000), (1, 1, 1), (3, 1, 300_000), (1, 300_000, 1)];
        for (batch, rows, cols) in shapes {
            let cells = Cells::new(Matrix { batch, rows, cols, transposed: false, interleaved: 1 });
            let mut seen = vec![0u8; batch * rows * cols];
            for unit in 0..cells.units() {
                let Cell { rows: r, cols: c } = cells.unit(unit);
                assert!(cells.together > 1 || r.start / rows == (r.end - 1) / rows);
                for row in r {
                    seen[row * cols + c.start..row * cols + c.end].iter_mut().for_each(|n| *n += 1);
                }
            }
            assert!(seen.iter().all(|&n| n == 1), "{batch} {rows} {cols}");
        }
    }
}
