//! One array of a step, and the update of a part of it: directly, or tile by tile where a gradient has to be converted,
//! centered, zeroed or overwritten on the way.

use std::slice::from_raw_parts;

use crate::fetch::fetch;
use crate::kernel::{self, Streams};
use crate::level::Level;
use crate::norm;
use crate::numbers::Means;
use crate::rows::{Row, Rows};
use crate::rule::{Layer, MAX_STATES, Rule, Scalars};
use crate::small::{self, Beside, Bits, Form, SmallState, StateType};
use crate::storage::{Dtype, convert};
use crate::tile::{TILE, Tile};

/// Elements that are centered at a time: memory is not idle for long while they are.
const CENTERED: usize = TILE / 4;

/// Elements of which states in less memory are converted at a time, for the same reason; whole blocks.
const WIDENED: usize = TILE / 2;

/// How an update is made, beside what the array itself says.
#[derive(Clone, Copy)]
pub(crate) struct How<'a> {
    /// The CPU level, which this machine must have.
    pub level: Level,
    /// The scalars of the array's group.
    pub scalars: &'a Scalars,
    /// The means of the rows, where the gradient is centered.
    pub means: Means<'a>,
    /// What happens to the gradient once it has been used.
    pub after: After,
    /// The random bits that states in less memory are rounded with.
    pub bits: Option<Bits<'a>>,
    /// Whether memory is asked for ahead.
    pub far: bool,
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
    /// What a kernel needs to start at an element.
    #[inline(always)]
    fn streams(&self, at: usize) -> Streams {
        let size = self.form.states.size(self.param_type.compute());
        Streams {
            param: self.param.wrapping_add(at * self.param_type.size()),
            grad: self.grad.wrapping_add(at * self.grad_type.size()),
            // Those that the rule has not as well: a loop over the others costs more than the kernel's start.
            states: self.states.map(|state| state.wrapping_add(at * size)),
        }
    }

    /// Bytes that an update goes through, with a gradient of the parameter's type.
    pub(crate) fn bytes(&self) -> usize {
        let state = self.form.states.size(self.param_type.compute());
        self.len * (2 * self.param_type.size() + self.rule.states.len() * state)
    }

    /// Whether its states are in less memory, which no kernel takes as they are.
    pub(crate) fn is_small(&self) -> bool {
        self.form.states != StateType::Compute && !self.rule.states.is_empty()
    }

    /// The kernel for gradients of this type, if they need no conversion.
    fn kernel(&self, level: Level, grad: Dtype) -> Option<kernel::Kernel> {
        kernel::find(&self.rule.kernels, level, self.param_type, grad)
    }

    /// Updates elements `start..end`.
    ///
    /// # Safety
    /// The pointers must be valid and aligned for the length and types, for writing where the rule or `after` writes;
    /// what is written may overlap nothing else that is used, except that a gradient which goes through a tile may be
    /// the parameter itself. The CPU must have the level.
    pub(crate) unsafe fn update(&self, (start, end): (usize, usize), how: &How<'_>) {
        // An array without elements may lie anywhere, also where none of its type can.
        if start == end {
            return;
        }
        let How { level, scalars, after, bits, far, .. } = *how;
        let Form { rounded, aside, .. } = self.form;
        let plain = after == After::Keep && self.center.is_none() && rounded.is_none();
        let table = match (aside.map(|aside| aside.parts().1), &self.rule.aside) {
            (None, _) => Some(&self.rule.kernels),
            (Some(what), Some((known, table))) if what == *known => Some(table),
            _ => None,
        };
        let kernel = table.filter(|_| plain).and_then(|table| match self.is_small() {
            true => self.small_kernel(table, level, bits.is_none()),
            false => kernel::find(table, level, self.param_type, self.grad_type),
        });
        // SAFETY: the caller's promise, passed on.
        unsafe {
            if let Some(kernel) = kernel {
                let streams = self.streams(start);
                if self.is_small() || aside.is_some() {
                    kernel(&streams, end - start, scalars, &Beside { far, ..self.beside(start, bits) });
                } else {
                    kernel(&streams, end - start, scalars, if far { &Beside::FAR } else { &Beside::NOTHING });
                }
                return;
            }
            if self.is_small() {
                for at in (start..end).step_by(WIDENED) {
                    let n = WIDENED.min(end - at);
                    self.with_wide_states(at, n, level, self.rule.writes_states.then_some(bits), |plain| {
                        plain.update((at, at + n), how);
                    });
                }
                return;
            }
        }
        let direct = self.kernel(level, self.grad_type);
        if let Some(through) = self.kernel(level, self.param_type.compute()) {
            // SAFETY: the caller's promise, passed on.
            unsafe { self.update_by_tiles((start, end), how, direct, through) };
        }
    }

    /// The kernel of a table that takes states in less memory as they are, if the types have one.
    fn small_kernel(&self, table: &kernel::Table, level: Level, nearest: bool) -> Option<kernel::Kernel> {
        kernel::find_small(table, level, (self.param_type, self.grad_type), self.form.states, nearest)
    }

    /// What a kernel needs beside the streams from `at`, which begins a block.
    fn beside<'a>(&self, at: usize, bits: Option<Bits<'a>>) -> Beside<'a> {
        let mut beside = Beside { bits, block: at / small::CODED, ..Beside::NOTHING };
        if let Some(aside) = self.form.aside {
            beside.aside = aside.parts().0.wrapping_add(at * self.param_type.size());
        }
        if self.form.states == StateType::Int8 {
            for k in 0..self.rule.states.len() {
                beside.scales[k] = self.small_state(k).scales(at);
            }
        }
        beside
    }

    /// State number `k`.
    fn small_state(&self, k: usize) -> SmallState {
        let signed = small::signed(self.rule.states)[k];
        SmallState { kind: self.form.states, signed, number: k, data: self.states[k], len: self.len }
    }

    /// Runs `f` over a tile of an array whose states no kernel takes as they are: they are loaded into tiles, and kept again
    /// behind it, with these random bits, if they are written at all.
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
        bits: Option<Option<Bits<'_>>>,
        f: impl FnOnce(&Segment) -> T,
    ) -> T {
        let compute = self.param_type.compute();
        let mut wide = [const { Tile::new() }; MAX_STATES];
        let mut narrow = Tile::new();
        let mut plain = Segment { form: Form { states: StateType::Compute, ..self.form }, ..*self };
        let small = (0..self.rule.states.len()).map(|k| self.small_state(k));
        for (state, tile) in small.clone().zip(&mut wide) {
            // SAFETY: the caller's promise; a tile holds `n` elements of any type.
            unsafe {
                if compute == Dtype::F64 {
                    state.load(level, narrow.pointer().cast(), (at, n));
                    convert(Dtype::F32, narrow.pointer(), compute, tile.pointer(), n);
                } else {
                    state.load(level, tile.pointer().cast(), (at, n));
                }
            }
            // It starts as far before itself as the elements do behind the array's start.
            plain.states[state.number] = tile.pointer().wrapping_sub(at * compute.size());
        }
        let result = f(&plain);
        let Some(bits) = bits else { return result };
        for (state, tile) in small.zip(&mut wide) {
            // SAFETY: as above.
            unsafe {
                let values = if compute == Dtype::F64 {
                    convert(compute, tile.pointer(), Dtype::F32, narrow.pointer(), n);
                    narrow.pointer()
                } else {
                    tile.pointer()
                };
                state.keep(level, values.cast(), (at, n), bits);
            }
        }
        result
    }

    /// The update that needs more than a kernel. Apart, so that its tile is no burden to those that do not.
    ///
    /// # Safety
    /// As for [`Segment::update`].
    #[cold]
    #[inline(never)]
    unsafe fn update_by_tiles(
        &self,
        (start, end): (usize, usize),
        how: &How<'_>,
        direct: Option<kernel::Kernel>,
        through: kernel::Kernel,
    ) {
        let How { level, scalars, means, after, .. } = *how;
        let compute = self.param_type.compute();
        let mut tile = Tile::new();
        let size = if self.center.is_some() { CENTERED } else { TILE };
        for at in (start..end).step_by(size) {
            let n = size.min(end - at);
            let mut streams = self.streams(at);
            let grad = streams.grad.cast_mut();
            // SAFETY: the caller's promise, for `n` elements from `at`; the tile holds as many of any type.
            unsafe {
                if let Some(aside) = self.form.aside {
                    let size = self.param_type.size();
                    aside.copy(streams.param, at * size, n * size);
                }
                if let Some(rows) = self.center {
                    let mut wide = Tile::new();
                    let source = if self.grad_type == compute {
                        grad
                    } else {
                        convert(self.grad_type, grad, compute, wide.pointer(), n);
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
                    let next = grad.wrapping_add(n * self.grad_type.size());
                    (0..n * self.grad_type.size()).step_by(64).for_each(|line| fetch(next.wrapping_add(line)));
                    streams.grad = tile.pointer();
                    through(&streams, n, &scalars, &Beside::NOTHING);
                } else if let Some(kernel) = direct {
                    kernel(&streams, n, scalars, &Beside::NOTHING);
                } else {
                    convert(self.grad_type, grad, compute, tile.pointer(), n);
                    streams.grad = tile.pointer();
                    through(&streams, n, scalars, &Beside::NOTHING);
                }
                if let Some((dtype, param)) = self.form.rounded {
                    small::round(level, streams.param.cast(), dtype, param.add(at * dtype.size()), n);
                }
                match after {
                    After::Keep => {}
                    After::Zero => grad.write_bytes(0, n * self.grad_type.size()),
                    After::Copy => grad.copy_from_nonoverlapping(streams.param, n * self.grad_type.size()),
                }
            }
        }
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
        bits: Option<Bits<'_>>,
    ) -> (f64, f64) {
        let (n, compute) = (norm::BLOCK.min(self.len - at), self.param_type.compute());
        if self.form.states != StateType::Compute && !(layer.direction)().states.is_empty() {
            // Codes pass through their kernels in pieces that are shorter than what is summed at once.
            let coded = self.form.states == StateType::Int8;
            let kernel = self.small_kernel(&layer.measures, level, bits.is_none()).filter(|_| !coded);
            if let Some(kernel) = kernel {
                // SAFETY: the caller's promise, for the block.
                return unsafe { kernel(&self.streams(at), n, scalars, &self.beside(at, bits)) };
            }
            // SAFETY: the caller's promise, for the block; so also for its states in tiles.
            return unsafe {
                self.with_wide_states(at, n, level, (layer.direction)().writes_states.then_some(bits), |plain| {
                    plain.measure(layer, at, level, scalars, bits)
                })
            };
        }
        let find = |grad| kernel::find(&layer.measures, level, self.param_type, grad);
        let mut streams = self.streams(at);
        // SAFETY: the caller's promise, for the block; the tile holds as many elements of any type.
        unsafe {
            if let Some(kernel) = find(self.grad_type) {
                return kernel(&streams, n, scalars, &Beside::NOTHING);
            }
            let mut tile = Tile::new();
            convert(self.grad_type, streams.grad, compute, tile.pointer(), n);
            streams.grad = tile.pointer();
            let through = find(compute).expect("a kernel for each compute type");
            through(&streams, n, scalars, &Beside::NOTHING)
        }
    }
}
