//! A step over some rows of arrays, as embedding tables need it: only these rows and their states are read and written.
//!
//! A rule of one pass runs in place, row by row. A rule that works on rows in several stages runs over copies of the rows.
//! Knows no optimizer and no binding.

use std::cell::UnsafeCell;
use std::collections::TryReserveError;

use super::array::Array;
use super::driver::Step;
use super::matrix::Matrix;
use super::partition::{Chunk, Extent, cut};
use super::pool;
use super::shards::add;
use super::tiles::{Call, TILE, with_tail_tiles};
use super::work_list::WorkList;
use crate::cpu::Level;
use crate::kernel::{MAX_STREAMS, Tail};
use crate::memory::try_collect;
use crate::numeric::{CopiedRows, Dtype, RandomBits, Rounding, Squares, StateFormat, convert, fpenv};
use crate::rule::{Kind, Scope};

/// Rows that one task copies.
const RANGE: usize = 256;

/// The gradients of some rows of an array.
#[derive(Debug)]
pub struct RowGradients {
    /// The array's index in the work list.
    pub array: usize,
    /// The row of each, in any order; a row that occurs several times gets the sum.
    pub indices: Vec<usize>,
    /// Elements of a row.
    pub width: usize,
    /// One row for each index, one behind the other.
    pub values: *const u8,
    /// The type of these.
    pub dtype: Dtype,
}

// SAFETY: the pointer is only dereferenced in functions whose callers guarantee its validity.
unsafe impl Sync for RowGradients {}
// SAFETY: as above.
unsafe impl Send for RowGradients {}

/// The rows of an array that a step changes, each once and in order, and the sums of their gradients in the compute type.
#[derive(Debug)]
pub(super) struct Rows {
    array: usize,
    copied: CopiedRows,
    sums: Uninitialized,
    compute: Dtype,
    /// Whether a step over the whole array prefetches.
    prefetches: bool,
}

/// Memory that is written before it is read.
#[derive(Debug)]
struct Uninitialized(Vec<UnsafeCell<u64>>);

// SAFETY: writers guarantee that nobody else uses the same bytes at the same time.
unsafe impl Sync for Uninitialized {}

impl Uninitialized {
    fn new(bytes: usize) -> Result<Uninitialized, TryReserveError> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(bytes.div_ceil(8))?;
        Ok(Uninitialized(memory))
    }

    fn at(&self, byte: usize) -> *mut u8 {
        UnsafeCell::raw_get(self.0.as_ptr()).cast::<u8>().wrapping_add(byte)
    }
}

/// A copy of some rows of a table: of a parameter, or of a state.
#[derive(Debug)]
struct Copied {
    /// Which of the arrays they belong to.
    place: usize,
    table: *mut u8,
    /// Bytes of a row.
    bytes: usize,
    copy: Uninitialized,
}

// SAFETY: the pointer is only dereferenced in functions whose callers guarantee its validity.
unsafe impl Send for Copied {}
// SAFETY: as above.
unsafe impl Sync for Copied {}

/// A step over some rows of some arrays of a work list, with all memory that it needs.
#[derive(Debug, Default)]
pub struct RowStep {
    /// The rows, and the sums of their gradients as arrays of their own, with copies of the rows where a rule needs them.
    compact: WorkList,
    copied: Vec<Copied>,
    extents: Vec<Extent>,
    chunks: Vec<Chunk>,
}

impl Rows {
    /// # Safety
    /// As for [`WorkList::over_rows`].
    unsafe fn new(given: &RowGradients, compute: Dtype, level: Level, threads: usize) -> Result<Rows, TryReserveError> {
        // A row's gradients are added in the order in which they were given.
        let keys = given.indices.iter().enumerate().map(|(at, &row)| ((row as u128) << 64) | at as u128);
        let mut keys = try_collect(keys)?;
        keys.sort_unstable();
        let row_of = |key: u128| (key >> 64) as usize;
        let (mut rows, mut starts) = (Vec::new(), Vec::new());
        rows.try_reserve_exact(keys.len())?;
        starts.try_reserve_exact(keys.len() + 1)?;
        for (at, &key) in keys.iter().enumerate() {
            if rows.last() != Some(&row_of(key)) {
                rows.push(row_of(key));
                starts.push(at);
            }
        }
        starts.push(keys.len());
        let (size, width) = (compute.size(), given.width);
        let sums = Uninitialized::new(rows.len() * width * size)?;
        let (from, into) = (given, &sums);
        pool::in_parallel(rows.len().div_ceil(RANGE), keys.len() * width, threads, &|range| {
            fpenv::standard(|| {
                for place in range * RANGE..rows.len().min((range + 1) * RANGE) {
                    for (k, &key) in keys[starts[place]..starts[place + 1]].iter().enumerate() {
                        let source = from.values.wrapping_add(key as u64 as usize * width * from.dtype.size());
                        // SAFETY: upheld by the caller; the row's sum is this task's own.
                        unsafe {
                            add_row(level, (from.dtype, source), (compute, into.at(place * width * size)), width, k > 0)
                        };
                    }
                }
            });
        });
        let copied = CopiedRows { rows, width };
        Ok(Rows { array: given.array, copied, sums, compute, prefetches: false })
    }

    /// Elements of all rows.
    fn len(&self) -> usize {
        self.copied.rows.len() * self.copied.width
    }

    /// The random bits that a step over the whole array has for these rows.
    pub fn random_bits<'a>(&'a self, rounding: &'a Rounding) -> Option<RandomBits<'a>> {
        Some(rounding.of_array(self.array)?.of_rows(&self.copied))
    }
}

/// Converts `n` numbers to the compute type, and adds them or begins a sum with them.
///
/// # Safety
/// The source must be valid for `n` numbers and the sum for as many of the compute type; the CPU must support the level.
unsafe fn add_row(level: Level, (from, source): (Dtype, *const u8), (to, sum): (Dtype, *mut u8), n: usize, adds: bool) {
    if !adds {
        // SAFETY: upheld by the caller.
        unsafe { convert::load(level, (from, source), (to, sum), n) };
        return;
    }
    with_tail_tiles(&mut |tiles| {
        for at in (0..n).step_by(TILE) {
            let (n, tile) = (TILE.min(n - at), tiles[0].pointer());
            let sum = sum.wrapping_add(at * to.size());
            // SAFETY: upheld by the caller; a tile holds this many numbers.
            unsafe {
                convert::load(level, (from, source.wrapping_add(at * from.size())), (to, tile), n);
                match to {
                    Dtype::F64 => add::<f64>(sum, tile, n),
                    _ => add::<f32>(sum, tile, n),
                }
            }
        }
    });
}

impl WorkList {
    /// Whether a step can change some rows of an array alone: slices along its first axis, of which there are `rows`.
    pub fn takes_rows(&self, i: usize, rows: usize) -> bool {
        let item = &self.items[i];
        let rule = item.compiled.rule;
        let stages = rule.program("step").map_or(&[][..], |program| program.stages);
        let by_row = stages.iter().all(|stage| {
            let kind = matches!(stage.kind, Kind::Pass(_) | Kind::Vector { scope: Scope::Row, .. });
            kind && stage.reductions.iter().all(|reduction| reduction.scope == Scope::Row)
        });
        let states = rule.states.iter().all(|state| matches!(state.scope, Scope::Element | Scope::Row));
        let matrix = item.matrix().is_none_or(|matrix| {
            (matrix.batch, matrix.rows, matrix.transposed, matrix.interleaved) == (1, rows, false, 1)
        });
        by_row && states && matrix && item.format != StateFormat::Int8 && item.part == (0..item.len)
    }

    /// Prepares a step over some rows of these arrays, each of which is there once and [takes rows](WorkList::takes_rows): adds
    /// the gradients of each row, in the order in which they were given.
    ///
    /// # Errors
    /// There is no memory; nothing has changed.
    ///
    /// # Safety
    /// Values must be valid for a row for each index, and each index must be that of a row; the CPU must support the level.
    pub unsafe fn over_rows(
        &self,
        given: &[RowGradients],
        level: Level,
        threads: usize,
    ) -> Result<RowStep, TryReserveError> {
        let mut step = RowStep::default();
        let mut arrays = Vec::new();
        arrays.try_reserve_exact(given.len())?;
        step.compact.rows.try_reserve_exact(given.len())?;
        step.extents.try_reserve_exact(given.len())?;
        for (place, one) in given.iter().enumerate() {
            let compute = self.items[one.array].param_type.compute();
            // SAFETY: upheld by the caller.
            let rows = unsafe { Rows::new(one, compute, level, threads)? };
            arrays.push(self.compact(place, &rows, &mut step.copied)?);
            let units = if self.runs_in_place(one.array) { rows.copied.rows.len() } else { 0 };
            step.extents.push(Extent { unit: rows.copied.width.max(1), first: 0, units, whole: false });
            step.compact.rows.push(rows);
        }
        step.compact.extend(arrays)?;
        step.chunks = cut(&step.extents, step.len())?;
        Ok(step)
    }

    /// Whether a rule runs over rows where they are.
    fn runs_in_place(&self, i: usize) -> bool {
        self.plans[self.items[i].plan].plain && !self.items[i].has_scalars()
    }

    /// The rows of an array as an array of its own.
    fn compact(&self, place: usize, rows: &Rows, copied: &mut Vec<Copied>) -> Result<Array, TryReserveError> {
        let item = &self.items[rows.array];
        let (rule, compute, width) = (item.compiled.rule, item.param_type.compute(), rows.copied.width);
        let mut array = Array::new(item.compiled, item.group, std::ptr::null_mut(), item.param_type, rows.len());
        (array.grad_type, array.grad, array.format) = (compute, rows.sums.at(0), item.format);
        array.matrix = item.matrix().map(|matrix| Matrix { rows: rows.copied.rows.len(), cols: width, ..matrix });
        if self.runs_in_place(rows.array) {
            return Ok(array);
        }
        let mut copy = |table: *mut u8, bytes: usize| -> Result<*mut u8, TryReserveError> {
            copied.try_reserve(1)?;
            let copy = Uninitialized::new(rows.copied.rows.len() * bytes)?;
            let at = copy.at(0);
            copied.push(Copied { place, table, bytes, copy });
            Ok(at)
        };
        let streams = &self.streams[item.streams..];
        array.param = copy(streams[0], width * item.param_type.size())?;
        if let Some((dtype, rounded)) = item.rounded {
            array.rounded = Some((dtype, copy(rounded, width * dtype.size())?));
        }
        for (k, (state, described)) in rule.streams().enumerate() {
            array.states[state] = copy(streams[2 + k], width * item.state_size(described.exact))?;
        }
        for (k, (state, _)) in rule.states_of(Scope::Row).enumerate() {
            array.states[state] = copy(self.vector(rows.array, Scope::Row, k), compute.size())?;
        }
        Ok(array)
    }

    /// Takes the step over rows. The work list has the same arrays as when it was prepared.
    ///
    /// # Safety
    /// As for [`WorkList::run`], of the rows that the step changes.
    pub unsafe fn run_rows(&mut self, rows: &mut RowStep, step: &mut Step<'_>) {
        for own in &mut rows.compact.rows {
            let item = &mut self.items[own.array];
            item.grad_type = own.compute;
            // What lies behind a row is not needed next.
            own.prefetches = std::mem::replace(&mut item.prefetches, false);
        }
        // SAFETY: upheld by the caller.
        unsafe { self.run_in_place(rows, step) };
        rows.compact.rows.iter().for_each(|own| self.items[own.array].prefetches = own.prefetches);
        if rows.copied.is_empty() {
            return;
        }
        for place in 0..rows.compact.rows.len() {
            if self.runs_in_place(rows.compact.rows[place].array) {
                rows.compact.set_absent(place);
            }
        }
        // SAFETY: upheld by the caller, as each row is there once.
        unsafe {
            rows.copy(step.threads, true);
            rows.compact.run("step", step);
            rows.copy(step.threads, false);
        }
    }

    /// # Safety
    /// As for [`WorkList::run_rows`].
    unsafe fn run_in_place(&self, rows: &RowStep, step: &Step<'_>) {
        pool::in_parallel(rows.chunks.len(), rows.len(), step.threads, &|chunk| {
            let part = |place: usize, units: std::ops::Range<usize>| {
                let own = &rows.compact.rows[place];
                let item = &self.items[own.array];
                let Kind::Pass(pass) = &item.compiled.rule.programs[0].stages[0].kind else { return };
                let bits = step.rounding.of_array(own.array);
                let call = Call::new(step.level, &step.scalars[item.group], bits.as_ref(), false);
                let states = item.compiled.rule.streams().map(|(_, state)| item.state_size(state.exact));
                let mut sizes = [0; MAX_STREAMS];
                (sizes[0], sizes[1]) = (item.param_type.size(), own.compute.size());
                sizes[2..].iter_mut().zip(states).for_each(|(size, own)| *size = own);
                for unit in units {
                    let first = own.copied.rows[unit] * own.copied.width;
                    let mut streams = [std::ptr::null_mut(); MAX_STREAMS];
                    for k in 0..2 + item.states {
                        streams[k] = match k {
                            1 => own.sums.at(unit * own.copied.width * sizes[1]),
                            _ => self.streams[item.streams + k].wrapping_add(first * sizes[k]),
                        };
                    }
                    // SAFETY: upheld by the caller; each row is in one task.
                    unsafe {
                        item.call(streams.as_ptr(), pass, &Call { first, ..call }, (0, own.copied.width), Tail::NONE)
                    };
                }
            };
            fpenv::standard(|| rows.chunks[chunk].each(&rows.extents, part));
        });
    }
}

impl RowStep {
    /// Elements of all rows.
    pub fn len(&self) -> usize {
        self.compact.rows.iter().map(Rows::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the array of this index is among those of the step.
    pub fn has(&self, array: usize) -> bool {
        self.compact.rows.iter().any(|own| own.array == array)
    }

    /// The sum of squares of the rows' gradients; see [`WorkList::sum_of_squares`].
    ///
    /// # Safety
    /// The CPU must support the level.
    pub unsafe fn sum_of_squares(&mut self, level: Level, threads: usize) -> Squares {
        // SAFETY: the sums are this step's own.
        unsafe { self.compact.sum_of_squares(level, threads) }
    }

    /// The first of these gradients with a NaN or an infinity: array and flat index in it.
    pub fn first_nonfinite(&mut self) -> Option<(usize, usize)> {
        // SAFETY: the sums are this step's own.
        let (place, at) = unsafe { self.compact.first_nonfinite() }?;
        let own = &self.compact.rows[place];
        Some((own.array, own.copied.rows[at / own.copied.width] * own.copied.width + at % own.copied.width))
    }

    /// Copies rows from the tables, or back.
    ///
    /// # Safety
    /// As for [`WorkList::run_rows`].
    unsafe fn copy(&self, threads: usize, from_tables: bool) {
        for one in &self.copied {
            let (own, bytes) = (&self.compact.rows[one.place], one.bytes);
            let rows = &own.copied.rows;
            pool::in_parallel(rows.len().div_ceil(RANGE), own.len(), threads, &|range| {
                let range = range * RANGE..rows.len().min((range + 1) * RANGE);
                for (k, row) in range.clone().zip(&rows[range]) {
                    let (row, copy) = (one.table.wrapping_add(row * bytes), one.copy.at(k * bytes));
                    // SAFETY: upheld by the caller; the copy has as many rows.
                    unsafe {
                        match from_tables {
                            true => copy.copy_from_nonoverlapping(row, bytes),
                            false => row.copy_from_nonoverlapping(copy, bytes),
                        }
                    }
                }
            });
        }
    }
}
