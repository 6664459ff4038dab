//! How accurate the functions are, from one end of the range to the other, and that all CPU levels agree about their bits.

use super::{f32 as single, f64 as double};
use crate::cpu;
use crate::cpu::Level;

/// All kinds of numbers: every exponent, both signs, subnormal ones, zeros, infinities, NaN.
fn patterns(count: usize) -> impl Iterator<Item = u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    })
    .take(count)
}

/// The error in units in the last place of the result.
fn error(got: f32, want: f64) -> f64 {
    let nearest = (want as f32).abs();
    if got.is_nan() && want.is_nan() || got == want as f32 && (got == 0.0 || got.is_infinite()) {
        return if got.is_sign_negative() == want.is_sign_negative() || got.is_nan() { 0.0 } else { f64::INFINITY };
    }
    // The step at the largest number is that of all of its size.
    let below = nearest.min(f32::MAX.next_down());
    let ulp = f64::from(below.next_up()) - f64::from(below);
    let error = ((f64::from(got) - want) / ulp).abs();
    if error.is_nan() { f64::INFINITY } else { error }
}

fn worst(errors: impl Iterator<Item = f64>) -> f64 {
    errors.fold(0.0, f64::max)
}

#[test]
fn single_precision() {
    let all = (0..=u32::MAX).step_by(997).map(f32::from_bits);
    let cbrt = worst(all.map(|x| error(single::cbrt(x), libm::cbrt(f64::from(x)))));
    assert!(cbrt < 0.501, "cbrt: {cbrt}");
    let pairs = patterns(4_000_000).enumerate().map(|(i, bits)| {
        let (x, y) = (f32::from_bits(bits as u32), f32::from_bits((bits >> 32) as u32));
        // Two pairs of three near each other, or with an exponent that leaves a number in range.
        let near = (bits >> 32) as f32 / 2_f32.powi(31) - 1.0;
        (x, [y, near, near * x][i % 3])
    });
    let pairs: Vec<_> = pairs.collect();
    let pow = worst(pairs.iter().map(|&(x, y)| {
        let want = if x >= 0.0 && !y.is_nan() { libm::pow(f64::from(x), f64::from(y)) } else { f64::NAN };
        error(single::pow(x, y), if x == 0.0 { want.abs() } else { want })
    }));
    assert!(pow < 0.502, "pow: {pow}");
    let atan2 = worst(pairs.iter().map(|&(x, y)| error(single::atan2(y, x), libm::atan2(f64::from(y), f64::from(x)))));
    assert!(atan2 < 2.1, "atan2: {atan2}");
}

/// Against results of 240 bits: tests/data/make_functions.py.
#[test]
fn double_precision() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/functions.txt");
    let mut worst = [("cbrt", 0.0), ("pow", 0.0), ("atan2", 0.0)];
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [x, y, nearest] = [1, 2, 3].map(|i| f64::from_bits(u64::from_str_radix(words[i], 16).unwrap()));
        let got = match words[0] {
            "cbrt" => double::cbrt(x),
            "pow" => double::pow(x, y),
            _ => double::atan2(x, y),
        };
        let steps = got.to_bits().wrapping_sub(nearest.to_bits()).cast_signed() as f64;
        let error = (steps - words[4].parse::<f64>().unwrap()).abs();
        let (_, most) = worst.iter_mut().find(|(name, _)| *name == words[0]).unwrap();
        *most = f64::max(*most, error);
    }
    assert!(worst[0].1 <= 0.501 && worst[1].1 < 0.65 && worst[2].1 < 2.1, "{worst:?}");
}

#[test]
fn ends_of_the_range() {
    const INFINITY: f64 = f64::INFINITY;
    let pow = [
        (0.0, 2.0, 0.0),
        (-0.0, 3.0, 0.0),
        (0.0, -1.0, INFINITY),
        (0.0, 0.0, 1.0),
        (INFINITY, 0.0, 1.0),
        (INFINITY, 0.3, INFINITY),
        (INFINITY, -0.3, 0.0),
        (2.0, 1e300, INFINITY),
        (0.5, 1e300, 0.0),
        (1.0, 1e300, 1.0),
        (2.0, -1074.0, 5e-324),
        (2.0, -1076.0, 0.0),
        (2.0, 1023.0, 2_f64.powi(1023)),
        (2.0, 1024.0, INFINITY),
        (5e-324, 1.0, 5e-324),
        (f64::MAX, 1.0, f64::MAX),
        (4.0, 0.5, 2.0),
        (0.1, 1.0, 0.1),
        (-1.0, 1.0, f64::NAN),
        (-1.0, 2.0, f64::NAN),
        (f64::NAN, 0.0, f64::NAN),
        (f64::NAN, 0.5, f64::NAN),
        (1.0, f64::NAN, f64::NAN),
    ];
    for (x, y, want) in pow {
        let got = double::pow(x, y);
        assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "pow({x}, {y}) = {got}");
    }
    for x in patterns(1000).map(f64::from_bits).chain([0.0, -0.0, INFINITY, -INFINITY, 5e-324, f64::MAX]) {
        assert_eq!(double::cbrt(-x).to_bits(), (-double::cbrt(x)).to_bits(), "{x}");
        for y in [0.0, -0.0, INFINITY, -INFINITY, f64::NAN] {
            for (a, b) in [(x, y), (y, x)] {
                let (got, want) = (double::atan2(a, b), libm::atan2(a, b));
                assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "atan2({a}, {b}) = {got}");
            }
        }
    }
}

cpu::each! {
    /// # Safety
    /// The CPU must support the level.
    pub(super) unsafe fn evaluate(x: &[f64], y: &[f64], results: &mut [[u64; 6]]) {
        for ((&x, &y), all) in x.iter().zip(y).zip(results) {
            let (a, b) = (x as f32, y as f32);
            let doubles = [double::cbrt(x), double::pow(x, y), double::atan2(x, y)];
            let singles = [single::cbrt(a), single::pow(a, b), single::atan2(a, b)];
            let canonical = |bits: u64, nan: bool| if nan { 0 } else { bits };
            for i in 0..3 {
                all[i] = canonical(doubles[i].to_bits(), doubles[i].is_nan());
                all[i + 3] = canonical(singles[i].to_bits().into(), singles[i].is_nan());
            }
        }
    }
}

#[test]
fn every_level_has_the_same_bits() {
    let all: Vec<f64> = patterns(100_000).map(f64::from_bits).collect();
    let singles: Vec<f64> = all.iter().map(|x| f64::from(f32::from_bits((x.to_bits() >> 20) as u32))).collect();
    for (x, y) in [(&all, &singles), (&singles, &all), (&singles, &singles)] {
        let of = |level: Level| {
            let mut results = vec![[0; 6]; x.len()];
            // SAFETY: only levels that this CPU supports are asked for.
            unsafe {
                match level {
                    Level::Baseline => baseline::evaluate(x, y, &mut results),
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2 => avx2::evaluate(x, y, &mut results),
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512 => avx512::evaluate(x, y, &mut results),
                    #[cfg(not(target_arch = "x86_64"))]
                    _ => baseline::evaluate(x, y, &mut results),
                }
            }
            results
        };
        let baseline = of(Level::Baseline);
        for level in Level::found() {
            assert!(of(level) == baseline, "{level:?}");
        }
    }
}
