//! Eight-bit states: codes with a float32 scale for each block of [`CODED`](super::CODED) elements.
//!
//! A number is scaled to between 0 and almost 2, a small constant is added, and the bits of that sum, as a float's, are cut
//! off behind four of its mantissa: sixteen codes a power of two, and equal steps where the number is smaller than the
//! constant. What is cut off decides how likely the next code is, so stochastic rounding is one addition of random bits;
//! neighbouring codes lie on a straight line everywhere, so it keeps the expectation.
//!
//! Of the sum's exponents only as many occur as the code has bits for, and they begin where those bits are zero: the code
//! is the eight bits at their place. A state that is never negative has sixteen powers of two, from 2^-15. One with sign has
//! eight, from 2^-7; a positive number is divided by 2^8 before it is coded, which is the lowest bit of the exponent that
//! the size leaves alone, so that this eighth bit of the code says that a number is negative.

use super::{CODED, Kept};

/// An eight-bit code.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Code<const SIGNED: bool>(u8);

/// What is added to numbers whose states have a sign, and to others.
const SMALL: f32 = 1.0 / 128.0;
const LEAST: f32 = 1.0 / 32768.0;

impl<const SIGNED: bool> Code<SIGNED> {
    const ADDED: f32 = if SIGNED { SMALL } else { LEAST };
}

impl<const SIGNED: bool> Kept for Code<SIGNED> {
    const CUT: u32 = 19;
    const SCALED: bool = true;
    const ZERO: Self = Code(0);

    #[inline(always)]
    fn read(self, scale: f32) -> f32 {
        if SIGNED {
            let code = self.0 as i8;
            let size = f32::from_bits((code as u32 & 0x7f) << Self::CUT | SMALL.to_bits()) - SMALL;
            size * if code < 0 { -scale } else { scale }
        } else {
            (f32::from_bits(u32::from(self.0) << Self::CUT | LEAST.to_bits()) - LEAST) * scale
        }
    }

    #[inline(always)]
    fn keep(x: f32, inverse: f32, random: u32) -> Self {
        if SIGNED {
            let negative = (x.to_bits() as i32) < 0;
            let inverse = if negative { -inverse } else { inverse * (1.0 / 256.0) };
            let added = if negative { SMALL } else { LEAST };
            Code((x.mul_add(inverse, added).to_bits().wrapping_add(random) >> Self::CUT) as u8)
        } else {
            let sum = x.mul_add(inverse, LEAST).to_bits().wrapping_add(random);
            // None becomes zero: it will be divided by.
            Code((sum.max(LEAST.to_bits() + (1 << Self::CUT)) >> Self::CUT) as u8)
        }
    }

    #[inline(always)]
    fn nearest(x: f32, inverse: f32) -> Self {
        Self::keep(x, inverse, 1 << (Self::CUT - 1))
    }

    #[inline(always)]
    fn scale(block: &[f32; CODED]) -> f32 {
        let largest = block.iter().fold(0, |largest: u32, x| largest.max(x.to_bits() & 0x7fff_ffff));
        // What the largest code stands for, and a little less, since sums are rounded.
        let top = (31.0 / 16.0 - Self::ADDED) * (1.0 - 1.0 / 4096.0);
        let largest = f32::from_bits(largest);
        let scale = largest * (1.0 / top);
        match (largest.is_finite(), scale.is_normal()) {
            (false, _) => f32::NAN,
            // It would have no inverse.
            (true, false) => 0.0,
            (true, true) => scale,
        }
    }
}
