//! All arrays of an optimizer, where their data is, and how they are split into tasks. Runs no rule.

use std::collections::TryReserveError;
use std::ops::Range;

use super::array::Array;
use super::matrix::{Cells, Matrix};
use super::partition::{Chunk, Extent, cut};
use super::peers::Peers;
use super::plan::{Plan, plans};
use super::pool;
use super::reductions::{by_cells, fold, stage_places};
use super::scratch::Scratch;
use super::tiles::with_tail_tiles;
use crate::cpu::Level;
use crate::kernel::{CompiledRule, MAX_STREAMS};
use crate::memory::{try_box, zeros};
use crate::numeric::reduce::{self, BLOCK, Form, Rows, Squares};
use crate::numeric::{Dtype, StateFormat, fpenv};
use crate::rule::{Kind, Rule, Scope, Stage};

/// The longest array that one task takes through all its stages, so that later stages find it in that CPU's cache.
pub(super) const WHOLE: usize = 32_768;

/// The most elements of all arrays for which terms that a later pass recalls are kept in memory. Past the caches it moves fewer
/// bytes to compute them again.
const KEPT: usize = 131_072;
/// The bytes of all parameters, gradients and states from which on kernels prefetch. It saves 5 to 15 % of the time there, and
/// costs up to 8 % in the caches.
const PAST_CACHES: usize = 32 << 20;

/// An array as the driver has it.
#[derive(Debug)]
pub(super) struct Item {
    pub compiled: &'static CompiledRule,
    pub group: usize,
    pub len: usize,
    /// The elements that this process updates. Streams that have only these point to where the array would begin.
    pub part: Range<usize>,
    pub param_type: Dtype,
    pub grad_type: Dtype,
    pub format: StateFormat,
    pub rounded: Option<(Dtype, *mut u8)>,
    /// Boxed, as few rules need it: a step over many small arrays reads every item.
    pub cells: Option<Box<Cells>>,
    /// The index of its first stream, and of its row and column vectors.
    pub streams: usize,
    vectors: usize,
    /// Number of streams that are states, and a bit mask of those that are not backups.
    pub states: usize,
    pub state_bits: u32,
    /// A bit mask of those that are never quantized.
    pub exact_bits: u32,
    /// The index of its first array state.
    pub array_states: usize,
    /// The index of its first scalar.
    pub scalars: usize,
    /// The index of each stage's first partial result, over all programs; empty for a rule of one pass.
    pub partials: Box<[usize]>,
    /// Where its blocks begin among those of all arrays.
    pub first_block: usize,
    /// Whether one task takes it through all its stages.
    pub whole: bool,
    /// Whether its kernels prefetch: a long array's, where all arrays together do not fit into the caches.
    pub prefetches: bool,
    /// Whether it has a gradient; a step leaves arrays without one alone.
    pub present: bool,
    /// Whether its rule and types are those of the array before it, and its parameter begins where that one's ends.
    follows: bool,
    /// The index of its rule's plan.
    pub plan: usize,
}

impl Item {
    pub fn matrix(&self) -> Option<Matrix> {
        self.cells.as_ref().map(|cells| cells.matrix)
    }

    /// Number of units of a stage: cells or blocks.
    pub fn units(&self, stage: &Stage) -> usize {
        let cells = self.cells.as_deref().filter(|_| by_cells(stage));
        cells.map_or(self.len.div_ceil(BLOCK), Cells::units)
    }

    /// Whether sums over its gradient are of float64 numbers, whose squares may overflow or vanish.
    fn sums_float64(&self) -> bool {
        (self.grad_type, self.param_type.compute()) == (Dtype::F64, Dtype::F64)
    }

    /// Bytes of an element of a state, which is never quantized if it is exact.
    pub fn state_size(&self, exact: bool) -> usize {
        let compute = self.param_type.compute();
        if exact { compute.size() } else { self.format.size(compute) }
    }

    /// Roughly the bytes of its parameter, gradient and states.
    fn bytes(&self) -> usize {
        self.part.len() * (2 * self.param_type.size() + self.states * self.param_type.compute().size())
    }

    /// Whether it has scalars of its own besides its group's.
    pub fn has_scalars(&self) -> bool {
        let rule = self.compiled.rule;
        rule.array_scalars < rule.scalars.len() || rule.needs_matrix()
    }
}

/// Neighbouring arrays that lie one behind the other in memory, with all their streams. A pass without reductions takes each
/// such stretch as one array.
#[derive(Debug, Default)]
pub(super) struct Stretches {
    /// The first array of each, and the elements of all its arrays.
    pub arrays: Vec<(usize, usize)>,
    pub extents: Vec<Extent>,
    pub chunks: Vec<Chunk>,
}

/// All arrays of an optimizer, and how a step over them is divided among threads.
#[derive(Debug, Default)]
pub struct WorkList {
    pub(super) items: Vec<Item>,
    pub(super) streams: Vec<*mut u8>,
    vectors: Vec<*mut u8>,
    pub(super) array_states: Vec<*mut f64>,
    /// Memory of vectors that are not states; never moved.
    vector_memory: Vec<Box<[u64]>>,
    pub(super) scalars: Scratch,
    pub(super) partials: Scratch,
    /// Terms that a later pass recalls, of all arrays; empty where they are many.
    pub(super) terms: Scratch,
    pub(super) extents: Vec<Extent>,
    pub(super) chunks: Vec<Chunk>,
    /// The same for stages that run block by block over all arrays, matrices included.
    pub(super) blocks: Vec<Extent>,
    pub(super) block_chunks: Vec<Chunk>,
    /// The stages of each distinct rule.
    pub(super) plans: Vec<Plan>,
    /// Room for the groups of a rule.
    pub(super) groups: Vec<usize>,
    total: usize,
    /// Elements that this process updates.
    own: usize,
    /// The other processes, if they share the arrays.
    pub(super) peers: Option<Peers>,
    /// What they exchange at a time.
    pub(super) exchanged: Vec<f64>,
    partial_count: usize,
    block_count: usize,
    scalar_count: usize,
    /// Number of arrays without a gradient.
    absent: usize,
    /// Whether any array follows the one before it, and the stretches of those that do; None when something has changed.
    any_follow: bool,
    pub(super) stretches: Option<Stretches>,
    past_caches: bool,
    /// Whether every rule is one pass without reductions.
    pub(super) plain: bool,
    /// Whether the next pass over all arrays goes in reverse order.
    pub(super) reverse: bool,
}

// SAFETY: the pointers are only dereferenced in functions whose callers guarantee their validity.
unsafe impl Send for WorkList {}
// SAFETY: as above.
unsafe impl Sync for WorkList {}

impl WorkList {
    /// Appends arrays.
    ///
    /// # Errors
    /// There is no memory for what steps over them need; the work list is then useless.
    pub fn extend(&mut self, arrays: impl IntoIterator<Item = Array>) -> Result<(), TryReserveError> {
        for array in arrays {
            self.add(array)?;
        }
        self.total = self.items.iter().map(|item| item.len).sum();
        self.own = self.items.iter().map(|item| item.part.len()).sum();
        self.past_caches = self.items.iter().map(Item::bytes).sum::<usize>() >= PAST_CACHES;
        self.items.iter_mut().for_each(|item| item.prefetches = self.past_caches && item.len > WHOLE);
        self.stretches = None;
        self.chunks = cut(&self.extents, self.own)?;
        self.block_chunks = cut(&self.blocks, self.own)?;
        self.plain = self.plans.iter().all(|plan| plan.plain) && !self.items.iter().any(Item::has_scalars);
        self.partials.grow(self.partial_count.max(self.block_count))?;
        self.reserve_exchanged()?;
        let recalls = |stage: &Stage| matches!(&stage.kind, Kind::Pass(pass) if pass.recalls.is_some());
        let mut stages =
            self.plans.iter().flat_map(|plan| plan.compiled.rule.programs).flat_map(|program| program.stages);
        if self.total > KEPT {
            self.terms = Scratch::default();
        } else if stages.any(recalls) {
            self.terms.grow(self.block_count * BLOCK)?;
        }
        self.scalars.grow(self.scalar_count)
    }

    /// Memory for the entries of one more array.
    fn reserve(&mut self, rule: &Rule) -> Result<(), TryReserveError> {
        self.items.try_reserve(1)?;
        self.groups.try_reserve(self.items.len() + 1)?;
        self.vector_memory.try_reserve(rule.rows.len() + rule.cols.len())?;
        self.blocks.try_reserve(1)?;
        self.extents.try_reserve(1)?;
        self.streams.try_reserve(2 + rule.streams().count())?;
        self.vectors.try_reserve(rule.rows.len() + rule.cols.len())?;
        self.array_states.try_reserve(rule.states.len())
    }

    fn add(&mut self, array: Array) -> Result<(), TryReserveError> {
        let rule = array.rule.rule;
        let cells = array.matrix.filter(|_| rule.needs_matrix()).map(Cells::new);
        assert!(
            cells.is_none() || array.format != StateFormat::Int8 || rule.takes_int8(),
            "{rule:?}: a pass cannot both sum rows or columns and use int8 states, whose blocks do not begin with rows"
        );
        self.reserve(rule)?;
        let (streams, vectors, array_states) = (self.streams.len(), self.vectors.len(), self.array_states.len());
        let (part, compute) = (array.part.clone(), array.param_type.compute());
        // Where a stream would begin that has only this part.
        let whole = |stream: *mut u8, size: usize| stream.wrapping_sub(part.start * size);
        let param = if array.rounded.is_some() { whole(array.param, compute.size()) } else { array.param };
        self.streams.extend([param, whole(array.grad, array.grad_type.size())]);
        self.streams.extend(rule.streams().map(|(place, state)| match state.scope {
            Scope::Element if state.exact => whole(array.states[place], compute.size()),
            Scope::Element => whole(array.states[place], array.format.size(compute)),
            _ => array.states[place],
        }));
        for scope in [Scope::Row, Scope::Col] {
            let names = if scope == Scope::Row { rule.rows } else { rule.cols };
            let states = rule.states_of(scope).map(|(place, _)| array.states[place]);
            let length = array.matrix.map_or(0, |matrix| matrix.vector(scope));
            self.vectors.extend(states);
            for _ in rule.states_of(scope).count()..names.len() {
                let mut memory = zeros((length * compute.size()).div_ceil(8))?.into_boxed_slice();
                self.vectors.push(memory.as_mut_ptr().cast());
                self.vector_memory.push(memory);
            }
        }
        self.array_states.extend(rule.states_of(Scope::Array).map(|(place, _)| array.states[place].cast::<f64>()));
        let state_bits = rule
            .streams()
            .enumerate()
            .filter(|(_, (_, state))| state.scope == Scope::Element)
            .map(|(k, _)| 1 << k)
            .sum();
        let stages = || rule.programs.iter().flat_map(|program| program.stages);
        let staged = stages().any(|stage| !stage.reductions.is_empty()) || stages().count() > rule.programs.len();
        let mut partials = Vec::new();
        if staged {
            partials.try_reserve_exact(stages().count())?;
            for stage in stages() {
                partials.push(self.partial_count);
                let units = cells.as_ref().filter(|_| by_cells(stage)).map_or(array.len.div_ceil(BLOCK), Cells::units);
                self.partial_count += stage_places(stage, units, cells.as_ref());
            }
        }
        let known = self.plans.iter().position(|plan| std::ptr::eq(plan.compiled, array.rule));
        let plan = known.unwrap_or_else(|| {
            self.plans.push(plans(array.rule));
            self.plans.len() - 1
        });
        let item = Item {
            compiled: array.rule,
            group: array.group,
            len: array.len,
            part: part.clone(),
            param_type: array.param_type,
            grad_type: array.grad_type,
            format: array.format,
            rounded: array.rounded,
            cells: cells.map(try_box).transpose()?,
            streams,
            vectors,
            states: rule.streams().count(),
            state_bits,
            exact_bits: rule.streams().enumerate().filter(|(_, (_, state))| state.exact).map(|(k, _)| 1 << k).sum(),
            array_states,
            scalars: self.scalar_count,
            partials: partials.into(),
            first_block: self.block_count,
            whole: staged && array.len <= WHOLE && self.peers.is_none(),
            prefetches: false,
            present: true,
            follows: false,
            plan,
        };
        self.block_count += array.len.div_ceil(BLOCK);
        self.scalar_count += rule.scalars.len();
        let units = |before: &dyn Fn(usize) -> usize| (before(part.start), before(part.end) - before(part.start));
        let (first, count) = units(&|element| element.div_ceil(BLOCK));
        let blocks = Extent { whole: item.whole, first, units: count, ..Extent::blocks(array.len) };
        self.blocks.push(blocks);
        self.extents.push(match &cells {
            Some(cells) => {
                let before = |element| if element == array.len { cells.units() } else { cells.units_before(element) };
                let (first, count) = units(&before);
                Extent { unit: array.len.div_ceil(cells.units().max(1)).max(1), first, units: count, ..blocks }
            }
            None => blocks,
        });
        self.items.push(item);
        let last = self.items.len() - 1;
        if last > 0 && self.is_behind(last, &[self.items[last].param_type.size()]) {
            let (before, item) = (&self.items[last - 1], &self.items[last]);
            let plain = |item: &Item| item.format == StateFormat::Compute && item.rounded.is_none();
            let alike = (before.plan, before.param_type) == (item.plan, item.param_type);
            self.items[last].follows = alike && plain(before) && plain(item);
            self.any_follow |= self.items[last].follows;
        }
        Ok(())
    }

    /// Whether the first streams of an array, which have elements of these sizes, begin where those of the array before it end.
    fn is_behind(&self, i: usize, sizes: &[usize]) -> bool {
        let (before, item) = (&self.items[i - 1], &self.items[i]);
        let end = |k: usize, size: usize| self.streams[before.streams + k].wrapping_add(before.len * size);
        sizes.iter().enumerate().all(|(k, &size)| self.streams[item.streams + k] == end(k, size))
    }

    /// Whether an array can be taken together with the one before it.
    fn joins(&self, i: usize) -> bool {
        if !self.items[i].follows {
            return false;
        }
        let (before, item) = (&self.items[i - 1], &self.items[i]);
        let (param, compute) = (item.param_type.size(), item.param_type.compute().size());
        let mut sizes = [0; MAX_STREAMS + 1];
        (sizes[0], sizes[1]) = (param, item.grad_type.size());
        for k in 0..item.states {
            sizes[2 + k] = if item.state_bits >> k & 1 == 1 { compute } else { param };
        }
        (before.group, before.grad_type) == (item.group, item.grad_type)
            && before.present
            && item.present
            && self.is_behind(i, &sizes[..2 + item.states])
    }

    /// Forms the stretches, if there are any and something has changed; arrays that processes share are taken one by one.
    ///
    /// # Errors
    /// There is no memory; the arrays can be taken one by one.
    pub(super) fn form_stretches(&mut self) -> Result<(), TryReserveError> {
        if !self.any_follow || self.stretches.is_some() || self.peers.is_some() {
            return Ok(());
        }
        let mut new = Stretches::default();
        new.arrays.try_reserve_exact(self.items.len())?;
        for (i, item) in self.items.iter().enumerate() {
            match new.arrays.last_mut() {
                Some((_, len)) if self.joins(i) => *len += item.len,
                _ => new.arrays.push((i, item.len)),
            }
        }
        new.extents.try_reserve_exact(new.arrays.len())?;
        new.extents.extend(new.arrays.iter().map(|&(_, len)| Extent::blocks(len)));
        new.chunks = cut(&new.extents, self.total)?;
        for &(first, len) in &new.arrays {
            self.items[first].prefetches = self.past_caches && len > WHOLE;
        }
        self.stretches = Some(new);
        Ok(())
    }

    /// Number of arrays.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are no arrays.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Total number of elements.
    pub fn total(&self) -> usize {
        self.total
    }

    /// The storage format of element states, the same for all arrays.
    pub fn format(&self) -> StateFormat {
        self.items.first().map_or(StateFormat::Compute, |item| item.format)
    }

    /// Sets an array's gradient for the next step.
    pub fn set_gradient(&mut self, i: usize, grad: *mut u8, grad_type: Dtype) {
        let item = &mut self.items[i];
        self.absent -= usize::from(!item.present);
        self.stretches = None;
        item.present = true;
        item.grad_type = grad_type;
        self.streams[item.streams + 1] = grad;
    }

    /// The same for a gradient that has only the elements that this process updates, in the compute type.
    pub fn set_gradient_part(&mut self, i: usize, part: *mut u8) {
        let (start, compute) = (self.items[i].part.start, self.items[i].param_type.compute());
        self.set_gradient(i, part.wrapping_sub(start * compute.size()), compute);
    }

    /// Sets the parameter and the states of an array, in the order of its rule's. No other process may share it.
    pub fn set_pointers(&mut self, i: usize, param: *mut u8, states: &[*mut u8]) {
        debug_assert!(self.peers.is_none());
        self.stretches = None;
        let item = &self.items[i];
        let rule = item.compiled.rule;
        self.streams[item.streams] = param;
        for (k, (place, _)) in rule.streams().enumerate() {
            self.streams[item.streams + 2 + k] = states[place];
        }
        for (k, (place, _)) in rule.states_of(Scope::Array).enumerate() {
            self.array_states[item.array_states + k] = states[place].cast();
        }
    }

    /// Leaves an array out of what runs, and of norms, until it gets a gradient again.
    pub fn set_absent(&mut self, i: usize) {
        self.absent += usize::from(self.items[i].present);
        self.stretches = None;
        self.items[i].present = false;
    }

    /// Leaves no array out, for a program that reads no gradients.
    pub fn include_all(&mut self) {
        if self.absent > 0 {
            self.items.iter_mut().for_each(|item| item.present = true);
            self.absent = 0;
            self.stretches = None;
        }
    }

    /// Whether any array is left out.
    pub fn any_absent(&self) -> bool {
        self.absent > 0
    }

    /// Whether an array is left out.
    pub fn is_absent(&self, i: usize) -> bool {
        !self.items[i].present
    }

    /// Whether an array that is not left out uses the scalars of this index.
    pub fn uses_group(&self, group: usize) -> bool {
        self.items.iter().any(|item| item.present && item.group == group)
    }

    /// Sets the index of an array's scalars among a step's.
    pub fn set_group(&mut self, i: usize, group: usize) {
        if self.items[i].group != group {
            self.items[i].group = group;
            self.stretches = None;
        }
    }

    /// An array's gradient: pointer, type, number of elements, which is 0 for an array that is left out.
    pub fn gradient(&self, i: usize) -> (*mut u8, Dtype, usize) {
        let item = &self.items[i];
        (self.streams[item.streams + 1], item.grad_type, if item.present { item.len } else { 0 })
    }

    /// Sets the memory of an array's backups, long enough for the elements in the parameter's type, or in the type that it is
    /// rounded to.
    pub fn set_backup(&mut self, i: usize, backup: *mut u8) {
        self.stretches = None;
        let item = &self.items[i];
        for (k, (_, state)) in item.compiled.rule.streams().enumerate() {
            if state.scope == Scope::Backup {
                self.streams[item.streams + 2 + k] = backup;
            }
        }
    }

    /// The sum of squares of all gradients as they are in memory, in float64, as the rule `clip_norm` needs it. Its order of
    /// additions depends on the lengths alone. It is infinite or NaN only if a gradient is.
    ///
    /// # Safety
    /// Every array's gradient must be valid and aligned for reading; the CPU must support the level.
    pub unsafe fn sum_of_squares(&mut self, level: Level, threads: usize) -> Squares {
        // SAFETY: upheld by the caller.
        let plain = Squares { sum: unsafe { self.squares(level, threads, 1.0) }, unit: 1.0 };
        match plain.better_unit() {
            // SAFETY: upheld by the caller.
            Some(unit) if self.items.iter().any(Item::sums_float64) => unsafe {
                Squares { sum: self.squares(level, threads, unit), unit }
            },
            _ => plain,
        }
    }

    /// The sum of squares of all gradients divided by `unit`.
    ///
    /// # Safety
    /// As for [`WorkList::sum_of_squares`].
    unsafe fn squares(&mut self, level: Level, threads: usize, unit: f64) -> f64 {
        self.reverse = !self.reverse;
        let this = &*self;
        // SAFETY: no task runs.
        let sums = || unsafe { this.partials.slice(0, this.block_count) };
        if this.peers.is_some() {
            sums().fill(0.0);
        }
        this.share(threads, &this.block_chunks, &this.blocks, &|i, units| {
            let item = &this.items[i];
            if !item.present {
                // SAFETY: the entries are this task's own.
                units.for_each(|block| unsafe { this.partials.set(item.first_block + block, 0.0) });
                return;
            }
            let types = (item.grad_type, item.param_type.compute());
            let grad = |block: usize| {
                let offset = block * BLOCK * item.grad_type.size();
                this.streams[item.streams + 1].wrapping_add(offset).cast_const()
            };
            let length = |block: usize| BLOCK.min(item.len - block * BLOCK);
            let first = item.first_block + units.start;
            // SAFETY: the blocks lie within the array, whose gradient the caller guarantees; the entries are this task's own.
            unsafe {
                let sums = this.partials.slice(first, units.len());
                sums.fill(0.0);
                if unit == 1.0 {
                    // The last block may be shorter.
                    let last = units.end - 1;
                    let whole = Rows { count: last - units.start, cols: BLOCK, stride: BLOCK };
                    let rest = Rows::one(length(last));
                    reduce::rows(level, Form::Square, types, sums.as_mut_ptr(), grad(units.start), whole);
                    reduce::rows(level, Form::Square, types, &raw mut sums[whole.count], grad(last), rest);
                    return;
                }
                for (sum, block) in sums.iter_mut().zip(units) {
                    let (grad, n) = (grad(block), length(block));
                    *sum = match item.sums_float64() {
                        true => scaled_squares(level, grad.cast(), n, 1.0 / unit),
                        false => reduce::block(level, Form::Square, types, (grad, grad), n) / unit / unit,
                    };
                }
            }
        });
        if let Some(peers) = &this.peers {
            (peers.combine)(sums());
        }
        // SAFETY: no task runs.
        fpenv::standard(|| unsafe { fold(Form::Square, &this.partials, 0..this.block_count, 0.0) })
    }

    /// Sets all gradients to zero, for a step that is skipped.
    ///
    /// # Safety
    /// Every array's gradient must be valid for writing, and nobody else may access it during the call.
    pub unsafe fn zero_grads(&self) {
        for i in (0..self.items.len()).filter(|&i| self.items[i].present) {
            let (grad, dtype, len) = self.gradient(i);
            // SAFETY: upheld by the caller.
            unsafe { grad.write_bytes(0, len * dtype.size()) };
        }
    }

    /// The first gradient with a NaN or an infinity: array and flat index.
    ///
    /// # Safety
    /// Every array's gradient must be valid and aligned for reading.
    pub unsafe fn first_nonfinite(&mut self) -> Option<(usize, usize)> {
        let first = self.items.iter().enumerate().filter(|(_, item)| item.present).find_map(|(i, item)| {
            let ((grad, dtype, _), start) = (self.gradient(i), item.part.start);
            let grad = grad.wrapping_add(start * dtype.size());
            // SAFETY: upheld by the caller.
            let at = unsafe { reduce::first_nonfinite(dtype, item.param_type.compute(), grad, item.part.len()) };
            at.map(|at| (i, start + at))
        });
        self.first_of_all(first)
    }

    /// Runs `part` over all units, given as an array's index and a range, in one parallel region or serially.
    pub(super) fn share(
        &self,
        threads: usize,
        chunks: &[Chunk],
        extents: &[Extent],
        part: &(impl Fn(usize, std::ops::Range<usize>) + Sync),
    ) {
        let task = |i: usize| fpenv::standard(|| chunks[i].each(extents, part));
        // Each pass over the arrays starts where the last one ended, also across steps: that data is still in the caches.
        pool::run(chunks.len(), self.reverse, self.own, threads, &task);
    }

    pub(super) fn streams_of(&self, i: usize) -> *const *mut u8 {
        self.streams[self.items[i].streams..].as_ptr()
    }

    /// The vectors of an array's rows or columns.
    pub(super) fn vectors_of(&self, i: usize, scope: Scope) -> *const *mut u8 {
        let item = &self.items[i];
        let first = if scope == Scope::Row { 0 } else { item.compiled.rule.rows.len() };
        self.vectors[item.vectors + first..].as_ptr()
    }

    pub(super) fn vector(&self, i: usize, scope: Scope, place: usize) -> *mut u8 {
        // SAFETY: a rule's vectors are in the table.
        unsafe { *self.vectors_of(i, scope).add(place) }
    }
}

/// The sum of squares of a block of float64 numbers that are multiplied by `factor`, a power of two.
///
/// # Safety
/// As for [`reduce::block`].
unsafe fn scaled_squares(level: Level, data: *const f64, n: usize, factor: f64) -> f64 {
    with_tail_tiles(|tiles| {
        let tile = tiles[0].pointer().cast::<f64>();
        // SAFETY: upheld by the caller; a tile holds a block.
        unsafe {
            (0..n).for_each(|i| tile.add(i).write(*data.add(i) * factor));
            let tile = tile.cast_const().cast();
            reduce::block(level, Form::Square, (Dtype::F64, Dtype::F64), (tile, tile), n)
        }
    })
}
