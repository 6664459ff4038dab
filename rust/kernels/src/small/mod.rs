//! States in less memory: bfloat16, and eight bits with a scale a block; and parameters rounded from a master copy.
//!
//! What is rounded stochastically takes its random bits from a counter (`noise`), so they are the same on
//! every CPU level, thread count and cut of the work. All arithmetic here is exact or correctly rounded, and written
//! without branches so that it vectorizes. Nothing here knows a rule.

pub(crate) mod codes;
mod halves;
mod noise;
mod tiles;

use crate::kernel;
use crate::rule::MAX_STATES;
use crate::storage::{Dtype, Storage};

pub(crate) use halves::Half;
pub(crate) use noise::Bits;
pub use noise::Noise;
pub(crate) use tiles::{SmallState, round};

/// Elements that share a scale; a tile, and a block of sums, hold a whole number of these blocks.
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

    /// Random bits that stochastic rounding takes for an element.
    const fn cut(self) -> u32 {
        match self {
            StateType::Int8 => codes::CUT,
            _ => <Half<false> as State>::CUT,
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
    /// Where the copy is, and what a kernel does with it.
    pub(crate) fn parts(self) -> (*mut u8, u8) {
        match self {
            Aside::Save(copy) => (copy, kernel::SAVE),
            Aside::Restore(copy) => (copy.cast_mut(), kernel::RESTORE),
        }
    }

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

/// Whether each of a rule's states may be negative; second moments are called `v`, or `s`, and something behind it.
pub(crate) const fn signed(names: &[&str]) -> [bool; MAX_STATES] {
    let mut signed = [true; MAX_STATES];
    let mut k = 0;
    while k < names.len() {
        signed[k] = !matches!(names[k].as_bytes()[0], b'v' | b's');
        k += 1;
    }
    signed
}

/// What a kernel needs beside the numbers.
pub(crate) struct Beside<'a> {
    /// The random bits of the array, for stochastic rounding.
    pub bits: Option<Bits<'a>>,
    /// Which block of the array a kernel starts at.
    pub block: usize,
    /// The scales of blocks, from that one on.
    pub scales: [*mut f32; MAX_STATES],
    /// The copy of the parameter that a kernel makes or takes back.
    pub aside: *mut u8,
    /// Whether memory is asked for ahead.
    pub far: bool,
}

impl Beside<'_> {
    /// Nothing, as plain states need it.
    pub const NOTHING: Beside<'static> = Beside {
        bits: None,
        block: 0,
        scales: [std::ptr::null_mut(); MAX_STATES],
        aside: std::ptr::null_mut(),
        far: false,
    };

    /// The same, with memory asked for ahead.
    pub const FAR: Beside<'static> = Beside { far: true, ..Beside::NOTHING };
}

/// A type that states are kept in.
pub(crate) trait State: Copy {
    /// What they are computed in.
    type Compute: Copy;
    /// Random bits that rounding takes; none to round to nearest.
    const CUT: u32 = 0;
    /// From memory.
    fn read(self) -> Self::Compute;
    /// To memory; what is cut off and random bits decide which of two neighbours it becomes.
    fn keep(x: Self::Compute, random: u32) -> Self;
    /// Whether it may keep a NaN as it is until [`State::settled`].
    const SETTLES: bool = false;
    /// The same, with the one NaN that is stored in the end.
    #[inline(always)]
    fn settled(self) -> Self {
        self
    }
}

macro_rules! plain {
    ($($type:ty),*) => {$(
        impl State for $type {
            type Compute = $type;
            #[inline(always)]
            fn read(self) -> $type {
                self
            }
            #[inline(always)]
            fn keep(x: $type, _: u32) -> $type {
                Storage::put(x)
            }
            const SETTLES: bool = true;
            #[inline(always)]
            fn settled(self) -> $type {
                Storage::store(self)
            }
        }
    )*};
}
plain!(f32, f64);
