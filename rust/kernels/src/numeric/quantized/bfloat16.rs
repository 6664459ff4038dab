//! bfloat16 states: the discarded bits determine the probability of rounding up. Knows no rule.

use half::bf16;

use super::StateStorage;
use crate::numeric::Storage;

/// A bfloat16, rounded to nearest even or stochastically.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Bfloat16State<const NEAREST: bool>(bf16);

impl<const NEAREST: bool> StateStorage for Bfloat16State<NEAREST> {
    type Compute = f32;
    const RANDOM_BITS: u32 = if NEAREST { 0 } else { 16 };

    #[inline(always)]
    fn dequantize(self) -> f32 {
        self.0.load()
    }

    #[inline(always)]
    fn quantize(x: f32, random: u32) -> Self {
        Bfloat16State(if NEAREST {
            bf16::store(x)
        } else {
            // The low bits of the canonical NaN are zero: no random bits carry into its high ones.
            bf16::from_bits((f32::store(x).to_bits().wrapping_add(random) >> 16) as u16)
        })
    }
}
