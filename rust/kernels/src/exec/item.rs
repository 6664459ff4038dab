//! One array as the driver has it. Knows no other array.

use std::ops::Range;

use super::matrix::{Cells, Matrix};
use super::reductions::by_cells;
use crate::kernel::CompiledRule;
use crate::numeric::reduce::BLOCK;
use crate::numeric::{Dtype, StateFormat};
use crate::rule::Stage;

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
    pub vectors: usize,
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
    pub follows: bool,
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
    pub fn sums_float64(&self) -> bool {
        (self.grad_type, self.param_type.compute()) == (Dtype::F64, Dtype::F64)
    }

    /// Bytes of an element of a state, which is never quantized if it is exact.
    pub fn state_size(&self, exact: bool) -> usize {
        let compute = self.param_type.compute();
        if exact { compute.size() } else { self.format.size(compute) }
    }

    /// Roughly the bytes of its parameter, gradient and states.
    pub fn bytes(&self) -> usize {
        self.part.len() * (2 * self.param_type.size() + self.states * self.param_type.compute().size())
    }

    /// Whether it has scalars of its own besides its group's.
    pub fn has_scalars(&self) -> bool {
        let rule = self.compiled.rule;
        rule.array_scalars < rule.scalars.len() || rule.needs_matrix()
    }
}
