//! All arrays of an optimizer, where their data is, and how they are split into tasks. Runs no rule.

use std::collections::TryReserveError;

use super::array::Array;
use super::item::Item;
use super::matrix::Cells;
use super::norm::Runs;
use super::partition::{Chunk, Extent, cut};
use super::peers::Peers;
use super::plan::{Plan, plans};
use super::pool;
use super::reductions::{by_cells, stage_places};
use super::rows::Rows;
use super::scratch::Scratch;
use super::stretches::{Stretches, may_join};
use crate::memory::{try_box, zeros};
use crate::numeric::reduce::BLOCK;
use crate::numeric::{Dtype, StateFormat, first_nonfinite, fpenv};
use crate::rule::{Kind, Rule, Scope, Stage};

/// The longest array that one task takes through all its stages, so that later stages find it in that CPU's cache.
pub(super) const WHOLE: usize = 32_768;

/// The most elements of all arrays for which terms that a later pass recalls are kept in memory. Past the caches it moves fewer
/// bytes to compute them again.
const KEPT: usize = 131_072;
/// The bytes of all parameters, gradients and states from which on kernels prefetch. It saves 5 to 15 % of the time there, and
/// costs up to 8 % in the caches.
const PAST_CACHES: usize = 32 << 20;

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
    /// The elements of each block, and the gradients as norms take them.
    pub(super) block_lens: Vec<u16>,
    pub(super) runs: Runs,
    /// The stages of each distinct rule.
    pub(super) plans: Vec<Plan>,
    /// Room for the groups of a rule.
    pub(super) groups: Vec<usize>,
    pub(super) total: usize,
    /// Elements that this process updates.
    pub(super) own: usize,
    /// The other processes, if they share the arrays.
    pub(super) peers: Option<Peers>,
    /// What they exchange at a time.
    pub(super) exchanged: Vec<f64>,
    partial_count: usize,
    pub(super) block_count: usize,
    scalar_count: usize,
    /// Number of arrays without a gradient.
    absent: usize,
    /// Whether any array follows the one before it, and the stretches of those that do; None when something has changed.
    pub(super) any_follow: bool,
    pub(super) stretches: Option<Stretches>,
    pub(super) past_caches: bool,
    /// Whether any array with elements takes a parallel region per pass.
    pub(super) any_large: bool,
    /// Whether every rule is one pass without reductions.
    pub(super) plain: bool,
    /// Whether the next pass over all arrays goes in reverse order.
    pub(super) reverse: bool,
    /// For a step over rows, those that each array has a copy of; otherwise empty.
    pub(super) rows: Vec<Rows>,
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
        self.any_large = self.items.iter().any(|item| !item.whole && item.len > 0);
        self.stretches = None;
        self.chunks = cut(&self.extents, self.own)?;
        self.block_chunks = cut(&self.blocks, self.own)?;
        self.runs.reserve(self.items.len(), self.block_chunks.len())?;
        self.plain = self.plans.iter().all(|plan| plan.plain) && !self.items.iter().any(Item::has_scalars);
        self.partials.grow(self.partial_count.max(self.block_count))?;
        self.reserve_exchanged()?;
        let recalls = |stage: &Stage| matches!(&stage.kind, Kind::Pass(pass) if pass.recalls.is_some());
        let mut stages = self.plans.iter().flat_map(|plan| plan.compiled.rule.stages());
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
        let staged =
            rule.stages().any(|stage| !stage.reductions.is_empty()) || rule.stages().count() > rule.programs.len();
        let mut partials = Vec::new();
        if staged {
            partials.try_reserve_exact(rule.stages().count())?;
            for stage in rule.stages() {
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
        self.block_lens.try_reserve(array.len.div_ceil(BLOCK))?;
        self.block_lens.extend((0..array.len).step_by(BLOCK).map(|at| BLOCK.min(array.len - at) as u16));
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
            let kind = |item: &Item| (item.plan, item.param_type, item.format);
            self.items[last].follows = kind(before) == kind(item) && may_join(before) && may_join(item);
            self.any_follow |= self.items[last].follows;
        }
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
        self.runs.forget();
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
        self.runs.forget();
        self.items[i].present = false;
    }

    /// Leaves no array out, for a program that reads no gradients.
    pub fn include_all(&mut self) {
        if self.absent > 0 {
            self.items.iter_mut().for_each(|item| item.present = true);
            self.absent = 0;
            self.stretches = None;
            self.runs.forget();
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

    /// Sets the gradients of all arrays that are not left out to zero, where no pass does it: if the step is skipped, or if the
    /// passes read sums that processes have exchanged.
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
            let at = unsafe { first_nonfinite(dtype, item.param_type.compute(), grad, item.part.len()) };
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
