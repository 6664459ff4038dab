//! Kernels: a pass of a rule as a function over streams of memory, for each CPU level and combination of types.
//!
//! The macro `rules!` writes the loop of a pass; it is inlined into a function for each level, which the compiler vectorizes.
//! Nothing here knows an optimizer or a thread.

mod table;

use crate::cpu;
use crate::numeric::{QUANTIZATION_BLOCK, RandomBits, StateStorage, Storage};
use crate::rule::{L2, Rule};
pub(crate) use table::{States, Table, Types, VectorTable, find, find_vector, row_table, table, vector_table};

/// The maximum number of element streams of a pass; the macro rejects rules with more.
pub(crate) const MAX_STREAMS: usize = 16;
/// The maximum number of states of a rule; the macro rejects rules with more.
pub(crate) const MAX_STATES: usize = 24;
/// The maximum number of row and column operands, reduced terms and sums of columns of a pass; the macro rejects passes with more.
pub(crate) const MAX_TERMS: usize = 14;

/// A rule with its kernels.
pub struct CompiledRule {
    /// The rule.
    pub rule: &'static Rule,
    /// The kernels of its passes.
    pub(crate) kernels: &'static [&'static Table],
    /// The kernels of passes with reductions over rows or columns, for neighbouring elements of one row.
    pub(crate) row_kernels: &'static [&'static VectorTable],
    /// The kernels of its stages over rows and columns.
    pub(crate) vector_kernels: &'static [&'static VectorTable],
}

impl std::fmt::Debug for CompiledRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.rule.fmt(f)
    }
}

/// Runs a pass over `n` elements. Its table entry determines the types.
///
/// `streams` points to the first element of the parameter, the gradient, and each element state and backup, in this order; the
/// kernel starts at element `at` of each. Kernels over vectors have those of the rule's rows or columns instead.
///
/// # Safety
/// Every stream that the pass uses must be valid for `n` elements of its type from `at`, aligned, and overlap no other; so must
/// those of [`Tail`] from their start, and its sums for writing. `scalars` must be those of the rule.
pub(crate) type Kernel = unsafe fn(streams: *const *mut u8, at: usize, n: usize, scalars: &[f64], extras: &Extras<'_>);

/// Arguments of a kernel besides the streams of an array.
#[derive(Clone, Copy)]
pub(crate) struct Extras<'a> {
    /// The random bits of the array, for stochastic rounding. A reference, since a copy of what has just been written would take
    /// as long as a call for a few elements.
    pub bits: Option<&'a RandomBits<'a>>,
    /// The index of the block of the array that the kernel starts at.
    pub block: usize,
    /// Number of states that the rule has as streams.
    pub states: usize,
    /// What a pass with operands or reductions has in addition.
    pub tail: Tail,
    /// Whether the kernel prefetches: worth it where the arrays do not fit into the caches.
    pub prefetches: bool,
}

/// Operands and reductions of a pass.
#[derive(Clone, Copy)]
pub(crate) struct Tail {
    /// Streams that start at the kernel's first element: row and column operands, then terms of reductions.
    pub streams: *const *mut u8,
    /// Receives the sums of the stage's first reduction, one for each block.
    pub sums: *mut f64,
    /// From the first sum of one reduction to that of the next.
    pub stride: usize,
}

impl Tail {
    /// That of passes without operands and reductions.
    pub const NONE: Tail = Tail { streams: std::ptr::null(), sums: std::ptr::null_mut(), stride: 0 };
}

impl Extras<'_> {
    /// The extras of most kernels.
    pub const NONE: Extras<'static> = Extras { bits: None, block: 0, states: 0, tail: Tail::NONE, prefetches: false };

    /// The random bits of each position in a block, and those of each state for the block `done` elements further on.
    #[inline(always)]
    pub fn random(&self, done: usize) -> (&[u32], [u32; MAX_STREAMS]) {
        match self.bits {
            Some(bits) => (&bits.places[..], bits.of_block(self.block + done / QUANTIZATION_BLOCK, self.states)),
            None => (&[], [0; MAX_STREAMS]),
        }
    }
}

/// A pass, implemented by the macro.
pub(crate) trait Pass {
    /// Whether weight decay may be added to the gradient.
    const DECAYS: bool;
    /// Whether it divides or takes roots.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // for the choice among levels that only x86-64 has
    const DIVIDES: bool;
    /// # Safety
    /// As for [`Kernel`]: parameters are `P`, gradients `G`, states `S`.
    unsafe fn run<P, G, S, const L2: bool, const FMA: bool>(
        streams: *const *mut u8,
        at: usize,
        n: usize,
        scalars: &[f64],
        extras: &Extras<'_>,
    ) where
        P: Storage,
        G: Storage<Compute = P::Compute>,
        S: StateStorage<Compute = P::Compute>;
}

cpu::each! {
    /// # Safety
    /// As for [`Kernel`], and the CPU must support the level.
    pub(super) unsafe fn kernel<R, P, G, S>(
        streams: *const *mut u8, at: usize, n: usize, scalars: &[f64], extras: &Extras<'_>,
    )
    where
        R: Pass,
        P: Storage,
        G: Storage<Compute = P::Compute>,
        S: StateStorage<Compute = P::Compute>,
    {
        // SAFETY: upheld by the caller.
        unsafe {
            // Specialized by hand: in longer loops the compiler would test it for every element.
            if R::DECAYS && scalars[L2] != 0.0 {
                R::run::<P, G, S, true, FMA>(streams, at, n, scalars, extras)
            } else {
                R::run::<P, G, S, false, FMA>(streams, at, n, scalars, extras)
            }
        }
    }
}

#[cfg(test)]
mod tests;
