//! bfloat16: what is cut off decides how likely the next number is.

use half::bf16;

use super::{CODED, Kept};
use crate::storage::Storage;

const NAN: u32 = 0x7fc0_0000;

impl Kept for bf16 {
    const CUT: u32 = 16;
    const SCALED: bool = false;
    const ZERO: bf16 = bf16::ZERO;

    #[inline(always)]
    fn read(self, _: f32) -> f32 {
        self.load()
    }

    #[inline(always)]
    fn keep(x: f32, _: f32, random: u32) -> u32 {
        let kept = if x.is_nan() { NAN } else { x.to_bits().wrapping_add(random) };
        kept >> 16
    }

    #[inline(always)]
    fn narrow(word: u32) -> bf16 {
        bf16::from_bits(word as u16)
    }

    #[inline(always)]
    fn nearest(x: f32, _: f32) -> u32 {
        bf16::store(x).to_bits().into()
    }

    #[inline(always)]
    fn scale(_: &[f32; CODED]) -> f32 {
        1.0
    }
}
