//! Processes that share arrays: each updates a part of every array, and they exchange partial results of reductions. Every
//! process then combines all of them in the order of one that has the arrays to itself. Sends nothing itself.

use std::ops::Range;

use super::matrix::{Cells, Matrix};
use super::plan::Round;
use super::reductions::stage_places;
use super::work_list::{Item, WorkList};
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

    /// The ranges of the partial results of one pass of each array.
    fn ranges<'r>(&self, stage_of: &impl Fn(&Item) -> Option<&'r Round>, number: usize) -> Vec<Range<usize>> {
        let range = |item: &Item| {
            let round = stage_of(item)?;
            let numbered = round.stages[*round.passes.get(number)?];
            let first = *item.partials.get(numbered.number)?;
            let places = stage_places(numbered.stage, item.units(numbered.stage), item.cells.as_deref());
            (places > 0).then_some(first..first + places)
        };
        self.items.iter().filter_map(range).collect()
    }

    /// Sets the partial results of a pass to zero bits, so that those of other processes can be added.
    ///
    /// # Safety
    /// No task may run.
    pub(super) unsafe fn before_pass<'r>(&self, round_of: &impl Fn(&Item) -> Option<&'r Round>, number: usize) {
        if self.peers.is_some() {
            for range in self.ranges(round_of, number) {
                // SAFETY: upheld by the caller.
                unsafe { self.partials.slice(range.start, range.len()) }.fill(0.0);
            }
        }
    }

    /// Adds the partial results of a pass in other processes.
    ///
    /// # Safety
    /// No task may run.
    pub(super) unsafe fn after_pass<'r>(&self, round_of: &impl Fn(&Item) -> Option<&'r Round>, number: usize) {
        let Some(peers) = &self.peers else { return };
        let ranges = self.ranges(round_of, number);
        // SAFETY: upheld by the caller.
        let part = |range: &Range<usize>| unsafe { self.partials.slice(range.start, range.len()) };
        let mut all: Vec<f64> = ranges.iter().flat_map(|range| part(range).iter().copied()).collect();
        if !all.is_empty() {
            (peers.combine)(&mut all);
        }
        let mut rest = &all[..];
        for range in &ranges {
            let (mine, others) = rest.split_at(range.len());
            part(range).copy_from_slice(mine);
            rest = others;
        }
    }

    /// The first of the places that the processes have found, each in its own part.
    pub(super) fn first_of_all(&self, mine: Option<(usize, usize)>) -> Option<(usize, usize)> {
        let Some(peers) = &self.peers else { return mine };
        let mut found = vec![0.0; 2 * peers.ranks];
        if let Some((i, at)) = mine {
            found[2 * peers.rank] = f64::from_bits(i as u64 + 1);
            found[2 * peers.rank + 1] = f64::from_bits(at as u64);
        }
        (peers.combine)(&mut found);
        let places = found.as_chunks::<2>().0.iter().map(|pair| pair.map(|bits| bits.to_bits() as usize));
        places.filter(|place| place[0] > 0).map(|[i, at]| (i - 1, at)).min()
    }
}
