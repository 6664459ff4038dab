//! Processes that share arrays: each updates a part of every array, and they exchange partial results of reductions. Every
//! process then combines all of them in the order of one that has the arrays to itself. Sends nothing itself.

use std::collections::TryReserveError;
use std::ops::Range;

use super::item::Item;
use super::matrix::{Cells, Matrix};
use super::plan::Round;
use super::reductions::stage_places;
use super::work_list::WorkList;
use crate::numeric::reduce::BLOCK;

/// Replaces each number by the bitwise or of this number in all processes, of which all but one have zero bits.
pub type Combine = Box<dyn Fn(&mut [f64]) + Send + Sync>;

/// The processes that share the arrays of a work list.
pub struct Peers {
    /// The number of this process.
    pub rank: usize,
    /// How many there are.
    pub ranks: usize,
    /// The exchange of numbers, which every process calls at the same places of a step.
    pub combine: Combine,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.ranks)
    }
}

/// Elements between two places at which processes may cut an array, which its rule may see as a matrix: cutting elsewhere would
/// change the order of sums.
pub fn cut_size(matrix: Option<Matrix>) -> usize {
    let unit = matrix.map_or(1, |matrix| Cells::new(matrix).cut_size().max(1));
    let (mut a, mut b) = (unit, BLOCK);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    unit / a * BLOCK
}

impl WorkList {
    /// An empty work list over arrays that other processes share.
    pub fn shared(peers: Peers) -> WorkList {
        let mut work = WorkList::default();
        work.peers = Some(peers);
        work
    }

    /// Sets the partial results of a pass to zero bits, so that those of other processes can be added.
    ///
    /// # Safety
    /// No task may run.
    pub(super) unsafe fn before_pass<'r>(&self, round_of: &impl Fn(&Item) -> Option<&'r Round>, number: usize) {
        if self.peers.is_some() {
            for range in self.items.iter().filter_map(|item| partials_of(item, round_of, number)) {
                // SAFETY: upheld by the caller.
                unsafe { self.partials.slice(range.start, range.len()) }.fill(0.0);
            }
        }
    }

    /// Adds the partial results of a pass in other processes.
    ///
    /// # Safety
    /// No task may run.
    pub(super) unsafe fn after_pass<'r>(&mut self, round_of: &impl Fn(&Item) -> Option<&'r Round>, number: usize) {
        let WorkList { peers: Some(peers), items, partials, exchanged, .. } = self else { return };
        let ranges = || items.iter().filter_map(|item| partials_of(item, round_of, number));
        // SAFETY: upheld by the caller.
        let part = |range: &Range<usize>| unsafe { partials.slice(range.start, range.len()) };
        exchanged.clear();
        ranges().for_each(|range| exchanged.extend_from_slice(part(&range)));
        if exchanged.is_empty() {
            return;
        }
        (peers.combine)(exchanged);
        let mut rest = &exchanged[..];
        for range in ranges() {
            let (own, others) = rest.split_at(range.len());
            part(&range).copy_from_slice(own);
            rest = others;
        }
    }

    /// The first of the places that the processes have found, each in its own part.
    pub(super) fn first_of_all(&mut self, mine: Option<(usize, usize)>) -> Option<(usize, usize)> {
        let WorkList { peers: Some(peers), exchanged: found, .. } = self else { return mine };
        found.clear();
        found.resize(2 * peers.ranks, 0.0);
        if let Some((i, at)) = mine {
            found[2 * peers.rank] = f64::from_bits(i as u64 + 1);
            found[2 * peers.rank + 1] = f64::from_bits(at as u64);
        }
        (peers.combine)(found);
        let places = found.as_chunks::<2>().0.iter().map(|pair| pair.map(|bits| bits.to_bits() as usize));
        places.filter(|place| place[0] > 0).map(|[i, at]| (i - 1, at)).min()
    }

    /// Memory for what is exchanged at a time.
    pub(super) fn reserve_exchanged(&mut self) -> Result<(), TryReserveError> {
        let Some(peers) = &self.peers else { return Ok(()) };
        self.exchanged.clear();
        self.exchanged.try_reserve_exact(self.partials.len().max(2 * peers.ranks))
    }
}

/// The places of an array's partial results of one pass.
fn partials_of<'r>(item: &Item, round_of: &impl Fn(&Item) -> Option<&'r Round>, number: usize) -> Option<Range<usize>> {
    let round = round_of(item)?;
    let numbered = &round.stages[*round.passes.get(number)?];
    let first = *item.partials.get(numbered.number)?;
    let places = stage_places(numbered.stage, item.units(numbered.stage), item.cells.as_deref());
    (places > 0).then_some(first..first + places)
}
