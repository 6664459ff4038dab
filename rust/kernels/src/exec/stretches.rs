//! Arrays that lie one behind the other in memory, as packed ones do, found and taken together. Runs no rule.

use std::collections::TryReserveError;

use super::item::Item;
use super::partition::{Chunk, Extent, cut};
use super::tiles::{Call, Part, TILE};
use super::work_list::{WHOLE, WorkList};
use crate::kernel::MAX_STREAMS;
use crate::numeric::{Rounding, StateFormat};
use crate::rule::Pass;

/// The most arrays that go through tiles together.
const TOGETHER: usize = 16;

/// Neighbouring arrays that lie one behind the other in memory, with all their streams. A pass without reductions takes each
/// such stretch as one array. Arrays with int8 states have blocks of their own: their stretches are what fits into a tile.
#[derive(Debug, Default)]
pub(super) struct Stretches {
    /// The first array of each, and the elements of all its arrays.
    pub arrays: Vec<(usize, usize)>,
    pub extents: Vec<Extent>,
    pub chunks: Vec<Chunk>,
}

impl WorkList {
    /// Whether the first streams of an array, which have elements of these sizes, begin where those of the array before it end.
    pub(super) fn is_behind(&self, i: usize, sizes: &[usize]) -> bool {
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
        let states = if item.format == StateFormat::Int8 { 0 } else { item.states };
        for k in 0..states {
            sizes[2 + k] = if item.state_bits >> k & 1 == 1 { compute } else { param };
        }
        (before.group, before.grad_type) == (item.group, item.grad_type)
            && before.present
            && item.present
            && self.is_behind(i, &sizes[..2 + states])
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
                Some((first, len))
                    if self.joins(i)
                        && (item.format != StateFormat::Int8 || (*len + item.len <= TILE && i - *first < TOGETHER)) =>
                {
                    *len += item.len;
                }
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

    /// Runs a pass over a stretch of arrays with int8 states, of `len` elements in all.
    ///
    /// # Safety
    /// As for [`WorkList::run`]; nobody else may run a pass over these arrays at the same time.
    pub(super) unsafe fn run_together(
        &self,
        (first, len): (usize, usize),
        pass: &Pass,
        call: &Call<'_>,
        rounding: &Rounding,
    ) {
        let part = |i: usize, place| {
            let item = &self.items[i];
            Part { item, streams: self.streams_of(i), at: 0, place, n: item.len, bits: rounding.of_array(i) }
        };
        let mut parts = [part(first, 0); TOGETHER];
        let (mut count, mut place) = (1, parts[0].n);
        while place < len {
            parts[count] = part(first + count, place);
            place += parts[count].n;
            count += 1;
        }
        // SAFETY: upheld by the caller.
        unsafe { self.items[first].together(&parts[..count], pass, call) };
    }
}

/// Whether an array may be in a stretch.
pub(super) fn may_join(item: &Item) -> bool {
    let every_state = (1 << item.states) - 1;
    item.rounded.is_none()
        && match item.format {
            StateFormat::Compute => true,
            StateFormat::Int8 => item.exact_bits == 0 && item.state_bits == every_state,
            StateFormat::Bfloat16 => false,
        }
}
