//! Numbers: storage and compute types, functions of rules, sums in a fixed order, quantization, rounding.
//!
//! Knows CPU levels, but no rule and no thread.

pub(crate) mod convert;
mod dtype;
pub(crate) mod fpenv;
mod functions;
mod nonfinite;
pub(crate) mod quantized;
mod real;
pub(crate) mod reduce;
mod rounding;
pub(crate) mod squares;

pub(crate) use dtype::Rounded;
pub use dtype::{Dtype, Storage};
pub(crate) use nonfinite::first_nonfinite;
pub(crate) use quantized::{Bfloat16State, StateStorage};
pub use quantized::{QUANTIZATION_BLOCK, SCALES_ALIGN, StateFormat};
pub use real::{Real, abs, atan2, cbrt, fma, host_log, host_pow, max, min, pow, select, sign, sqrt};
pub use rounding::Rounding;
pub(crate) use rounding::{CopiedRows, RandomBits};
pub use squares::Squares;
