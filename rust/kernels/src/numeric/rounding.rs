//! The random bits of stochastic rounding, a function of the seed, the step, the array, the state and the element. Knows no
//! rule.
//!
//! They are the exclusive or of two random numbers: one for each position in a block, shared by all blocks of a step, and one
//! for each block of each state. So they cost one operation, and any two of a step are independent of each other.

use super::quantized::{QUANTIZATION_BLOCK, StateFormat};

/// How a step rounds quantized states.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // there is one per step
pub enum Rounding {
    /// To nearest, ties to even in bfloat16.
    Nearest,
    /// Stochastically.
    Stochastic {
        /// The step's random key.
        key: u64,
        /// Number of random bits per element.
        bits: u32,
        /// Random bits for each position in a block.
        places: [u32; QUANTIZATION_BLOCK],
        /// The number of the first array, for a part of a step.
        first: usize,
    },
}

impl Rounding {
    /// Stochastic rounding of states of this format in step number `step` under a seed.
    pub fn stochastic(seed: u64, step: u64, states: StateFormat) -> Rounding {
        let bits = states.random_bits();
        let key = mix(mix(seed) ^ step);
        let mut places = [0; QUANTIZATION_BLOCK];
        for (k, pair) in places.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *pair = halves(mix(key.wrapping_add(k as u64)), bits);
        }
        Rounding::Stochastic { key: mix(key), bits, places, first: 0 }
    }

    /// This rounding for arrays that are numbered from this one on.
    pub fn from_array(mut self, array: usize) -> Rounding {
        if let Rounding::Stochastic { first, .. } = &mut self {
            *first = array;
        }
        self
    }

    /// The random bits of an array in this step; `None` for rounding to nearest.
    pub(crate) fn of_array(&self, array: usize) -> Option<RandomBits<'_>> {
        match self {
            Rounding::Nearest => None,
            Rounding::Stochastic { key, bits, places, first } => {
                Some(RandomBits { key: mix(key ^ (first + array) as u64), bits: *bits, places, rows: None })
            }
        }
    }
}

/// The random bits of an array.
#[derive(Clone, Copy)]
pub(crate) struct RandomBits<'a> {
    key: u64,
    bits: u32,
    pub places: &'a [u32; QUANTIZATION_BLOCK],
    /// The rows that a copy has of the array, if these are the bits of such a copy. A reference, because each call copies it.
    pub rows: Option<&'a CopiedRows>,
}

/// Some rows of an array, whose elements lie one behind the other in a copy.
#[derive(Debug)]
pub(crate) struct CopiedRows {
    pub rows: Vec<usize>,
    /// Elements of a row.
    pub width: usize,
}

impl<'a> RandomBits<'a> {
    /// The random bits of a copy of some rows of the array.
    pub fn of_rows(self, rows: &'a CopiedRows) -> RandomBits<'a> {
        RandomBits { rows: Some(rows), ..self }
    }

    /// The block's random bits for each of the first `count` states.
    #[inline(always)]
    pub fn of_block<const N: usize>(&self, block: usize, count: usize) -> [u32; N] {
        let mut result = [0; N];
        let mut word = mix(self.key ^ block as u64);
        for pair in result[..count.next_multiple_of(2).min(N)].as_chunks_mut::<2>().0 {
            *pair = halves(word, self.bits);
            word = mix(word);
        }
        result
    }
}

/// The two halves of a 64-bit number, each reduced to `bits` bits.
fn halves(x: u64, bits: u32) -> [u32; 2] {
    [x as u32, (x >> 32) as u32].map(|half| half & (u32::MAX >> (32 - bits)))
}

/// Derives 64 random bits from a number (splitmix64).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
