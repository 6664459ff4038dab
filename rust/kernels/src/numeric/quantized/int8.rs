//! Eight-bit states: int8 values with a float32 scale for each block of [`QUANTIZATION_BLOCK`](super::QUANTIZATION_BLOCK)
//! elements. Knows no rule.
//!
//! A number is scaled to between 0 and almost 2, a small constant is added, and the sum's float bits are truncated after four
//! mantissa bits: sixteen values per power of two, and equal steps for numbers below the constant. The discarded bits
//! determine the probability of rounding up, so stochastic rounding is one addition of random bits. Float bits are linear in
//! the number between neighbouring values, so this keeps the expectation.
//!
//! The sums have only as many exponents as eight bits can distinguish, and the range starts where those bits are zero, so the
//! quantized value is the eight bits at that position. A nonnegative state covers sixteen powers of two, from 2^-15. A signed
//! one covers eight, from 2^-7; a positive number is divided by 2^8 before it is quantized, which clears the lowest exponent
//! bit that the magnitude does not use, so that this eighth bit is the sign: set for negative numbers.
//!
//! A whole block is stored in words of four quantized values: those of elements a quarter of a block apart, the first in the
//! lowest byte. So a vector of words converts to vectors of numbers, and back, without moving data between lanes. A partial
//! block keeps its elements' order.

use super::{QUANTIZATION_BLOCK, SCALES_ALIGN};

/// Bits of a float's mantissa that are discarded.
pub(super) const RANDOM_BITS: u32 = 19;
/// The constant added to numbers of signed states, and of nonnegative ones.
const SMALL: f32 = 1.0 / 128.0;
const LEAST: f32 = 1.0 / 32768.0;
/// Words of four quantized values in a block.
const WORDS: usize = QUANTIZATION_BLOCK / 4;

/// Elements of a row. A partial block is dequantized in whole rows: loops of fixed length leave no elements over. Its scales
/// begin behind the last one.
const ROW: usize = SCALES_ALIGN;

/// The elements of the rows that `n` elements are in.
pub(crate) fn in_rows(n: usize) -> usize {
    n.next_multiple_of(ROW)
}

/// Dequantizes a block of `n` elements in whole rows.
#[inline(always)]
pub(crate) fn dequantize<const SIGNED: bool>(n: usize, codes: &[u8], scale: f32, wide: &mut [f32]) {
    if let (QUANTIZATION_BLOCK, Ok(whole), Ok(wide)) =
        (n, <&[u8; QUANTIZATION_BLOCK]>::try_from(codes), <&mut [f32; QUANTIZATION_BLOCK]>::try_from(&mut *wide))
    {
        let [a, b, c, d] = quarters_mut(wide);
        for (w, word) in whole.as_chunks::<4>().0.iter().enumerate() {
            let word = u32::from_le_bytes(*word);
            a[w] = number::<SIGNED>(word & 0xff, scale);
            b[w] = number::<SIGNED>(word >> 8 & 0xff, scale);
            c[w] = number::<SIGNED>(word >> 16 & 0xff, scale);
            d[w] = number::<SIGNED>(word >> 24, scale);
        }
    } else {
        for (row, codes) in wide.as_chunks_mut::<ROW>().0.iter_mut().zip(codes.as_chunks::<ROW>().0) {
            for (x, code) in row.iter_mut().zip(codes) {
                *x = number::<SIGNED>(u32::from(*code), scale);
            }
        }
    }
}

/// Quantizes a block with its scale. `random` has the random bits of each position in a block and those of the block; without
/// them numbers are rounded to nearest.
#[inline(always)]
pub(crate) fn quantize<const SIGNED: bool>(
    block: &[f32],
    scale: f32,
    random: Option<(&[u32; QUANTIZATION_BLOCK], u32)>,
    codes: &mut [u8],
) {
    // Neither zero nor NaN.
    if scale > 0.0 {
        match random {
            Some((places, own)) => write::<SIGNED>(block, 1.0 / scale, places, |place| place ^ own, codes),
            None => write::<SIGNED>(block, 1.0 / scale, &[0; QUANTIZATION_BLOCK], |_| 1 << (RANDOM_BITS - 1), codes),
        }
    } else {
        codes.fill(0);
    }
}

#[inline(always)]
fn write<const SIGNED: bool>(
    block: &[f32],
    inverse: f32,
    places: &[u32; QUANTIZATION_BLOCK],
    random: impl Fn(u32) -> u32,
    codes: &mut [u8],
) {
    let code = |x: f32, place: u32| code::<SIGNED>(x, inverse, random(place));
    if let (Ok(whole), Ok(codes)) =
        (<&[f32; QUANTIZATION_BLOCK]>::try_from(block), <&mut [u8; QUANTIZATION_BLOCK]>::try_from(&mut *codes))
    {
        let ([a, b, c, d], [e, f, g, h]) = (quarters(whole), quarters(places));
        for (w, word) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let four = code(a[w], e[w]) | code(b[w], f[w]) << 8 | code(c[w], g[w]) << 16 | code(d[w], h[w]) << 24;
            *word = four.to_le_bytes();
        }
    } else {
        for ((x, place), small) in block.iter().zip(places).zip(codes) {
            *small = code(*x, *place) as u8;
        }
    }
}

fn quarters<T>(block: &[T; QUANTIZATION_BLOCK]) -> [&[T; WORDS]; 4] {
    let [a, b, c, d] = block.as_chunks::<WORDS>().0 else { unreachable!("a block has four") };
    [a, b, c, d]
}

fn quarters_mut(block: &mut [f32; QUANTIZATION_BLOCK]) -> [&mut [f32; WORDS]; 4] {
    let [a, b, c, d] = block.as_chunks_mut::<WORDS>().0 else { unreachable!("a block has four") };
    [a, b, c, d]
}

/// Dequantizes a value.
#[inline(always)]
fn number<const SIGNED: bool>(code: u32, scale: f32) -> f32 {
    if SIGNED {
        let size = f32::from_bits((code & 0x7f) << RANDOM_BITS | SMALL.to_bits()) - SMALL;
        size * f32::from_bits(scale.to_bits() ^ (code & 0x80) << 24)
    } else {
        (f32::from_bits(code << RANDOM_BITS | LEAST.to_bits()) - LEAST) * scale
    }
}

/// Quantizes a number: the discarded bits and random bits choose between its two neighbours.
#[inline(always)]
fn code<const SIGNED: bool>(x: f32, inverse: f32, random: u32) -> u32 {
    if SIGNED {
        let negative = (x.to_bits() as i32) < 0;
        let inverse = if negative { -inverse } else { inverse * (1.0 / 256.0) };
        let added = if negative { SMALL } else { LEAST };
        (x.mul_add(inverse, added).to_bits().wrapping_add(random) >> RANDOM_BITS) & 0xff
    } else {
        let sum = x.mul_add(inverse, LEAST).to_bits().wrapping_add(random);
        // Nothing rounds to zero: optimizers divide by these states.
        (sum.max(LEAST.to_bits() + (1 << RANDOM_BITS)) >> RANDOM_BITS) & 0xff
    }
}

/// The scale of a block; NaN if it has a NaN or an infinity.
#[inline(always)]
pub(crate) fn scale<const SIGNED: bool>(block: &[f32]) -> f32 {
    let largest = block.iter().fold(0, |largest: u32, x| largest.max(x.to_bits() & 0x7fff_ffff));
    // The largest quantized value, slightly reduced because sums are rounded.
    let top = (31.0 / 16.0 - if SIGNED { SMALL } else { LEAST }) * (1.0 - 1.0 / 4096.0);
    let largest = f32::from_bits(largest);
    let scale = largest * (1.0 / top);
    match (largest.is_finite(), scale.is_normal()) {
        (false, _) => f32::NAN,
        // Zero or subnormal: the inverse could overflow.
        (true, false) => 0.0,
        (true, true) => scale,
    }
}
