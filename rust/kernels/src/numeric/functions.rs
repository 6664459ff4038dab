//! Cube roots, powers and angles, made of operations that are correctly rounded, so that their bits are the same everywhere.
//!
//! There are no branches, tables or calls: loops over these functions are vectorized. `prelude.cu` has the same operations in
//! the same order. The tests say how accurate they are.

/// A polynomial, its lowest coefficient first.
macro_rules! polynomial {
    ($x:expr, $coefficients:expr) => {{
        let [rest @ .., last] = &$coefficients;
        rest.iter().rev().fold(*last, |sum, coefficient| sum.mul_add($x, *coefficient))
    }};
}

macro_rules! functions {
    ($type:ident, $start:ident, $power:ident, $rounds:literal, $below:literal, $grow:literal, $shrink:literal, $tangents:literal: $atan:expr) => {
        pub mod $type {
            /// Powers of two that bring small numbers into the range of the iteration, and their cube roots back.
            const BELOW: $type = $type::from_bits($below);
            const GROW: $type = $type::from_bits($grow);
            const SHRINK: $type = $type::from_bits($shrink);
            /// `(atan(t)/t - 1)/t^2` in even and in odd powers of `t^2`, up to 1.
            const ATAN: [[$type; $tangents]; 2] = $atan;
            /// Half of pi in two parts.
            const HALF: [$type; 2] = [std::f64::consts::FRAC_PI_2 as $type, {
                let low = std::f64::consts::FRAC_PI_2 - (std::f64::consts::FRAC_PI_2 as $type) as f64;
                (low + 6.123_233_995_736_766e-17) as $type
            }];

            /// The cube root: a power series of high order for its inverse, then Newton's step with an exact residual.
            #[inline(always)]
            pub fn cbrt(x: $type) -> $type {
                let size = x.abs();
                let small = size < BELOW;
                let a = if small { size * GROW } else { size };
                let mut r = super::$start(a);
                for _ in 0..$rounds {
                    let e = (-(a * r)).mul_add(r * r, 1.0);
                    r = (r * e).mul_add(polynomial!(e, [1.0 / 3.0, 2.0 / 9.0, 14.0 / 81.0, 35.0 / 243.0]), r);
                }
                let y = a * r * r;
                let square = y * y;
                let low = y.mul_add(y, -square);
                let residual = low.mul_add(y, square.mul_add(y, -a));
                let y = (residual * (r * r)).mul_add(-1.0 / 3.0, y);
                let y = if small { y * SHRINK } else { y };
                // Zero stays zero by itself.
                (if size < $type::INFINITY { y } else { size }).copysign(x)
            }

            /// `x` to the power `y`; a negative `x` has none. The power 0.5 is the square root by definition, and the power 1
            /// is `x`, so that kernels for these exponents may compute them.
            #[inline(always)]
            pub fn pow(x: $type, y: $type) -> $type {
                const INFINITY: $type = $type::INFINITY;
                let (at_zero, at_infinity) = if y > 0.0 { (0.0, INFINITY) } else { (INFINITY, 0.0) };
                let power = if x < INFINITY { super::$power(x, y) } else { at_infinity };
                let power = if y == 1.0 { x } else { power };
                let power = if x == 0.0 { at_zero } else { power };
                let power = if y == 0.0 { 1.0 } else { power };
                // Also a NaN fails the comparison.
                let power = if x >= 0.0 { power } else { $type::NAN };
                let power = if y == 0.5 { x.sqrt() } else { power };
                // A NaN stays one.
                power + (y - y)
            }

            /// The angle of the point `(x, y)`: that to the nearer axis, added to the axis's. It divides once, since a division takes
            /// as long as ten additions.
            #[inline(always)]
            pub fn atan2(y: $type, x: $type) -> $type {
                let (a, b) = (y.abs(), x.abs());
                let steep = a > b;
                let (large, small) = if steep { (a, b) } else { (b, a) };
                let diagonal = if large > 0.0 { 1.0 } else { 0.0 };
                let t = if large == small { diagonal } else { small / large };
                let square = t * t;
                // Two sums that do not wait for each other.
                let fourth = square * square;
                let series = polynomial!(fourth, ATAN[1]).mul_add(square, polynomial!(fourth, ATAN[0]));
                let (halves, sign): ($type, $type) = if steep { (1.0, -1.0) } else { (0.0, 1.0) };
                let (halves, sign) = if x.is_sign_negative() { (2.0 - halves, -sign) } else { (halves, sign) };
                let angle = t + (halves * HALF[1]).mul_add(sign, t * square * series);
                sign.mul_add(angle, halves * HALF[0]).copysign(y)
            }
        }
    };
}

functions!(f32, root32, power32, 1, 0x2180_0000, 0x6f80_0000, 0x2f80_0000, 4: [
    [-0.333_331_53, -0.142_110_6, -0.075_522_47, -0.016_368_112],
    [0.199_937_73, 0.106_660_22, 0.043_212_2, 0.002_920_732],
]);
functions!(f64, root64, power64, 2, 0x07b0_0000_0000_0000, 0x52b0_0000_0000_0000, 0x39b0_0000_0000_0000, 10: [
    [
        -0.3333333333333307, -0.14285714282574818, -0.09090907002881665, -0.06666404050456302, -0.05253518429804105,
        -0.04219178299287726, -0.02990384814490461, -0.013900558059105383, -0.002884920692055098, -0.00015216122608927192,
    ],
    [
        0.19999999999951455, 0.11111111007018754, 0.07692279838232124, 0.05880527780148657, 0.04722321888441468,
        0.036641901183334705, 0.021984846192131976, 0.007196504774637391, 0.0008313230949771489, 1.3225119973714734e-5,
    ],
]);

/// About the inverse of the cube root, to 4 %: a third of the exponent, and of the fraction as if it were its logarithm.
#[inline(always)]
fn root32(a: f32) -> f32 {
    f32::from_bits(0x54a2_1d2a_u32.wrapping_sub(a.to_bits() / 3))
}

/// What `root32` computes, from the upper half of the bits; as numbers, because few CPUs divide or convert vectors of 64-bit integers.
#[inline(always)]
fn root64(a: f64) -> f64 {
    let upper = f64::from_bits(a.to_bits() >> 32 | INTEGER.to_bits()) - INTEGER;
    let third = (upper * (-1.0 / 3.0) + 1_430_186_341.0) + INTEGER;
    f64::from_bits(third.to_bits() << 32)
}

/// 2^52: added to a whole number below it, its lowest bits are that number.
const INTEGER: f64 = 4_503_599_627_370_496.0;
const TWO_54: f64 = 18_014_398_509_481_984.0;
/// An exponent of `pow` whose powers are 0, 1 or infinite, whatever the base.
const FAR: f64 = 1e21;
const FRACTION: u64 = (1 << 52) - 1;
const ROOT_HALF: u64 = std::f64::consts::FRAC_1_SQRT_2.to_bits();

/// Splits a normal number into an exponent, as a float, and a factor between the roots of one half and of two.
#[inline(always)]
fn split(x: f64) -> (f64, f64) {
    let shifted = x.to_bits().wrapping_sub(ROOT_HALF).wrapping_add(1023 << 52);
    let exponent = f64::from_bits(shifted >> 52 | INTEGER.to_bits()) - (INTEGER + 1023.0);
    (exponent, f64::from_bits((shifted & FRACTION) + ROOT_HALF))
}

/// A positive number to a power, for float32 numbers and in float64: the base 2 logarithm times the exponent, and the power of two of that.
#[inline(always)]
fn power32(x: f32, y: f32) -> f32 {
    let (exponent, m) = split(f64::from(x));
    let s = (m - 1.0) / (m + 1.0);
    const LOG: [f64; 6] = [
        2.8853900817778495,
        0.9617966941140668,
        0.577077942167437,
        0.41220927128720136,
        0.3199049562008573,
        0.2829103261487664,
    ];
    let z = f64::from(y) * s.mul_add(polynomial!(s * s, LOG), exponent);
    // Beyond these all results are zero or infinite.
    let z = if z < 200.0 { z } else { 200.0 };
    let z = if z > -200.0 { z } else { -200.0 };
    let shifted = z + (INTEGER + 1024.0);
    let rest = z - (shifted - (INTEGER + 1024.0));
    const EXP: [f64; 8] = [
        0.9999999999594977,
        0.6931471805349863,
        0.2402265121420562,
        0.05550410976245191,
        0.009618025521324486,
        0.001333342253321634,
        0.00015469757932756248,
        1.5316488000245814e-05,
    ];
    let scale = f64::from_bits(shifted.to_bits().wrapping_sub(1) << 52);
    (polynomial!(rest, EXP) * scale) as f32
}

/// A positive number to a power, for float64 numbers: logarithm, product and the first terms of the power of two are sums of two numbers.
#[inline(always)]
fn power64(x: f64, y: f64) -> f64 {
    const E: f64 = std::f64::consts::LOG2_E;
    const E_LOW: f64 = 2.0355273740931033e-17;
    const LN_2: f64 = std::f64::consts::LN_2;
    const LN_2_LOW: f64 = 2.3190468138462996e-17;
    const THIRDS: f64 = 2.0 / 3.0;
    const THIRDS_LOW: f64 = 3.700743415417188e-17;
    const LOG: [f64; 10] = [
        0.4,
        0.2857142857142857,
        0.22222222222221955,
        0.1818181818190132,
        0.15384615370302457,
        0.1333333482040947,
        0.11764608777901028,
        0.10530323526932021,
        0.09422627862442283,
        0.10109325146243126,
    ];
    const EXP: [f64; 11] = [
        0.24022650695910072,
        0.0555041086648216,
        0.00961812910762848,
        0.0013333558146416916,
        0.00015403530393365517,
        1.5252733829867717e-05,
        1.32154868145624e-06,
        1.0178062426650046e-07,
        7.0548946264250776e-09,
        4.4549644164901565e-10,
        2.5733606408496378e-11,
    ];
    let small = x < f64::MIN_POSITIVE;
    let (exponent, m) = split(if small { x * TWO_54 } else { x });
    let exponent = if small { exponent - 54.0 } else { exponent };
    // s = (m - 1)/(m + 1), and its square.
    let below = m - 1.0;
    let above = m + 1.0;
    let above_low = m - (above - 1.0);
    let inverse = 1.0 / above;
    let s = below * inverse;
    let s_low = ((-s).mul_add(above, below) - s * above_low) * inverse;
    let square = s * s;
    let square_low = (s + s).mul_add(s_low, s.mul_add(s, -square));
    // ln(m) = s*(2 + s^2*(2/3 + ...)).
    let more = square * polynomial!(square, LOG);
    let factor = THIRDS + more;
    let factor_low = (THIRDS - factor) + more + THIRDS_LOW;
    let term = square * factor;
    let term_low = square.mul_add(factor, -term) + square.mul_add(factor_low, square_low * factor);
    let twice = 2.0 + term;
    let twice_low = (2.0 - twice) + term + term_low;
    let ln = s * twice;
    let ln_low = s.mul_add(twice, -ln) + s.mul_add(twice_low, s_low * twice);
    let log = ln * E;
    let log_low = ln.mul_add(E, -log) + ln.mul_add(E_LOW, ln_low * E);
    let sum = exponent + log;
    let sum_low = (exponent - sum) + log + log_low;
    // Beyond these all results are zero, one or infinite.
    let y = if y < FAR { y } else { FAR };
    let y = if y > -FAR { y } else { -FAR };
    let z = y * sum;
    let z_low = y.mul_add(sum, -z) + y * sum_low;
    let inside = z.abs() < 1100.0;
    let z_low = if inside { z_low } else { 0.0 };
    let limit = 1100.0_f64.copysign(z);
    let z = if inside { z } else { limit };
    let shifted = z + (INTEGER + 2048.0);
    let rest = z - (shifted - (INTEGER + 2048.0));
    let r = rest + z_low;
    let r_low = (rest - r) + z_low;
    // 2^r = 1 + ln(2)*r + r^2*(...).
    let first = r * LN_2;
    let first_low = r.mul_add(LN_2, -first) + r.mul_add(LN_2_LOW, r_low * LN_2);
    let sum = 1.0 + first;
    let sum_low = (1.0 - sum) + first;
    let power = sum + (sum_low + (r * r).mul_add(polynomial!(r, EXP), first_low));
    // Two factors: the exponent of one may be out of range.
    let whole = shifted.to_bits() & FRACTION;
    let half = whole >> 1;
    power * f64::from_bits(half.wrapping_sub(1) << 52) * f64::from_bits((whole - half).wrapping_sub(1) << 52)
}

#[cfg(test)]
mod tests;
