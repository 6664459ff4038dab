//! bfloat16: what is cut off decides how likely the next number is.

use half::bf16;

use super::{CODED, Kept};
use crate::storage::Storage;

impl Kept for bf16 {
    const CUT: u32 = 16;
    const SCALED: bool = false;
    const ZERO: bf16 = bf16::ZERO;

    #[inline(always)]
    fn read(self, _: f32) -> f32 {
        self.load()
    }

    #[inline(always)]
    fn keep(x: f32, _: f32, random: u32) -> bf16 {
        // Of the one NaN that kernels store the low bits are zero: no random bits carry into its high ones.
        bf16::from_bits((x.to_bits().wrapping_add(random) >> 16) as u16)
    }

    #[inline(always)]
    fn nearest(x: f32, _: f32) -> bf16 {
        bf16::store(x)
    }

    #[inline(always)]
    fn scale(_: &[f32; CODED]) -> f32 {
        1.0
    }
}
