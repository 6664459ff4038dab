//! Rows of a gradient: their means, and taking those off.

use crate::level::Level;
use crate::math::Real;
use crate::norm;
use crate::numbers::Means;
use crate::segment::Segment;
use crate::storage::{Dtype, convert};
use crate::tile::{TILE, Tile};

/// Rows of a gradient whose means are taken off it: all axes but the first make a row.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Number of rows: the length of the first axis.
    pub count: usize,
    /// Whether neighbouring elements belong to neighbouring rows (Fortran order), not to one row (C order).
    pub strided: bool,
}

impl Segment {
    /// The mean of one row of the gradient times `factor`, as what it is computed in.
    ///
    /// # Safety
    /// The gradient must be valid and aligned for reading; the CPU must have the level.
    pub(crate) unsafe fn row_mean(&self, rows: Rows, row: usize, factor: f64, level: Level) -> f64 {
        let (length, size) = (self.len / rows.count, self.grad_type.size());
        let compute = self.param_type.compute();
        let (mut tile, mut gathered) = (Tile::new(), Tile::new());
        let mut sum = 0.0;
        for at in (0..length).step_by(TILE) {
            let n = TILE.min(length - at);
            // SAFETY: `row` and the columns lie within the array; a tile holds `n` elements of any type.
            unsafe {
                let source = if rows.strided {
                    for column in 0..n {
                        let from = self.grad.add(((at + column) * rows.count + row) * size);
                        gathered.pointer().add(column * size).copy_from_nonoverlapping(from, size);
                    }
                    gathered.pointer()
                } else {
                    self.grad.add((row * length + at) * size)
                };
                if self.grad_type == compute && factor == 1.0 {
                    sum += norm::sum(level, compute, source, n);
                    continue;
                }
                convert(self.grad_type, source, compute, tile.pointer(), n);
                match compute {
                    Dtype::F64 => tile.values::<f64>(n).iter_mut().for_each(|g| *g *= factor),
                    _ => tile.values::<f32>(n).iter_mut().for_each(|g| *g *= factor as f32),
                }
                sum += norm::sum(level, compute, tile.pointer(), n);
            }
        }
        sum / length as f64
    }
}

/// Where a part of a gradient begins among the rows that it is centered by.
pub(crate) struct Row<'a> {
    pub rows: Rows,
    /// Elements of a row.
    pub length: usize,
    /// The part's first element.
    pub at: usize,
    pub means: Means<'a>,
}

impl Row<'_> {
    /// Scales the part and takes the means of its rows off it.
    pub fn center<C: Real>(&self, part: &[C], out: &mut [C], factor: C) {
        let mean = |row| C::from_f64(self.means.of(row));
        if self.rows.strided {
            let mut row = self.at % self.rows.count;
            for (out, &g) in out.iter_mut().zip(part) {
                *out = g * factor - mean(row);
                row = if row + 1 == self.rows.count { 0 } else { row + 1 };
            }
            return;
        }
        let mut done = 0;
        while done < part.len() {
            let at = self.at + done;
            let end = part.len().min(done + self.length - at % self.length);
            let mean = mean(at / self.length);
            for (out, &g) in out[done..end].iter_mut().zip(&part[done..end]) {
                *out = g * factor - mean;
            }
            done = end;
        }
    }
}
