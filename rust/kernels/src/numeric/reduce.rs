//! Sums and maxima in a fixed order. Knows no rule and no thread.
//!
//! An array is split into blocks of [`BLOCK`] elements from its start, or from the start of each row. Inside a block, sixteen
//! float64 lanes take every sixteenth element and are added in a fixed tree; blocks, then arrays, are added in order. So the
//! result does not depend on threads, chunks or CPU level.

mod columns;
mod lanes;

use half::{bf16, f16};

use super::{Dtype, Real, Rounded, Storage};
use crate::cpu::{self, LEVELS, Lanes, Level};
use lanes::{add, first, load, plus_loaded};

/// A block's elements are assigned to lanes in turn.
pub(crate) use crate::cpu::LANES;
pub(crate) use columns::{both_squares, columns};
pub(crate) use lanes::{fold, largest, plus_product};

/// Elements of one partial sum.
pub(crate) const BLOCK: usize = 1024;

/// What is accumulated for each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The number itself.
    Plain,
    /// Its square.
    Square,
    /// Its square, with float32 lanes inside a block of float32 numbers.
    FastSquare,
    /// Its product with a second number; both have the compute type.
    Product,
    /// The largest instead of the sum; the number has the compute type.
    Max,
}

/// Reduces a block of at most [`BLOCK`] elements to a float64; the second pointer is for products.
///
/// # Safety
/// The pointers that the form uses must be valid for `n` aligned elements of the type, and the CPU must support the level.
type Block = unsafe fn(left: *const u8, right: *const u8, n: usize) -> f64;

/// Rows of a matrix, or blocks of an array, in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub count: usize,
    /// Elements of each that are summed.
    pub cols: usize,
    /// Elements from the start of one to that of the next.
    pub stride: usize,
}

impl Rows {
    /// One row of `n` elements.
    pub fn one(n: usize) -> Rows {
        Rows { count: 1, cols: n, stride: n }
    }
}

/// Adds the sum of each row, block by block, to its own float64.
///
/// # Safety
/// `data` must be valid for the rows' elements of the type, and aligned; `sums` for as many numbers, which overlap nothing else.
/// The CPU must support the level.
type RowSums = unsafe fn(sums: *mut f64, data: *const u8, rows: Rows);

/// Writes the sum of squares of each of some blocks that follow each other in memory; `lens` are their elements.
///
/// # Safety
/// As for [`RowSums`], with the blocks' elements.
type BlockSquares = unsafe fn(sums: *mut f64, data: *const u8, lens: &[u16]);

/// The storage types, then float64 that is rounded to float32.
const SOURCES: usize = 5;

struct Table {
    plain: [RowSums; SOURCES],
    squares: [RowSums; SOURCES],
    block_squares: [BlockSquares; SOURCES],
    fast_squares: Block,
    products: [Block; 2],
    maxima: [Block; 2],
}

static TABLE: [Table; LEVELS] = {
    macro_rules! row {
        ($level:ident) => {
            Table {
                plain: [
                    $level::sum::<f32, false>,
                    $level::sum::<f64, false>,
                    $level::sum::<f16, false>,
                    $level::sum::<bf16, false>,
                    $level::sum::<Rounded, false>,
                ],
                squares: [
                    $level::sum::<f32, true>,
                    $level::sum::<f64, true>,
                    $level::sum::<f16, true>,
                    $level::sum::<bf16, true>,
                    $level::sum::<Rounded, true>,
                ],
                block_squares: [
                    $level::block_squares::<f32>,
                    $level::block_squares::<f64>,
                    $level::block_squares::<f16>,
                    $level::block_squares::<bf16>,
                    $level::block_squares::<Rounded>,
                ],
                fast_squares: $level::fast_squares,
                products: [$level::products::<f32>, $level::products::<f64>],
                maxima: [$level::maximum::<f32>, $level::maximum::<f64>],
            }
        };
    }
    cpu::rows!(row)
};

/// Reduces a block of `n` numbers of type `dtype` with the compute type `compute`.
///
/// # Safety
/// As for [`Block`].
pub(crate) unsafe fn block(
    level: Level,
    form: Form,
    (dtype, compute): (Dtype, Dtype),
    (left, right): (*const u8, *const u8),
    n: usize,
) -> f64 {
    let (table, source) = (&TABLE[level as usize], source(dtype, compute));
    let run = match form {
        Form::FastSquare if source == Dtype::F32 as usize => table.fast_squares,
        Form::Plain | Form::Square | Form::FastSquare => {
            let mut sum = 0.0;
            // SAFETY: upheld by the caller.
            unsafe { rows(level, form, (dtype, compute), &raw mut sum, left, Rows::one(n)) };
            return sum;
        }
        Form::Product => table.products[compute as usize],
        Form::Max => table.maxima[compute as usize],
    };
    // SAFETY: upheld by the caller.
    unsafe { run(left, right, n) }
}

/// Adds the sum of each row to its own float64: of the numbers, or of their squares. One call for many rows: a call for each
/// would take as long as reading a few hundred elements.
///
/// # Safety
/// As for [`RowSums`].
pub(crate) unsafe fn rows(
    level: Level,
    form: Form,
    (dtype, compute): (Dtype, Dtype),
    sums: *mut f64,
    data: *const u8,
    rows: Rows,
) {
    let (table, source) = (&TABLE[level as usize], source(dtype, compute));
    let run = if form == Form::Plain { table.plain[source] } else { table.squares[source] };
    // SAFETY: upheld by the caller.
    unsafe { run(sums, data, rows) }
}

/// Writes the sum of squares of each of some blocks of at most [`BLOCK`] elements, which follow each other in memory.
///
/// # Safety
/// As for [`BlockSquares`].
pub(crate) unsafe fn block_squares(
    level: Level,
    (dtype, compute): (Dtype, Dtype),
    sums: *mut f64,
    data: *const u8,
    lens: &[u16],
) {
    // SAFETY: upheld by the caller.
    unsafe { TABLE[level as usize].block_squares[source(dtype, compute)](sums, data, lens) }
}

/// The index among the [`SOURCES`].
fn source(dtype: Dtype, compute: Dtype) -> usize {
    if (dtype, compute) == (Dtype::F64, Dtype::F32) { 4 } else { dtype as usize }
}

/// Combines two partial results.
pub(crate) fn combine(form: Form, a: f64, b: f64) -> f64 {
    if form == Form::Max { super::max(a, b) } else { a + b }
}

/// The result of a reduction over no elements.
pub(crate) fn neutral(form: Form) -> f64 {
    if form == Form::Max { f64::NEG_INFINITY } else { 0.0 }
}

cpu::each! {
    /// # Safety
    /// As for [`RowSums`].
    pub(super) unsafe fn sum<G: Storage, const SQUARES: bool>(
        sums: *mut f64, data: *const u8, rows: Rows,
    ) {
        // Behind a row comes the next one, or what another thread may write.
        let readable = if rows.stride == rows.cols { rows.count * rows.cols } else { 0 };
        for row in 0..rows.count {
            for at in (0..rows.cols).step_by(BLOCK) {
                let (start, n) = (row * rows.stride + at, BLOCK.min(rows.cols - at));
                let ends = start + n.next_multiple_of(LANES) > readable;
                // SAFETY: upheld by the caller.
                unsafe {
                    let block = data.cast::<G>().add(start);
                    *sums.add(row) += add::<G, OwnLanes>(block, n, ends, plus_loaded::<G, OwnLanes, SQUARES, FMA>);
                }
            }
        }
    }

    /// # Safety
    /// As for [`BlockSquares`].
    pub(super) unsafe fn block_squares<G: Storage>(sums: *mut f64, data: *const u8, lens: &[u16]) {
        let mut data = data.cast::<G>();
        let mut left: usize = lens.iter().map(|&n| usize::from(n)).sum();
        for (i, &n) in lens.iter().enumerate() {
            let n = usize::from(n);
            let ends = n.next_multiple_of(LANES) > left;
            // SAFETY: upheld by the caller; behind a block are those that follow it.
            unsafe {
                *sums.add(i) = add::<G, OwnLanes>(data, n, ends, plus_loaded::<G, OwnLanes, true, FMA>);
                data = data.add(n);
            }
            left -= n;
        }
    }

    /// # Safety
    /// As for [`Block`].
    pub(super) unsafe fn products<C: Storage<Compute = C> + Real>(
        left: *const u8, right: *const u8, n: usize,
    ) -> f64 {
        // SAFETY: upheld by the caller.
        unsafe {
            let (left, right, fused) = (left.cast::<C>(), right.cast::<C>(), FMA && C::SQUARES_EXACTLY);
            let mut lanes = OwnLanes::new([0.0; LANES]);
            let whole = n / LANES * LANES;
            for at in (0..whole).step_by(LANES) {
                lanes = lanes.plus_product(load(left.add(at)), load(right.add(at)), fused);
            }
            if whole < n {
                let rest = |data: *const C| load(first(data.add(whole), n - whole).as_ptr());
                lanes = lanes.plus_product(rest(left), rest(right), fused);
            }
            fold(lanes.numbers())
        }
    }

    /// # Safety
    /// As for [`Block`].
    pub(super) unsafe fn maximum<C: Real>(left: *const u8, _: *const u8, n: usize) -> f64 {
        // SAFETY: upheld by the caller.
        let values = unsafe { std::slice::from_raw_parts(left.cast::<C>(), n) };
        let mut lanes = [C::from_f64(f64::NEG_INFINITY); LANES];
        let (rows, rest) = values.as_chunks::<LANES>();
        for row in rows {
            for lane in 0..LANES {
                lanes[lane] = super::super::max(lanes[lane], row[lane]);
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(rest) {
            *lane = super::super::max(*lane, x);
        }
        largest(lanes)
    }

    /// # Safety
    /// As for [`Block`], of float32.
    pub(super) unsafe fn fast_squares(left: *const u8, _: *const u8, n: usize) -> f64 {
        // SAFETY: upheld by the caller.
        let values = unsafe { std::slice::from_raw_parts(left.cast::<f32>(), n) };
        let mut lanes = [0.0f32; LANES];
        let (rows, rest) = values.as_chunks::<LANES>();
        for row in rows {
            for lane in 0..LANES {
                lanes[lane] += row[lane] * row[lane];
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane += x * x;
        }
        let total = fold(lanes.map(f64::from));
        if is_accurate(total) {
            return total;
        }
        let mut accurate = 0.0;
        // SAFETY: upheld by the caller.
        unsafe { sum::<f32, true>(&raw mut accurate, left, Rows::one(n)) };
        accurate
    }
}

/// Whether float32 lanes neither overflowed nor lost small numbers; else a sum of squares is taken again in float64.
pub(crate) fn is_accurate(total: f64) -> bool {
    const SMALLEST: f64 = 1.0 / (1u128 << 100) as f64;
    (SMALLEST..f64::INFINITY).contains(&total)
}
