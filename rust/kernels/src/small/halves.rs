//! bfloat16: what is cut off decides how likely the next number is.

use half::bf16;

use super::State;
use crate::storage::Storage;

/// A bfloat16, rounded to nearest even or stochastically.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Half<const NEAREST: bool>(bf16);

impl<const NEAREST: bool> State for Half<NEAREST> {
    type Compute = f32;
    const CUT: u32 = if NEAREST { 0 } else { 16 };

    #[inline(always)]
    fn read(self) -> f32 {
        self.0.load()
    }

    #[inline(always)]
    fn keep(x: f32, random: u32) -> Self {
        Half(if NEAREST {
            bf16::store(x)
        } else {
            // Of the one NaN that kernels store the low bits are zero: no random bits carry into its high ones.
            bf16::from_bits((f32::store(x).to_bits().wrapping_add(random) >> 16) as u16)
        })
    }
}
