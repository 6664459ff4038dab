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

use super::State;

/// An eight-bit code, rounded to nearest or stochastically.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Code<const NEAREST: bool>(u8);

/// Bits of a float's mantissa that are cut off.
const CUT: u32 = 19;
/// What is added to numbers whose states have a sign, and to others.
const SMALL: f32 = 1.0 / 128.0;
const LEAST: f32 = 1.0 / 32768.0;

impl<const NEAREST: bool> State for Code<NEAREST> {
    type Compute = f32;
    const CUT: u32 = if NEAREST { 0 } else { CUT };
    const SCALED: bool = true;

    #[inline(always)]
    fn read(self, scale: f32, signed: bool) -> f32 {
        if signed {
            let code = self.0 as i8 as u32;
            let size = f32::from_bits((code & 0x7f) << CUT | SMALL.to_bits()) - SMALL;
            size * f32::from_bits(scale.to_bits() ^ code & 0x8000_0000)
        } else {
            (f32::from_bits(u32::from(self.0) << CUT | LEAST.to_bits()) - LEAST) * scale
        }
    }

    fn keep(_: f32, _: u32) -> Self {
        unreachable!("a block is kept at once")
    }

    #[inline(always)]
    fn keep_block(block: &[f32], small: &mut [Self], places: &[u32], own: u32, signed: bool) -> f32 {
        let scale = scale(block, signed);
        // Neither a zero nor a NaN.
        if scale > 0.0 {
            let inverse = 1.0 / scale;
            let n = block.len();
            let (small, places) = (&mut small[..n], &places[..if NEAREST { 0 } else { n }]);
            for k in 0..n {
                let random = if NEAREST { 1 << (CUT - 1) } else { places[k] ^ own };
                small[k] = Code(code(block[k], inverse, random, signed));
            }
        } else {
            small.fill(Code(0));
        }
        scale
    }
}

#[inline(always)]
fn code(x: f32, inverse: f32, random: u32, signed: bool) -> u8 {
    if signed {
        let negative = (x.to_bits() as i32) < 0;
        let inverse = if negative { -inverse } else { inverse * (1.0 / 256.0) };
        let added = if negative { SMALL } else { LEAST };
        (x.mul_add(inverse, added).to_bits().wrapping_add(random) >> CUT) as u8
    } else {
        let sum = x.mul_add(inverse, LEAST).to_bits().wrapping_add(random);
        // None becomes zero: it will be divided by.
        (sum.max(LEAST.to_bits() + (1 << CUT)) >> CUT) as u8
    }
}

/// The scale of a block, NaN where it holds what is not finite.
#[inline(always)]
fn scale(block: &[f32], signed: bool) -> f32 {
    let largest = block.iter().fold(0, |largest: u32, x| largest.max(x.to_bits() & 0x7fff_ffff));
    // What the largest code stands for, and a little less, since sums are rounded.
    let top = (31.0 / 16.0 - if signed { SMALL } else { LEAST }) * (1.0 - 1.0 / 4096.0);
    let largest = f32::from_bits(largest);
    let scale = largest * (1.0 / top);
    match (largest.is_finite(), scale.is_normal()) {
        (false, _) => f32::NAN,
        // It would have no inverse.
        (true, false) => 0.0,
        (true, true) => scale,
    }
}
