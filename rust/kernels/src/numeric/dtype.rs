//! Storage types: their representation in memory, and their conversion to the compute type inside a kernel's loop.
//!
//! Conversions have no branches, so that they vectorize; they round to nearest even and store one canonical NaN. Nothing here
//! knows a rule.

use half::{bf16, f16};

use super::real::{Real, sealed::Sealed};

/// The storage types, as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE binary32, computed in `f32`.
    F32,
    /// IEEE binary64, computed in `f64`.
    F64,
    /// IEEE binary16, computed in `f32`.
    F16,
    /// bfloat16, computed in `f32`.
    Bf16,
}

impl Dtype {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F64 => 8,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }

    /// The compute type of parameters of this type, which is also the type of their state.
    pub const fn compute(self) -> Dtype {
        match self {
            Dtype::F64 => Dtype::F64,
            _ => Dtype::F32,
        }
    }
}

/// A storage type: `f32`, `f64`, [`half::f16`] or [`half::bf16`].
pub trait Storage: Sealed + Copy + Send + Sync + 'static {
    /// Its compute type.
    type Compute: Real;
    /// This type as a value.
    const DTYPE: Dtype;
    /// Converts from memory to the compute type; exact.
    fn load(self) -> Self::Compute;
    /// Converts from the compute type to memory: rounds to nearest even, with one canonical NaN.
    fn store(x: Self::Compute) -> Self;
    /// Stores for a loop that canonicalizes NaN in a second pass: until then a NaN may stay as it is.
    #[inline(always)]
    fn put(x: Self::Compute) -> Self {
        Self::store(x)
    }
}

macro_rules! native {
    ($($type:ty, $dtype:expr;)*) => {$(
        impl Storage for $type {
            type Compute = $type;
            const DTYPE: Dtype = $dtype;
            #[inline(always)]
            fn load(self) -> $type {
                self
            }
            #[inline(always)]
            fn store(x: $type) -> $type {
                if x.is_nan() { <$type as Real>::NAN } else { x }
            }
            #[inline(always)]
            fn put(x: $type) -> $type {
                x
            }
        }
    )*};
}
native!(f32, Dtype::F32; f64, Dtype::F64;);

impl Sealed for bf16 {}

impl Storage for bf16 {
    type Compute = f32;
    const DTYPE: Dtype = Dtype::Bf16;

    #[inline(always)]
    fn load(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }

    #[inline(always)]
    fn store(x: f32) -> bf16 {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        bf16::from_bits(if x.is_nan() { 0x7fc0 } else { rounded as u16 })
    }
}

impl Sealed for f16 {}

impl Storage for f16 {
    type Compute = f32;
    const DTYPE: Dtype = Dtype::F16;

    #[inline(always)]
    fn load(self) -> f32 {
        let half = self.to_bits() as u32;
        let magnitude = (half & 0x7fff) << 13;
        // Re-bias the exponent by an exact multiplication with 2^112, which also normalizes subnormal halves.
        let scaled = (f32::from_bits(magnitude) * f32::from_bits(0x7780_0000)).to_bits();
        let special = if magnitude >= 0x0f80_0000 { 0x7f80_0000 } else { 0 };
        f32::from_bits(scaled | special | ((half & 0x8000) << 16))
    }

    #[inline(always)]
    fn store(x: f32) -> f16 {
        let sign = (x.to_bits() >> 16) & 0x8000;
        let magnitude = x.to_bits() & 0x7fff_ffff;
        // Normal halves: re-bias the exponent and round to nearest even on the thirteen dropped bits.
        let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + ((magnitude >> 13) & 1)) >> 13;
        // Subnormal halves: adding 0.5 aligns the mantissa so that the addition itself rounds to nearest even.
        let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
        let finite = if magnitude < 113 << 23 { subnormal } else { normal };
        let half = if magnitude >= 143 << 23 { 0x7c00 } else { finite };
        f16::from_bits(if x.is_nan() { 0x7e00 } else { (half | sign) as u16 })
    }
}

/// A float64 gradient of a parameter whose compute type is float32: it is rounded to float32 first.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Rounded(f64);

impl Sealed for Rounded {}

impl Storage for Rounded {
    type Compute = f32;
    const DTYPE: Dtype = Dtype::F64;

    #[inline(always)]
    fn load(self) -> f32 {
        self.0 as f32
    }

    #[inline(always)]
    fn store(x: f32) -> Rounded {
        Rounded(f64::store(x.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_load_exactly() {
        for bits in 0..=u16::MAX {
            let (h, b) = (f16::from_bits(bits), bf16::from_bits(bits));
            assert!(h.load().to_bits() == h.to_f32().to_bits() || h.is_nan(), "{bits:#x}");
            assert!(b.load().to_bits() == b.to_f32().to_bits() || b.is_nan(), "{bits:#x}");
        }
    }

    #[test]
    fn halves_store_to_nearest_even() {
        // Every 16,001st float, and the neighbours of every half: ties, overflow, subnormals, NaN.
        let around = (0..=u16::MAX).flat_map(|bits| {
            [f16::from_bits(bits).to_f32(), bf16::from_bits(bits).to_f32()]
                .into_iter()
                .flat_map(|x| {
                    [-4097, -4096, -4095, -1, 0, 1, 4095, 4096, 4097, 32767, 32768, 32769].map(|d: i32| (x, d))
                })
                .map(|(x, d)| f32::from_bits(x.to_bits().wrapping_add_signed(d)))
        });
        for x in around.chain((0..u32::MAX).step_by(16_001).map(f32::from_bits)) {
            if x.is_nan() {
                assert_eq!(f16::store(x).to_bits(), 0x7e00);
                assert_eq!(bf16::store(x).to_bits(), 0x7fc0);
            } else {
                assert_eq!(f16::store(x).to_bits(), f16::from_f32(x).to_bits(), "{x:e}");
                assert_eq!(bf16::store(x).to_bits(), bf16::from_f32(x).to_bits(), "{x:e}");
            }
        }
    }
}
