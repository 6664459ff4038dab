//! One array of a step, and the update of a part of it: directly, or tile by tile where a gradient has to be converted,
//! centered, zeroed or overwritten on the way.

use std::mem::MaybeUninit;
use std::slice::from_raw_parts;

use crate::kernel::{self, Streams, fetch};
use crate::level::Level;
use crate::math::Real;
use crate::norm;
use crate::numbers::Means;
use crate::rule::{Layer, MAX_STATES, Rule, Scalars};
use crate::small::{self, CODED, Form, Rounding, SCALES_ALIGN, SmallState, StateType};
use crate::storage::{Dtype, convert};

/// Elements that are converted or zeroed at a time: what stays in the first-level cache. A block of [`norm::BLOCK`] is a
/// tile.
const TILE: usize = norm::BLOCK;

/// Elements that are centered at a time: memory is not idle for long while they are.
const CENTERED: usize = TILE / 4;

/// Memory of one tile, for elements of any type. It is not cleared: a tile is filled before it is read.
struct Tile(MaybeUninit<[f64; TILE]>);

impl Tile {
    const fn new() -> Tile {
        Tile(MaybeUninit::uninit())
    }

    fn pointer(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }

    /// The first `n` elements, at most `TILE`, as compute type.
    ///
    /// # Safety
    /// They must have been written.
    unsafe fn values<C: Real>(&mut self, n: usize) -> &mut [C] {
        // SAFETY: the memory holds TILE elements of eight bytes, is aligned for them, and was written.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), n) }
    }
}

/// Rows of a gradient whose means are taken off it: all axes but the first make a row.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Number of rows: the length of the first axis.
    pub count: usize,
    /// Whether neighbouring elements belong to neighbouring rows (Fortran order), not to one row (C order).
    pub strided: bool,
}

/// What happens to a gradient's memory once it has been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    Keep,
    /// It is set to zero.
    Zero,
    /// It takes the new parameter, which must have the same type.
    Copy,
}

/// One array of a step: its rule, its group, and where its numbers lie.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// What updates it.
    pub rule: &'static Rule,
    /// Which entry of the step's scalars is its own.
    pub group: usize,
    /// Elements.
    pub len: usize,
    /// The parameter's type; its state has the compute type of it, if `form` says no other.
    pub param_type: Dtype,
    /// The parameter.
    pub param: *mut u8,
    /// Its state, as many pointers as the rule has states.
    pub states: [*mut u8; MAX_STATES],
    /// The gradient's type.
    pub grad_type: Dtype,
    /// The gradient; written to only when a step says so. Not looked at by rules that read none.
    pub grad: *mut u8,
    /// Rows to center the gradient by; their means are found before the update.
    pub center: Option<Rows>,
    /// What it keeps in another way than plainly.
    pub form: Form,
}

impl Segment {
    /// Elements `at..at + n` as a segment of their own, without centering.
    fn part(&self, at: usize, n: usize) -> Segment {
        let Streams { param, states, .. } = self.streams(at, Rounding::NEAREST);
        let grad = self.grad.wrapping_add(at * self.grad_type.size());
        Segment { len: n, center: None, param, grad, states, ..*self }
    }

    /// What a kernel needs to start at an element; `rounding` is that of the first.
    #[inline(always)]
    fn streams(&self, at: usize, rounding: Rounding) -> Streams {
        let size = self.form.states.size(self.param_type.compute());
        Streams {
            param: self.param.wrapping_add(at * self.param_type.size()),
            grad: self.grad.wrapping_add(at * self.grad_type.size()),
            // Those that the rule has not as well: a loop over the others costs more than the kernel's start.
            states: self.states.map(|state| state.wrapping_add(at * size)),
            rounding: rounding.ahead(at),
        }
    }

    /// The kernel for gradients of this type, if they need no conversion.
    fn kernel(&self, level: Level, grad: Dtype, rounding: Rounding) -> Option<kernel::Kernel> {
        let states = if self.rule.states.is_empty() { StateType::Compute } else { self.form.states };
        kernel::find(&self.rule.kernels, level, self.param_type, grad, (states, rounding.nearest))
    }

    /// Updates elements `start..end`. `means` are those of the rows, where the gradient is centered.
    ///
    /// # Safety
    /// The pointers must be valid and aligned for the length and types, for writing where the rule or `after` writes;
    /// what is written may overlap nothing else that is used, except that a gradient which goes through a tile may be
    /// the parameter itself. The CPU must have the level.
    pub(crate) unsafe fn update(
        &self,
        (start, end): (usize, usize),
        level: Level,
        scalars: &Scalars,
        means: Means<'_>,
        after: After,
        rounding: Rounding,
    ) {
        let direct = self.kernel(level, self.grad_type, rounding);
        if let (Some(kernel), After::Keep, None, None) = (direct, after, self.center, self.form.rounded) {
            // SAFETY: the caller's promise.
            unsafe { kernel(&self.streams(start, rounding), end - start, scalars) };
            return;
        }
        // SAFETY: the caller's promise, passed on.
        unsafe {
            if let Some(through) = self.kernel(level, self.param_type.compute(), rounding) {
                self.update_by_tiles((start, end), level, scalars, means, after, rounding, direct, through);
            } else {
                for at in (start..end).step_by(TILE) {
                    let n = TILE.min(end - at);
                    self.with_wide_states(at, n, level, rounding, |plain| {
                        plain.update((at, at + n), level, scalars, means, after, rounding);
                    });
                }
            }
        }
    }

    /// Runs `f` over a tile of an array whose states no kernel takes as they are: they are loaded into tiles, and kept again
    /// behind it.
    ///
    /// # Safety
    /// The states must be valid for the `n` elements from `at`; the CPU must have the level.
    #[cold]
    #[inline(never)]
    unsafe fn with_wide_states<T>(
        &self,
        at: usize,
        n: usize,
        level: Level,
        rounding: Rounding,
        f: impl FnOnce(&Segment) -> T,
    ) -> T {
        let compute = self.param_type.compute();
        let mut wide = [const { Tile::new() }; MAX_STATES];
        let mut narrow = Tile::new();
        let mut plain = Segment { form: Form { states: StateType::Compute, ..self.form }, ..*self };
        let states = self.rule.states.iter().enumerate().map(|(k, name)| self.small_state(k, name, at));
        for (state, tile) in states.clone().zip(&mut wide) {
            // SAFETY: the caller's promise; a tile holds `n` elements of any type.
            unsafe {
                if compute == Dtype::F64 {
                    state.load(level, narrow.pointer().cast(), n);
                    convert(Dtype::F32, narrow.pointer(), compute, tile.pointer(), n);
                } else {
                    state.load(level, tile.pointer().cast(), n);
                }
            }
            // It starts as far before itself as the elements do behind the array's start.
            plain.states[state.number] = tile.pointer().wrapping_sub(at * compute.size());
        }
        let result = f(&plain);
        for (state, tile) in states.zip(&mut wide) {
            // SAFETY: as above.
            unsafe {
                let values = if compute == Dtype::F64 {
                    convert(compute, tile.pointer(), Dtype::F32, narrow.pointer(), n);
                    narrow.pointer()
                } else {
                    tile.pointer()
                };
                state.keep(level, values.cast(), &rounding.ahead(at), n);
            }
        }
        result
    }

    /// State number `k` from an element that begins a tile.
    fn small_state<'a>(&self, k: usize, name: &'a str, at: usize) -> SmallState<'a> {
        let (kind, data) = (self.form.states, self.states[k]);
        let scales = data.wrapping_add(self.len.next_multiple_of(SCALES_ALIGN)).cast::<f32>();
        let (data, scales) = (data.wrapping_add(at * kind.size(Dtype::F32)), scales.wrapping_add(at / CODED));
        SmallState { kind, name, number: k, data, scales }
    }

    /// The update that needs more than a kernel. Apart, so that its tile is no burden to those that do not.
    ///
    /// # Safety
    /// As for [`Segment::update`].
    #[cold]
    #[inline(never)]
    #[allow(clippy::too_many_arguments)] // a step's parts, and the kernels that were found
    unsafe fn update_by_tiles(
        &self,
        (start, end): (usize, usize),
        level: Level,
        scalars: &Scalars,
        means: Means<'_>,
        after: After,
        rounding: Rounding,
        direct: Option<kernel::Kernel>,
        through: kernel::Kernel,
    ) {
        let compute = self.param_type.compute();
        let mut tile = Tile::new();
        let size = if self.center.is_some() { CENTERED } else { TILE };
        for at in (start..end).step_by(size) {
            let n = size.min(end - at);
            let part = self.part(at, n);
            let mut streams = part.streams(0, rounding.ahead(at));
            // SAFETY: the caller's promise, for `n` elements from `at`; the tile holds as many of any type.
            unsafe {
                if let Some(rows) = self.center {
                    let mut wide = Tile::new();
                    let source = if self.grad_type == compute {
                        part.grad
                    } else {
                        convert(self.grad_type, part.grad, compute, wide.pointer(), n);
                        wide.pointer()
                    };
                    let mut scalars = *scalars;
                    let factor = scalars[0].abs();
                    scalars[0] = scalars[0].signum();
                    let row = Row { rows, length: self.len / rows.count, at, means };
                    match compute {
                        Dtype::F64 => row.center(from_raw_parts(source.cast(), n), tile.values::<f64>(n), factor),
                        _ => row.center(from_raw_parts(source.cast(), n), tile.values::<f32>(n), factor as f32),
                    }
                    // The next tile's gradient comes while the kernel waits for parameter and states.
                    let next = part.grad.wrapping_add(n * self.grad_type.size());
                    (0..n * self.grad_type.size()).step_by(64).for_each(|line| fetch(next.wrapping_add(line)));
                    streams.grad = tile.pointer();
                    through(&streams, n, &scalars);
                } else if let Some(kernel) = direct {
                    kernel(&streams, n, scalars);
                } else {
                    convert(self.grad_type, part.grad, compute, tile.pointer(), n);
                    streams.grad = tile.pointer();
                    through(&streams, n, scalars);
                }
                if let Some((dtype, param)) = self.form.rounded {
                    small::round(level, streams.param.cast(), dtype, param.add(at * dtype.size()), n);
                }
                match after {
                    After::Keep => {}
                    After::Zero => part.grad.write_bytes(0, n * self.grad_type.size()),
                    After::Copy => part.grad.copy_from_nonoverlapping(part.param, n * self.grad_type.size()),
                }
            }
        }
    }

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

    /// Runs the first phase of a layerwise rule over a block from `at`; the sums of squares of parameter and direction.
    ///
    /// # Safety
    /// As for [`Segment::update`].
    pub(crate) unsafe fn measure(
        &self,
        layer: &Layer,
        at: usize,
        level: Level,
        scalars: &Scalars,
        rounding: Rounding,
    ) -> (f64, f64) {
        let (n, compute) = (norm::BLOCK.min(self.len - at), self.param_type.compute());
        let states = if (layer.direction)().states.is_empty() { StateType::Compute } else { self.form.states };
        let find = |grad| kernel::find(&layer.measures, level, self.param_type, grad, (states, rounding.nearest));
        let Some(through) = find(compute) else {
            // SAFETY: the caller's promise, for the block; so also for its states in tiles.
            return unsafe {
                self.with_wide_states(at, n, level, rounding, |plain| {
                    plain.measure(layer, at, level, scalars, rounding)
                })
            };
        };
        let part = self.part(at, n);
        let mut streams = part.streams(0, rounding.ahead(at));
        // SAFETY: the caller's promise, for the block; the tile holds as many elements of any type.
        unsafe {
            if let Some(kernel) = find(self.grad_type) {
                return kernel(&streams, n, scalars);
            }
            let mut tile = Tile::new();
            convert(self.grad_type, part.grad, compute, tile.pointer(), n);
            streams.grad = tile.pointer();
            through(&streams, n, scalars)
        }
    }
}

/// Where a part of a gradient begins among the rows that it is centered by.
struct Row<'a> {
    rows: Rows,
    /// Elements of a row.
    length: usize,
    /// The part's first element.
    at: usize,
    means: Means<'a>,
}

impl Row<'_> {
    /// Scales the part and takes the means of its rows off it.
    fn center<C: Real>(&self, part: &[C], out: &mut [C], factor: C) {
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
