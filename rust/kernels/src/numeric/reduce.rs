//! Sums and maxima in a fixed order. Knows no rule and no thread.
//!
//! An array is split into blocks of [`BLOCK`] elements from its start, or from the start of each row. Inside a block, sixteen
//! float64 lanes take every sixteenth element and are added in a fixed tree; blocks, then arrays, are added in order. So the
//! result does not depend on threads, chunks or CPU level.

use half::{bf16, f16};

use super::{Dtype, Real, Rounded, Storage};
use crate::cpu::{self, DISTANCE, LEVELS, Level, PREFETCH_BATCH, prefetch, prefetch_lines};

/// Elements of one partial sum.
pub(crate) const BLOCK: usize = 1024;
/// Lanes that a block's elements are assigned to in turn.
pub(crate) const LANES: usize = 16;

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
    /// A single one of `n` elements.
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

/// Accumulates each column's elements, in the order of the rows, into its own float64; the second pointer is for products.
/// Maxima take the larger.
///
/// # Safety
/// As for [`RowSums`], with a sum for each column; the second pointer must be valid if the form uses it.
type Columns = unsafe fn(sums: *mut f64, left: *const u8, right: *const u8, rows: Rows);

/// The storage types, then float64 that is rounded to float32.
const SOURCES: usize = 5;

struct Table {
    plain: [RowSums; SOURCES],
    squares: [RowSums; SOURCES],
    block_squares: [BlockSquares; SOURCES],
    fast_squares: Block,
    products: [Block; 2],
    maxima: [Block; 2],
    columns: [[Columns; 4]; 2],
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
                columns: [
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
                ],
            }
        };
    }
    cpu::rows!(row)
};

/// A sum of squares of numbers that were divided by `unit` first, so that their norm is `sqrt(sum) * unit`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Squares {
    /// The sum.
    pub sum: f64,
    /// A power of two; not 1 only where the squares of float64 numbers overflow or vanish.
    pub unit: f64,
}

/// The units for numbers whose squares overflow, and for those whose squares vanish.
pub(crate) const UNITS: [f64; 2] = [f64::from_bits((1023 + 600) << 52), f64::from_bits((1023 - 600) << 52)];
/// Squares that vanish do not count in a sum of squares that is larger.
pub(crate) const SMALLEST_SUM: f64 = f64::from_bits((1023 - 900) << 52);

impl Squares {
    /// The sum of both.
    pub fn plus(self, other: Squares) -> Squares {
        match (self.sum, other.sum) {
            (0.0, _) => other,
            (_, 0.0) => self,
            _ => {
                let unit = self.unit.max(other.unit);
                let of = |own: Squares| own.sum * (own.unit / unit) * (own.unit / unit);
                Squares { sum: of(self) + of(other), unit }
            }
        }
    }

    /// The unit that the sum must be computed in instead, if any.
    pub(crate) fn better_unit(self) -> Option<f64> {
        match self.sum {
            f64::INFINITY => Some(UNITS[0]),
            sum if sum < SMALLEST_SUM => Some(UNITS[1]),
            _ => None,
        }
    }
}

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
    unsafe { TABLE[level as usize].columns[compute as usize][form](sums, left, right, rows) }
}

/// Combines two partial results.
pub(crate) fn combine(form: Form, a: f64, b: f64) -> f64 {
    if form == Form::Max { super::max(a, b) } else { a + b }
}

/// The result of a reduction over no elements.
pub(crate) fn neutral(form: Form) -> f64 {
    if form == Form::Max { f64::NEG_INFINITY } else { 0.0 }
}

/// The index of the first NaN or infinity in gradients with the compute type `compute`, if any.
///
/// # Safety
/// `data` must be valid for `n` aligned elements of the type.
pub(crate) unsafe fn first_nonfinite(dtype: Dtype, compute: Dtype, data: *const u8, n: usize) -> Option<usize> {
    /// # Safety
    /// As for `first_nonfinite`, with the type as a parameter.
    unsafe fn scan<G: Storage>(data: *const u8, n: usize) -> Option<usize> {
        // SAFETY: upheld by the caller.
        let values = unsafe { std::slice::from_raw_parts(data.cast::<G>(), n) };
        values.iter().position(|x| !x.load().into().is_finite())
    }
    // The pointer of an empty array may be dangling.
    if n == 0 {
        return None;
    }
    // SAFETY: upheld by the caller.
    unsafe {
        match dtype {
            Dtype::F64 if compute == Dtype::F32 => scan::<Rounded>(data, n),
            Dtype::F32 => scan::<f32>(data, n),
            Dtype::F64 => scan::<f64>(data, n),
            Dtype::F16 => scan::<f16>(data, n),
            Dtype::Bf16 => scan::<bf16>(data, n),
        }
    }
}

cpu::each! {
    /// # Safety
    /// As for [`RowSums`].
    pub(super) unsafe fn sum<G: Storage, const SQUARES: bool>(
        sums: *mut f64, data: *const u8, rows: Rows,
    ) {
        for row in 0..rows.count {
            // SAFETY: upheld by the caller.
            let (values, sum) = unsafe {
                let start = data.cast::<G>().add(row * rows.stride);
                (std::slice::from_raw_parts(start, rows.cols), &mut *sums.add(row))
            };
            for block in values.chunks(BLOCK) {
                *sum += if SQUARES {
                    add(block, plus_square::<G, FMA>)
                } else {
                    add(block, |sum, g| sum + g.load().into())
                };
            }
        }
    }

    /// # Safety
    /// As for [`BlockSquares`].
    pub(super) unsafe fn block_squares<G: Storage>(sums: *mut f64, data: *const u8, lens: &[u16]) {
        let mut left = lens.iter().map(|&n| usize::from(n)).sum::<usize>();
        let mut data = data.cast::<G>();
        for (i, &n) in lens.iter().enumerate() {
            let n = usize::from(n);
            let readable = n.next_multiple_of(LANES).min(left);
            // SAFETY: upheld by the caller; behind a block are those that follow it.
            unsafe {
                let values = std::slice::from_raw_parts(data, readable);
                *sums.add(i) = match values.as_chunks::<LANES>() {
                    (rows, []) => add_rows_of(rows, n, plus_square::<G, FMA>),
                    _ => add(&values[..n], plus_square::<G, FMA>),
                };
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
        let (left, right) = unsafe {
            (std::slice::from_raw_parts(left.cast::<C>(), n), std::slice::from_raw_parts(right.cast::<C>(), n))
        };
        let mut lanes = [0.0; LANES];
        for (a, b) in left.chunks(LANES).zip(right.chunks(LANES)) {
            for (lane, (&a, &b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
                *lane = plus_product::<C, FMA>(*lane, a, b);
            }
        }
        fold(lanes)
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

    /// # Safety
    /// As for [`Columns`].
    pub(super) unsafe fn columns<C: Real, const FORM: usize>(
        sums: *mut f64, left: *const u8, right: *const u8, rows: Rows,
    ) {
        let plus = |sum: f64, x: C| match FORM {
            0 => sum + x.into(),
            1 => plus_product::<C, FMA>(sum, x, x),
            _ => super::super::max(sum, x.into()),
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

/// Whether float32 lanes neither overflowed nor lost small numbers; else a sum of squares is taken again in float64.
pub(crate) fn is_accurate(total: f64) -> bool {
    const SMALLEST: f64 = 1.0 / (1u128 << 100) as f64;
    (SMALLEST..f64::INFINITY).contains(&total)
}

/// A sum plus a product; if the product is exact, both forms round once to the same number.
#[inline(always)]
pub(crate) fn plus_product<C: Real, const FMA: bool>(sum: f64, a: C, b: C) -> f64 {
    let (a, b) = (a.into(), b.into());
    if FMA && C::SQUARES_EXACTLY { a.mul_add(b, sum) } else { sum + a * b }
}

/// A sum plus the square of a number in memory.
#[inline(always)]
fn plus_square<G: Storage, const FMA: bool>(sum: f64, g: &G) -> f64 {
    let x = g.load().into();
    // If the square is exact, both round once, to the same number.
    if FMA && <G::Compute as Real>::SQUARES_EXACTLY { x.mul_add(x, sum) } else { sum + x * x }
}

/// Adds a block's elements into the lanes in turn.
#[inline(always)]
fn add<G>(values: &[G], plus: impl Fn(f64, &G) -> f64) -> f64 {
    let (rows, rest) = values.as_chunks::<LANES>();
    let mut lanes = add_whole(rows, &plus);
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = plus(*lane, x);
    }
    fold(lanes)
}

/// The same for the first `n` elements of these rows, which may end within the last row: a loop of fixed length with a mask is
/// quicker than one over the elements that are left.
#[inline(always)]
fn add_rows_of<G>(rows: &[[G; LANES]], n: usize, plus: impl Fn(f64, &G) -> f64) -> f64 {
    let (whole, rest) = rows.split_at(n / LANES);
    let mut lanes = add_whole(whole, &plus);
    if let [row] = rest {
        for lane in 0..LANES {
            let more = plus(lanes[lane], &row[lane]);
            lanes[lane] = if lane < n % LANES { more } else { lanes[lane] };
        }
    }
    fold(lanes)
}

/// Adds whole rows into the lanes. Sums wait for memory, since they write nothing and too few reads are in flight: data one
/// block ahead is prefetched.
#[inline(always)]
fn add_whole<G>(rows: &[[G; LANES]], plus: &impl Fn(f64, &G) -> f64) -> [f64; LANES] {
    let mut lanes = [0.0; LANES];
    let ahead = rows.as_ptr().cast::<G>().wrapping_add(BLOCK);
    for (i, row) in rows.iter().enumerate() {
        prefetch(ahead.wrapping_add(i * LANES));
        for lane in 0..LANES {
            lanes[lane] = plus(lanes[lane], &row[lane]);
        }
    }
    lanes
}

/// The sum of a block's lanes, in a fixed tree.
#[inline(always)]
pub(crate) fn fold(lanes: [f64; LANES]) -> f64 {
    tree(lanes, |a, b| a + b)
}

/// The largest of a block's lanes, or NaN; lanes that have no element are minus infinity.
#[inline(always)]
pub(crate) fn largest<C: Real>(lanes: [C; LANES]) -> f64 {
    tree(lanes, super::max).into()
}

/// Combines lanes in a fixed tree.
#[inline(always)]
fn tree<T: Copy>(mut lanes: [T; LANES], combine: impl Fn(T, T) -> T) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = combine(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}
