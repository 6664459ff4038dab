//! Adds arrays to a work list: where their data is, and how they are split into tasks. Runs no rule.

use std::collections::TryReserveError;

use super::array::Array;
use super::item::Item;
use super::matrix::Cells;
use super::partition::{Extent, cut};
use super::plan::plans;
use super::reductions::{by_cells, stage_places};
use super::scratch::Scratch;
use super::stretches::may_join;
use super::work_list::{WHOLE, WorkList};
use crate::memory::{try_box, zeros};
use crate::numeric::StateFormat;
use crate::numeric::reduce::BLOCK;
use crate::rule::{Kind, Rule, Scope, Stage, State};

/// The most elements of all arrays for which terms that a later pass recalls are kept in memory. Past the caches it moves fewer
/// bytes to compute them again.
const KEPT: usize = 131_072;
/// The bytes of all parameters, gradients and states from which on kernels prefetch. It saves 5 to 15 % of the time there, and
/// costs up to 8 % in the caches.
const PAST_CACHES: usize = 32 << 20;

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
        self.add_streams(&array);
        self.add_vectors(&array)?;
        self.array_states.extend(rule.states_of(Scope::Array).map(|(place, _)| array.states[place].cast::<f64>()));
        let bits = |of: &dyn Fn(&State) -> bool| {
            rule.streams().enumerate().filter(|(_, (_, state))| of(state)).map(|(k, _)| 1 << k).sum()
        };
        let staged =
            rule.stages().any(|stage| !stage.reductions.is_empty()) || rule.stages().count() > rule.programs.len();
        let partials = if staged { self.add_partials(&array, cells.as_ref())? } else { Vec::new() };
        let known = self.plans.iter().position(|plan| std::ptr::eq(plan.compiled, array.rule));
        let plan = known.unwrap_or_else(|| {
            self.plans.push(plans(array.rule));
            self.plans.len() - 1
        });
        let item = Item {
            compiled: array.rule,
            group: array.group,
            len: array.len,
            part: array.part,
            param_type: array.param_type,
            grad_type: array.grad_type,
            format: array.format,
            rounded: array.rounded,
            cells: cells.map(try_box).transpose()?,
            streams,
            vectors,
            states: rule.streams().count(),
            state_bits: bits(&|state| state.scope == Scope::Element),
            exact_bits: bits(&|state| state.exact),
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
        self.add_extents(&item);
        self.items.push(item);
        self.find_whether_last_follows();
        Ok(())
    }

    /// The streams of an array. One that has only a part of it points to where the array would begin.
    fn add_streams(&mut self, array: &Array) {
        let compute = array.param_type.compute();
        let whole = |stream: *mut u8, size: usize| stream.wrapping_sub(array.part.start * size);
        let param = if array.rounded.is_some() { whole(array.param, compute.size()) } else { array.param };
        self.streams.extend([param, whole(array.grad, array.grad_type.size())]);
        self.streams.extend(array.rule.rule.streams().map(|(place, state)| match state.scope {
            Scope::Element if state.exact => whole(array.states[place], compute.size()),
            Scope::Element => whole(array.states[place], array.format.size(compute)),
            _ => array.states[place],
        }));
    }

    /// The vectors of an array's rows and columns: states, and memory for the others.
    fn add_vectors(&mut self, array: &Array) -> Result<(), TryReserveError> {
        let (rule, size) = (array.rule.rule, array.param_type.compute().size());
        for (scope, names) in [(Scope::Row, rule.rows), (Scope::Col, rule.cols)] {
            let length = array.matrix.map_or(0, |matrix| matrix.vector(scope));
            self.vectors.extend(rule.states_of(scope).map(|(place, _)| array.states[place]));
            for _ in rule.states_of(scope).count()..names.len() {
                let mut memory = zeros((length * size).div_ceil(8))?.into_boxed_slice();
                self.vectors.push(memory.as_mut_ptr().cast());
                self.vector_memory.push(memory);
            }
        }
        Ok(())
    }

    /// Places for the partial results of an array's stages; returns each stage's first.
    fn add_partials(&mut self, array: &Array, cells: Option<&Cells>) -> Result<Vec<usize>, TryReserveError> {
        let rule = array.rule.rule;
        let mut partials = Vec::new();
        partials.try_reserve_exact(rule.stages().count())?;
        for stage in rule.stages() {
            partials.push(self.partial_count);
            let units = cells.filter(|_| by_cells(stage)).map_or(array.len.div_ceil(BLOCK), Cells::units);
            self.partial_count += stage_places(stage, units, cells);
        }
        Ok(partials)
    }

    /// The blocks and cells of an array's part.
    fn add_extents(&mut self, item: &Item) {
        let units = |before: &dyn Fn(usize) -> usize| {
            let first = before(item.part.start);
            (first, before(item.part.end) - first)
        };
        let (first, count) = units(&|element| element.div_ceil(BLOCK));
        let blocks = Extent { whole: item.whole, first, units: count, ..Extent::blocks(item.len) };
        self.blocks.push(blocks);
        self.extents.push(match &item.cells {
            Some(cells) => {
                let before = |element| if element == item.len { cells.units() } else { cells.units_before(element) };
                let (first, count) = units(&before);
                Extent { unit: item.len.div_ceil(cells.units().max(1)).max(1), first, units: count, ..blocks }
            }
            None => blocks,
        });
    }

    /// Whether the last array can be taken as one with the array before it.
    fn find_whether_last_follows(&mut self) {
        let last = self.items.len() - 1;
        if last > 0 && self.is_behind(last, &[self.items[last].param_type.size()]) {
            let (before, item) = (&self.items[last - 1], &self.items[last]);
            let kind = |item: &Item| (item.plan, item.param_type, item.format);
            self.items[last].follows = kind(before) == kind(item) && may_join(before) && may_join(item);
            self.any_follow |= self.items[last].follows;
        }
    }
}
