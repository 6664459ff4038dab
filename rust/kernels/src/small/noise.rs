//! The random bits of stochastic rounding: a hash of the seed, the step, the array, the state and the element.

/// Where a step's rounding of small states gets its random bits from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// No random bits: to nearest, ties to even in bfloat16.
    Nearest,
    /// Stochastic rounding, from a number that belongs to the step.
    Step(u64),
}

impl Noise {
    /// Stochastic rounding of step number `step` under a seed.
    pub fn new(seed: u64, step: u64) -> Noise {
        Noise::Step(mix(mix(seed) ^ step))
    }

    /// The same for an array of the step, or for a state of an array.
    pub(crate) fn of(self, part: usize) -> Noise {
        match self {
            Noise::Nearest => Noise::Nearest,
            Noise::Step(key) => Noise::Step(mix(key ^ part as u64)),
        }
    }

    /// The counter of the first element of block `block` of a state.
    pub(crate) fn counter(self, block: usize) -> u32 {
        match self {
            Noise::Nearest => 0,
            Noise::Step(key) => (key as u32).wrapping_add((block as u32).wrapping_mul(PAIRS.wrapping_mul(STRIDE))),
        }
    }
}

/// From one pair's counter to the next one's: modulo 2^32 no two pairs of a state closer than that have the same.
pub(super) const STRIDE: u32 = 0x85eb_ca6b;
/// Pairs of a block: elements half a block apart share a hash.
const PAIRS: u32 = super::CODED as u32 / 2;

/// `n` random bits for either element of a pair. For one element they are as independent from step to step as the keys are;
/// pairs in a step are as independent as one multiplication makes them.
#[inline(always)]
pub(super) fn bits(counter: u32, n: u32) -> (u32, u32) {
    let x = (counter ^ (counter >> 17)).wrapping_mul(0xd35a_2d97);
    let first = x >> (32 - n);
    (first, (x ^ first) & ((1 << n) - 1))
}

/// One number's 64 bits from another's (splitmix64).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
