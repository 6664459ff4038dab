//! The compute types, and the functions that rules may call.
//!
//! Every function here is correctly rounded or exact, or made of such, so a rule gives the same bits on every CPU level;
//! `prelude.cu` has the GPU versions. Nothing here knows a rule.

use super::functions;
use std::ops::{Add, BitOrAssign, Div, Mul, Neg, Sub};

/// Prevents other crates from implementing these traits, on whose constants kernels rely.
pub(crate) mod sealed {
    /// Implemented only by types of this crate's choice.
    pub trait Sealed {}
}

/// A compute type: `f32` or `f64`.
pub trait Real:
    sealed::Sealed
    + Copy
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + Into<f64>
    + 'static
{
    /// The canonical NaN, the only one ever stored: IEEE 754 leaves sign and payload of a NaN result open, and compilers use
    /// that freedom, so bit-identical results need it.
    const NAN: Self;
    /// Whether float64 represents the square of every number exactly.
    const SQUARES_EXACTLY: bool;
    /// An unsigned integer of the same size.
    type Bits: Copy + Default + PartialEq + BitOrAssign;
    /// The bits, as an integer.
    fn bits(self) -> Self::Bits;
    /// Rounds a host scalar to the compute type, once.
    fn from_f64(x: f64) -> Self;
    /// A number literal of a rule, given in both types so that it is rounded once.
    fn literal(single: f32, double: f64) -> Self;
    /// The sign bit cleared.
    fn absolute(self) -> Self;
    /// `self * b + c` with one rounding.
    fn fused_mul_add(self, b: Self, c: Self) -> Self;
    /// Square root, correctly rounded.
    fn square_root(self) -> Self;
    /// Cube root.
    fn cube_root(self) -> Self;
    /// `self` to the power `y`.
    fn power(self, y: Self) -> Self;
    /// The angle of the point with this height over `x`.
    fn angle(self, x: Self) -> Self;
}

macro_rules! real {
    ($($type:ident, $bits:ty, $single:ident, $double:ident => $literal:ident;)*) => {$(
        impl sealed::Sealed for $type {}

        impl Real for $type {
            const NAN: Self = <$type>::NAN;
            const SQUARES_EXACTLY: bool = 2 * <$type>::MANTISSA_DIGITS <= f64::MANTISSA_DIGITS;
            type Bits = $bits;
            #[inline(always)]
            fn bits(self) -> $bits {
                self.to_bits()
            }
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $type
            }
            #[inline(always)]
            fn literal($single: f32, $double: f64) -> Self {
                $literal
            }
            #[inline(always)]
            fn absolute(self) -> Self {
                self.abs()
            }
            #[inline(always)]
            fn fused_mul_add(self, b: Self, c: Self) -> Self {
                self.mul_add(b, c)
            }
            #[inline(always)]
            fn square_root(self) -> Self {
                self.sqrt()
            }
            #[inline(always)]
            fn cube_root(self) -> Self {
                functions::$type::cbrt(self)
            }
            #[inline(always)]
            fn power(self, y: Self) -> Self {
                functions::$type::pow(self, y)
            }
            #[inline(always)]
            fn angle(self, x: Self) -> Self {
                functions::$type::atan2(self, x)
            }
        }
    )*};
}
real! { f32, u32, single, _double => single; f64, u64, _single, double => double; }

/// `a * b + c` with one rounding.
#[inline(always)]
pub fn fma<C: Real>(a: C, b: C, c: C) -> C {
    a.fused_mul_add(b, c)
}

/// Square root, correctly rounded.
#[inline(always)]
pub fn sqrt<C: Real>(x: C) -> C {
    x.square_root()
}

/// The larger of the two, or NaN when either is NaN (unlike `f32::max`, which would hide it).
#[inline(always)]
#[allow(clippy::eq_op)] // a != a is the NaN test of a type that has no is_nan here
pub fn max<C: Real>(a: C, b: C) -> C {
    select(a > b || a != a, a, b)
}

/// The smaller of the two, or NaN when either is NaN.
#[inline(always)]
#[allow(clippy::eq_op)] // a != a is the NaN test of a type that has no is_nan here
pub fn min<C: Real>(a: C, b: C) -> C {
    select(a < b || a != a, a, b)
}

/// The absolute value of a number; NaN stays NaN.
#[inline(always)]
pub fn abs<C: Real>(x: C) -> C {
    x.absolute()
}

/// 1, -1 or 0 by the sign of a number; zeros and NaN stay as they are.
#[inline(always)]
pub fn sign<C: Real>(x: C) -> C {
    let zero = C::from_f64(0.0);
    select(x > zero, C::from_f64(1.0), select(x < zero, C::from_f64(-1.0), x))
}

/// The cube root.
#[inline(always)]
pub fn cbrt<C: Real>(x: C) -> C {
    x.cube_root()
}

/// `x` to the power `y`; NaN if `x` is negative, or if either is NaN.
#[inline(always)]
pub fn pow<C: Real>(x: C, y: C) -> C {
    x.power(y)
}

/// `pow` in `each_step`, which only the host runs: slower, and right in the last bit more often.
pub fn host_pow(x: f64, y: f64) -> f64 {
    libm::pow(x, y)
}

/// The natural logarithm of `x` in `each_step`, the same on every machine.
pub fn host_log(x: f64) -> f64 {
    libm::log(x)
}

/// The angle of the point `(x, y)`, from -pi to pi.
#[inline(always)]
pub fn atan2<C: Real>(y: C, x: C) -> C {
    y.angle(x)
}

/// `a` where the condition holds, else `b`; both are evaluated, so it compiles to a blend.
#[inline(always)]
pub fn select<C: Real>(condition: bool, a: C, b: C) -> C {
    if condition { a } else { b }
}
