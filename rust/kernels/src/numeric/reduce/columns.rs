//! Sums and maxima of columns: each has a float64 of its own, to which its elements are added in the order of the rows.

use super::{BLOCK, Form, LANES, Rows, first, fold, load, plus_product};
use crate::cpu::{self, DISTANCE, LEVELS, Lanes, Level, PREFETCH_BATCH, prefetch, prefetch_lines};
use crate::numeric::{Dtype, Real, Storage, max};

/// Accumulates each column's elements, in the order of the rows, into its own float64; the second pointer is for products.
/// Maxima take the larger.
///
/// # Safety
/// As for [`RowSums`], with a sum for each column; the second pointer must be valid if the form uses it.
type Columns = unsafe fn(sums: *mut f64, left: *const u8, right: *const u8, rows: Rows);

/// By level, compute type and form.
static TABLE: [[[Columns; 4]; 2]; LEVELS] = {
    macro_rules! row {
        ($level:ident) => {
            [
                [
                    $level::columns::<f32, 0>,
                    $level::columns::<f32, 1>,
                    $level::columns::<f32, 2>,
                    $level::columns::<f32, 3>,
                ],
                [
                    $level::columns::<f64, 0>,
                    $level::columns::<f64, 1>,
                    $level::columns::<f64, 2>,
                    $level::columns::<f64, 3>,
                ],
            ]
        };
    }
    cpu::rows!(row)
};

/// Adds rows of the compute type to column sums.
///
/// # Safety
/// As for [`Columns`].
pub(crate) unsafe fn columns(
    level: Level,
    form: Form,
    compute: Dtype,
    sums: *mut f64,
    (left, right): (*const u8, *const u8),
    rows: Rows,
) {
    let form = match form {
        Form::Plain => 0,
        Form::Square | Form::FastSquare => 1,
        Form::Product => 2,
        Form::Max => 3,
    };
    // SAFETY: upheld by the caller.
    unsafe { TABLE[level as usize][compute as usize][form](sums, left, right, rows) }
}

/// Adds squares to the sums of the rows and to those of the columns, each in the order that it has alone.
///
/// # Safety
/// As for [`RowSums`] and [`Columns`].
type BothSquares = unsafe fn(row_sums: *mut f64, col_sums: *mut f64, data: *const u8, rows: Rows);

/// By level and compute type.
static BOTH_SQUARES: [[BothSquares; 2]; LEVELS] = {
    macro_rules! row {
        ($level:ident) => {
            [$level::both_squares::<f32>, $level::both_squares::<f64>]
        };
    }
    cpu::rows!(row)
};

/// Adds squares of the compute type to the sums of the rows and to those of the columns, reading the numbers once.
///
/// # Safety
/// As for [`BothSquares`].
pub(crate) unsafe fn both_squares(
    level: Level,
    compute: Dtype,
    (row_sums, col_sums): (*mut f64, *mut f64),
    data: *const u8,
    rows: Rows,
) {
    // SAFETY: upheld by the caller.
    unsafe { BOTH_SQUARES[level as usize][compute as usize](row_sums, col_sums, data, rows) }
}

cpu::each! {
    /// # Safety
    /// As for [`BothSquares`].
    pub(super) unsafe fn both_squares<C: Storage<Compute = C> + Real>(
        row_sums: *mut f64, col_sums: *mut f64, data: *const u8, rows: Rows,
    ) {
        let fused = FMA && C::SQUARES_EXACTLY;
        for row in 0..rows.count {
            for at in (0..rows.cols).step_by(BLOCK) {
                let n = BLOCK.min(rows.cols - at);
                let (whole, rest) = (n / LANES * LANES, n % LANES);
                // SAFETY: upheld by the caller.
                unsafe {
                    let block = data.cast::<C>().add(row * rows.stride + at);
                    let mut lanes = OwnLanes::new([0.0; LANES]);
                    for i in (0..whole).step_by(LANES) {
                        prefetch(block.wrapping_add(i + BLOCK));
                        let x: OwnLanes = load(block.add(i));
                        lanes = lanes.plus_product(x, x, fused);
                        let sums = col_sums.add(at + i).cast::<[f64; LANES]>();
                        *sums = OwnLanes::new(*sums).plus_product(x, x, fused).numbers();
                    }
                    if rest > 0 {
                        let last = first(block.add(whole), rest);
                        let x: OwnLanes = load(last.as_ptr());
                        lanes = lanes.plus_product(x, x, fused);
                        let sums = std::slice::from_raw_parts_mut(col_sums.add(at + whole), rest);
                        sums.iter_mut().zip(last).for_each(|(sum, x)| *sum = plus_product::<C, FMA>(*sum, x, x));
                    }
                    *row_sums.add(row) += fold(lanes.numbers());
                }
            }
        }
    }

    /// # Safety
    /// As for [`Columns`].
    pub(super) unsafe fn columns<C: Real, const FORM: usize>(
        sums: *mut f64, left: *const u8, right: *const u8, rows: Rows,
    ) {
        let plus = |sum: f64, x: C| match FORM {
            0 => sum + x.into(),
            1 => plus_product::<C, FMA>(sum, x, x),
            _ => max(sum, x.into()),
        };
        let mut row = 0;
        while row < rows.count {
            let together = if row + TOGETHER <= rows.count && FORM != 2 { TOGETHER } else { 1 };
            for at in (0..rows.cols).step_by(COLUMN_BATCH) {
                let n = COLUMN_BATCH.min(rows.cols - at);
                let start = |data: *const u8, k: usize| data.cast::<C>().wrapping_add((row + k) * rows.stride);
                // Past the end of these rows come the next ones.
                let ahead = at + DISTANCE;
                let ahead = if ahead < rows.cols { ahead } else { ahead - rows.cols + together * rows.stride };
                (0..together).for_each(|k| prefetch_lines(start(left, k).wrapping_add(ahead), n));
                // SAFETY: upheld by the caller.
                unsafe {
                    let sums = std::slice::from_raw_parts_mut(sums.add(at), n);
                    let of = |data: *const u8, k: usize| std::slice::from_raw_parts(start(data, k).add(at), n);
                    if FORM == 2 {
                        for ((sum, &a), &b) in sums.iter_mut().zip(of(left, 0)).zip(of(right, 0)) {
                            *sum = plus_product::<C, FMA>(*sum, a, b);
                        }
                    } else if together == TOGETHER {
                        add_rows(sums, of(left, 0), of(left, 1), of(left, 2), of(left, 3), plus);
                    } else {
                        sums.iter_mut().zip(of(left, 0)).for_each(|(sum, &x)| *sum = plus(*sum, x));
                    }
                }
            }
            row += together;
        }
    }
}

/// Rows that are added to column sums at once, in their order: the sums are then loaded and stored once instead of four times.
const TOGETHER: usize = 4;
/// Elements of each of these rows between two prefetches.
const COLUMN_BATCH: usize = PREFETCH_BATCH / 2;

/// One argument a row: the compiler assumes no aliasing only between slices that are parameters.
#[inline(always)]
fn add_rows<C: Copy>(sums: &mut [f64], a: &[C], b: &[C], c: &[C], d: &[C], plus: impl Fn(f64, C) -> f64) {
    let n = sums.len();
    let (a, b, c, d) = (&a[..n], &b[..n], &c[..n], &d[..n]);
    for i in 0..n {
        sums[i] = plus(plus(plus(plus(sums[i], a[i]), b[i]), c[i]), d[i]);
    }
}
