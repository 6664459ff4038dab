//! States in less memory: bfloat16, and eight bits with a scale a block; and parameters rounded from a master copy.
//!
//! What is rounded stochastically takes its random bits from a counter (`noise`), so they are the same on
//! every CPU level, thread count and cut of the work. All arithmetic here is exact or correctly rounded, and written
//! without branches so that it vectorizes. Nothing here knows a rule.

mod codes;
mod halves;
mod noise;
mod tiles;

use crate::storage::Dtype;

pub use noise::Noise;
pub(crate) use tiles::{SmallState, round};

/// Elements that share a scale; a tile holds a whole number of these blocks.
pub const CODED: usize = 256;
/// Codes are followed by their scales, at the next multiple of so many bytes.
pub const SCALES_ALIGN: usize = 64;

/// What states are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StateType {
    /// The type that the parameter is computed in.
    #[default]
    Compute,
    /// bfloat16.
    Bf16,
    /// Eight bits an element and a float32 for each [`CODED`] of them, which follow at the next multiple of
    /// [`SCALES_ALIGN`] bytes.
    Int8,
}

impl StateType {
    /// The type of this name: that of its dtype, or none for the compute type.
    pub fn named(name: Option<&str>) -> Option<StateType> {
        match name {
            None => Some(StateType::Compute),
            Some("bfloat16") => Some(StateType::Bf16),
            Some("int8") => Some(StateType::Int8),
            Some(_) => None,
        }
    }

    /// Bytes of one state of `n` elements, scales included.
    pub const fn bytes(self, compute: Dtype, n: usize) -> usize {
        match self {
            StateType::Int8 => n.next_multiple_of(SCALES_ALIGN) + n.div_ceil(CODED) * size_of::<f32>(),
            _ => n * self.size(compute),
        }
    }

    /// Bytes of one element beside a parameter that is computed in `compute`, scales not counted.
    pub const fn size(self, compute: Dtype) -> usize {
        match self {
            StateType::Compute => compute.size(),
            StateType::Bf16 => 2,
            StateType::Int8 => 1,
        }
    }
}

/// What an array keeps beside the plain: a smaller state, a parameter that is rounded from a master copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Form {
    /// What its states are kept in.
    pub states: StateType,
    /// Where the parameter goes, rounded to nearest even, when what is updated is a master copy of it; `F16` or `Bf16`.
    pub rounded: Option<(Dtype, *mut u8)>,
    /// A copy of the parameter that is made, or taken back, on the way.
    pub aside: Option<Aside>,
}

/// A copy of an array's parameter, byte for byte, made or taken back before the update.
#[derive(Clone, Copy, Debug)]
pub enum Aside {
    /// The parameter goes there first.
    Save(*mut u8),
    /// The parameter comes from there first.
    Restore(*const u8),
}

impl Aside {
    /// Copies `n` bytes from the `at`-th on between the copy and `param`, which starts there.
    ///
    /// # Safety
    /// Both must be valid for those bytes, and not overlap.
    pub(crate) unsafe fn copy(self, param: *mut u8, at: usize, n: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Aside::Save(copy) => copy.add(at).copy_from_nonoverlapping(param, n),
                Aside::Restore(copy) => param.copy_from_nonoverlapping(copy.add(at), n),
            }
        }
    }
}

/// Whether a state of this name may be negative; second moments are called `v`, or `s`, and something behind it.
pub(crate) fn is_signed(name: &str) -> bool {
    !name.starts_with(['v', 's'])
}

/// A type that states are kept in.
trait Kept: Copy {
    /// Random bits that rounding takes.
    const CUT: u32;
    /// Whether a block has a scale.
    const SCALED: bool;
    /// What stands for zero.
    const ZERO: Self;
    /// From memory, of a block with this scale.
    fn read(self, scale: f32) -> f32;
    /// To memory, with a block's inverse scale; what is cut off and random bits decide which of two neighbours it becomes.
    fn keep(x: f32, inverse: f32, random: u32) -> Self;
    /// To memory, to nearest.
    fn nearest(x: f32, inverse: f32) -> Self;
    /// The scale of a block, NaN where it holds what is not finite.
    fn scale(block: &[f32; CODED]) -> f32;
}
