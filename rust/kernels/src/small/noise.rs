//! The random bits of stochastic rounding: decided by the seed, the step, the array, the state and the element.
//!
//! They are the exclusive or of two random numbers: one for each place in a block, the same for all blocks of a step, and
//! one for each block of each state. So they cost one operation, and any two of a step are independent of each other.

use super::{CODED, StateType};
use crate::rule::MAX_STATES;

/// How a step rounds states in less memory.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // a step has one
pub enum Noise {
    /// To nearest, ties to even in bfloat16.
    Nearest,
    /// Stochastically.
    Step {
        /// A number that belongs to the step.
        key: u64,
        /// How many bits are wanted.
        n: u32,
        /// So many random bits for each place in a block.
        places: [u32; CODED],
    },
}

impl Noise {
    /// Stochastic rounding of states of this kind in step number `step` under a seed.
    pub fn new(seed: u64, step: u64, states: StateType) -> Noise {
        let n = states.cut();
        let key = mix(mix(seed) ^ step);
        let mut places = [0; CODED];
        for (k, two) in places.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *two = two_of(mix(key.wrapping_add(k as u64)), n);
        }
        Noise::Step { key: mix(key), n, places }
    }

    /// The random bits of an array of the step; none to round to nearest.
    pub(crate) fn of(&self, array: usize) -> Option<Bits<'_>> {
        match self {
            Noise::Nearest => None,
            Noise::Step { key, n, places } => Some(Bits { key: mix(key ^ array as u64), n: *n, places }),
        }
    }
}

/// The random bits of an array.
#[derive(Clone, Copy)]
pub(crate) struct Bits<'a> {
    key: u64,
    n: u32,
    pub places: &'a [u32; CODED],
}

impl Bits<'_> {
    /// What belongs to a block of each state.
    #[inline(always)]
    pub fn block(&self, block: usize) -> [u32; MAX_STATES] {
        let first = mix(self.key ^ block as u64);
        let ([a, b], [c, d]) = (two_of(first, self.n), two_of(mix(first), self.n));
        [a, b, c, d]
    }
}

/// Twice `n` of 64 bits, at most 32 each.
fn two_of(x: u64, n: u32) -> [u32; 2] {
    [x as u32, (x >> 32) as u32].map(|half| half & (u32::MAX >> (32 - n)))
}

/// One number's 64 bits from another's (splitmix64).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
