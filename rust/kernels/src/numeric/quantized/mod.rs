//! Quantized states: bfloat16, and int8 with a scale for each block of elements.
//!
//! All arithmetic here is exact or correctly rounded, and has no branches, so that it vectorizes. Nothing here knows a
//! rule.

mod bfloat16;
pub(crate) mod int8;

use super::dtype::{Dtype, Storage};
pub(crate) use bfloat16::Bfloat16State;

/// Elements that share a scale; tiles and sum blocks are multiples of it.
pub const QUANTIZATION_BLOCK: usize = 256;
/// Quantized values are followed by their scales, aligned to this many bytes.
pub const SCALES_ALIGN: usize = 64;

/// The storage format of element states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StateFormat {
    /// The parameter's compute type.
    #[default]
    Compute,
    /// bfloat16.
    Bfloat16,
    /// Eight bits per element and a float32 scale per [`QUANTIZATION_BLOCK`] of them; the scales follow at the next multiple of
    /// [`SCALES_ALIGN`] bytes.
    Int8,
}

impl StateFormat {
    /// The format of this dtype name; `None` means the compute type.
    pub fn named(name: Option<&str>) -> Option<StateFormat> {
        match name {
            None => Some(StateFormat::Compute),
            Some("bfloat16") => Some(StateFormat::Bfloat16),
            Some("int8") => Some(StateFormat::Int8),
            Some(_) => None,
        }
    }

    /// Bytes of one state of `n` elements, scales included.
    pub const fn bytes(self, compute: Dtype, n: usize) -> usize {
        match self {
            StateFormat::Int8 => n.next_multiple_of(SCALES_ALIGN) + n.div_ceil(QUANTIZATION_BLOCK) * size_of::<f32>(),
            _ => n * self.size(compute),
        }
    }

    /// Random bits per element that stochastic rounding takes.
    pub(super) const fn random_bits(self) -> u32 {
        match self {
            StateFormat::Int8 => int8::RANDOM_BITS,
            _ => <Bfloat16State<false> as StateStorage>::RANDOM_BITS,
        }
    }

    /// Bytes of one element, for a parameter with the compute type `compute`, scales not counted.
    pub const fn size(self, compute: Dtype) -> usize {
        match self {
            StateFormat::Compute => compute.size(),
            StateFormat::Bfloat16 => 2,
            StateFormat::Int8 => 1,
        }
    }
}

/// A type that states are stored in, element by element.
pub(crate) trait StateStorage: Copy {
    /// Their compute type.
    type Compute: Copy;
    /// Random bits that rounding takes; 0 rounds to nearest.
    const RANDOM_BITS: u32 = 0;
    /// Converts from memory.
    fn dequantize(self) -> Self::Compute;
    /// Converts to memory; the discarded bits and random bits choose between two neighbours. Compute types keep a NaN as it is
    /// until [`StateStorage::canonical`].
    fn quantize(x: Self::Compute, random: u32) -> Self;
    /// The number with the canonical NaN in the place of every other.
    #[inline(always)]
    fn canonical(self) -> Self {
        self
    }
}

macro_rules! plain {
    ($($type:ty),*) => {$(
        impl StateStorage for $type {
            type Compute = $type;
            #[inline(always)]
            fn dequantize(self) -> $type {
                self
            }
            #[inline(always)]
            fn quantize(x: $type, _: u32) -> $type {
                Storage::put(x)
            }
            #[inline(always)]
            fn canonical(self) -> $type {
                Storage::store(self)
            }
        }
    )*};
}
plain!(f32, f64);
