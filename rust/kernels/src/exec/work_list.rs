//! All arrays of an optimizer, where their data is, and how they are split into tasks. Runs no rule, and adds no array.

use super::item::Item;
use super::norm::Runs;
use super::partition::{Chunk, Extent};
use super::peers::Peers;
use super::plan::Plan;
use super::pool;
use super::rows::Rows;
use super::scratch::Scratch;
use super::stretches::Stretches;
use crate::numeric::{Dtype, StateFormat, first_nonfinite, fpenv};
use crate::rule::Scope;

/// The longest array that one task takes through all its stages, so that later stages find it in that CPU's cache.
pub(super) const WHOLE: usize = 32_768;

/// All arrays of an optimizer, and how a step over them is divided among threads.
#[derive(Debug, Default)]
pub struct WorkList {
    pub(super) items: Vec<Item>,
    pub(super) streams: Vec<*mut u8>,
    pub(super) vectors: Vec<*mut u8>,
    pub(super) array_states: Vec<*mut f64>,
    /// Memory of vectors that are not states; never moved.
    pub(super) vector_memory: Vec<Box<[u64]>>,
    pub(super) scalars: Scratch,
    pub(super) partials: Scratch,
    /// Terms that a later pass recalls, of all arrays; empty where they are many.
    pub(super) terms: Scratch,
    /// Each array's cells, or blocks where it is no matrix, and the tasks of stages that run cell by cell.
    pub(super) extents: Vec<Extent>,
    pub(super) chunks: Vec<Chunk>,
    /// Each array's blocks, and the tasks of stages that run block by block over all arrays, matrices included.
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
    pub(super) partial_count: usize,
    pub(super) block_count: usize,
    pub(super) scalar_count: usize,
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

    /// Sets an array's gradient to one that has only the elements that this process updates, in the compute type.
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
