//! States in less memory: bfloat16, and eight bits with a scale a block; and parameters rounded from a master copy.
//!
//! What is rounded stochastically takes its random bits from a counter: the seed, the step, the array, the element and the
//! state decide them, so they are the same on every CPU level, thread count and cut of the work. All arithmetic here is
//! exact or correctly rounded, and written without branches so that it vectorizes. Nothing here knows a rule.
//!
//! Eight-bit states are codes with a float32 scale for each block of [`CODED`] elements. A code stands for a number
//! between 0 and 1 whose bits, as a float's, are about its square root's (signed states) or its fourth root's (states that
//! are never negative, second moments): 32 codes a power of two at the top, half as many each two or four powers further
//! down, and equal steps at the end. So neighbouring codes lie on a straight line everywhere, and stochastic rounding
//! keeps the expectation.

use half::{bf16, f16};

use crate::level::{LEVELS, Level};
use crate::storage::{Dtype, Storage};

/// Elements that share a scale; a tile holds a whole number of these blocks.
pub const CODED: usize = 256;
/// Codes are followed by their scales, at the next multiple of so many bytes.
pub const SCALES_ALIGN: usize = 64;

/// What states are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StateType {
    /// The type that the parameter is computed in.
    #[default]
    Compute,
    /// bfloat16.
    Bf16,
    /// Eight bits an element and a float32 for each [`CODED`] of them, which follow at the next multiple of
    /// [`SCALES_ALIGN`] bytes.
    Int8,
}

impl StateType {
    /// The type of this name: that of its dtype, or none for the compute type.
    pub fn named(name: Option<&str>) -> Option<StateType> {
        match name {
            None => Some(StateType::Compute),
            Some("bfloat16") => Some(StateType::Bf16),
            Some("int8") => Some(StateType::Int8),
            Some(_) => None,
        }
    }

    /// Bytes of one state of `n` elements, scales included.
    pub const fn bytes(self, compute: Dtype, n: usize) -> usize {
        match self {
            StateType::Int8 => n.next_multiple_of(SCALES_ALIGN) + n.div_ceil(CODED) * size_of::<f32>(),
            _ => n * self.size(compute),
        }
    }

    /// Bytes of one element beside a parameter that is computed in `compute`, scales not counted.
    pub const fn size(self, compute: Dtype) -> usize {
        match self {
            StateType::Compute => compute.size(),
            StateType::Bf16 => 2,
            StateType::Int8 => 1,
        }
    }
}

/// What an array keeps beside the plain: a smaller state, a parameter that is rounded from a master copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Form {
    /// What its states are kept in.
    pub states: StateType,
    /// Where the parameter goes, rounded to nearest even, when what is updated is a master copy of it; `F16` or `Bf16`.
    pub rounded: Option<(Dtype, *mut u8)>,
}

/// Where a step's rounding of small states gets its random bits from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// No random bits: to nearest, ties to even.
    Nearest,
    /// Stochastic rounding, from a number that belongs to the step.
    Step(u64),
}

impl Noise {
    /// Stochastic rounding of step number `step` under a seed.
    pub fn new(seed: u64, step: u64) -> Noise {
        Noise::Step(mix(mix(seed) ^ step))
    }

    /// What the kernels take for an array, from its first element on.
    pub(crate) fn of(self, array: usize) -> Rounding {
        match self {
            Noise::Nearest => Rounding::NEAREST,
            Noise::Step(key) => {
                let key = mix(key ^ array as u64);
                Rounding { nearest: false, counter: key as u32, key: (key >> 32) as u32, nan: NAN }
            }
        }
    }
}

/// How the states of a run of elements are rounded.
#[derive(Clone, Copy)]
pub(crate) struct Rounding {
    /// To nearest even instead of stochastically.
    pub nearest: bool,
    /// The counter of the first element, and the key of its array and step.
    counter: u32,
    key: u32,
    /// The bits of the NaN that is kept. As a constant the compiler would choose it in sixteen bits, which costs more.
    nan: u32,
}

const NAN: u32 = 0x7fc0_0000;

impl Rounding {
    /// To nearest, ties to even.
    pub const NEAREST: Rounding = Rounding { nearest: true, counter: 0, key: 0, nan: NAN };
    /// From one element's counter to the next one's: modulo 2^32 no two elements closer than that have the same.
    pub const STRIDE: u32 = 0x85eb_ca6b;

    /// The same, `by` elements further on.
    pub fn ahead(self, by: usize) -> Rounding {
        Rounding { counter: self.counter.wrapping_add((by as u32).wrapping_mul(Rounding::STRIDE)), ..self }
    }

    /// The counter of the first element.
    #[inline(always)]
    pub fn counter(&self) -> u32 {
        self.counter
    }

    /// 32 random bits for the element with this counter. For one element they are as independent from step to step as
    /// the keys are; neighbours in a step are as independent as one multiplication makes them.
    #[inline(always)]
    pub fn bits(&self, counter: u32) -> u32 {
        let x = (counter ^ (counter >> 17)).wrapping_mul(0xd35a_2d97) ^ self.key;
        x ^ (x >> 15)
    }

    /// Sixteen random bits for a state of the element that has these 32: two states share them, two more a remix.
    #[inline(always)]
    fn half(bits: u32, state: usize) -> u32 {
        let more = (bits ^ 0x9e37_79b9).wrapping_mul(0x85eb_ca6b);
        let bits = if state < 2 { bits } else { more ^ (more >> 15) };
        if state & 1 == 0 { bits & 0xffff } else { bits >> 16 }
    }
}

/// One number's 64 bits from another's (splitmix64).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A type that a kernel's loop keeps a state in.
pub(crate) trait Kept: Storage {
    /// Whether it is rounded stochastically.
    const RANDOM: bool = false;
    /// From the compute type to memory, for state number `state` of an element with these random bits.
    #[inline(always)]
    fn keep(x: Self::Compute, _rounding: &Rounding, _bits: u32, _state: usize) -> Self {
        Self::store(x)
    }
}

impl Kept for f32 {}
impl Kept for f64 {}
impl Kept for bf16 {}

/// bfloat16 that is rounded stochastically: what is cut off decides how likely the next number is.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Random(bf16);

impl Storage for Random {
    type Compute = f32;
    const DTYPE: Dtype = Dtype::Bf16;

    #[inline(always)]
    fn load(self) -> f32 {
        self.0.load()
    }

    #[inline(always)]
    fn store(x: f32) -> Random {
        Random(bf16::store(x))
    }
}

impl Kept for Random {
    const RANDOM: bool = true;

    #[inline(always)]
    fn keep(x: f32, rounding: &Rounding, bits: u32, state: usize) -> Random {
        let rounded = x.to_bits().wrapping_add(Rounding::half(bits, state));
        let kept = if x.is_nan() { rounding.nan } else { rounded };
        Random(bf16::from_bits((kept >> 16) as u16))
    }
}

/// Between float32 numbers and what states, or parameters, are kept in: `n` elements of state number `state`.
///
/// # Safety
/// `wide` must be valid for `n` elements, `small` for `n` of its type and, for codes, the scales for their blocks; they may
/// not overlap; all must be valid for writing. The CPU must have the level.
type Op = unsafe fn(wide: *mut f32, small: *mut u8, scales: *mut f32, rounding: &Rounding, state: usize, n: usize);

/// Loading and keeping bfloat16, signed codes and codes without sign; storing bfloat16 and float16 parameters.
const OPS: usize = 8;

static TABLE: [[Op; OPS]; LEVELS] = {
    macro_rules! level {
        ($level:ident) => {
            [
                $level::load_halves,
                $level::keep_halves,
                $level::load_codes::<Signed>,
                $level::keep_codes::<Signed>,
                $level::load_codes::<Unsigned>,
                $level::keep_codes::<Unsigned>,
                $level::store::<bf16>,
                $level::store::<f16>,
            ]
        };
    }
    #[cfg(target_arch = "x86_64")]
    let table: [[Op; OPS]; LEVELS] = [level!(baseline), level!(avx2), level!(avx512)];
    #[cfg(not(target_arch = "x86_64"))]
    let table: [[Op; OPS]; LEVELS] = [level!(baseline), level!(baseline), level!(baseline)];
    table
};

/// The number of an operation that loads a state, in [`TABLE`]; the one that keeps it is the next.
fn op(kind: StateType, name: &str) -> usize {
    match kind {
        StateType::Int8 if is_signed(name) => 2,
        StateType::Int8 => 4,
        _ => 0,
    }
}

/// Whether a state of this name may be negative; second moments are called `v`, or `s`, and something behind it.
fn is_signed(name: &str) -> bool {
    !name.starts_with(['v', 's'])
}

/// One state of a run of elements.
pub(crate) struct SmallState<'a> {
    /// How it is kept.
    pub kind: StateType,
    /// What it is called, and which of the rule's it is.
    pub name: &'a str,
    pub number: usize,
    /// Where its elements begin, and the scales of their blocks.
    pub data: *mut u8,
    pub scales: *mut f32,
}

impl SmallState<'_> {
    /// Reads `n` elements.
    ///
    /// # Safety
    /// As for [`Op`].
    pub unsafe fn load(&self, level: Level, wide: *mut f32, n: usize) {
        let (op, rounding) = (op(self.kind, self.name), &Rounding::NEAREST);
        // SAFETY: the caller's promise, passed on.
        unsafe { TABLE[level as usize][op](wide, self.data, self.scales, rounding, self.number, n) }
    }

    /// Writes `n` elements.
    ///
    /// # Safety
    /// As for [`Op`].
    pub unsafe fn keep(&self, level: Level, wide: *mut f32, rounding: &Rounding, n: usize) {
        let op = op(self.kind, self.name) + 1;
        // SAFETY: the caller's promise, passed on.
        unsafe { TABLE[level as usize][op](wide, self.data, self.scales, rounding, self.number, n) }
    }
}

/// Rounds `n` float32 numbers to parameters of two bytes, to nearest even.
///
/// # Safety
/// As for [`Op`].
pub(crate) unsafe fn round(level: Level, wide: *mut f32, dtype: Dtype, param: *mut u8, n: usize) {
    let op = if dtype == Dtype::Bf16 { 6 } else { 7 };
    // SAFETY: the caller's promise, passed on.
    unsafe { TABLE[level as usize][op](wide, param, std::ptr::null_mut(), &Rounding::NEAREST, 0, n) }
}

/// How numbers between 0 and 1 become codes.
trait Code {
    /// What its bits are shifted by: about a root of two to the power of this.
    const ROOT: u32;
    /// The largest code is one less.
    const CODES: f32;
    /// From this code down steps are equal.
    const EQUAL: f32;
    /// Whether there is a sign; without one, what is not zero never becomes zero: it will be divided by.
    const SIGN: bool;

    /// What is added to the shifted bits, so that 1 becomes `CODES`.
    const SHIFT: u32 = (Self::CODES.to_bits()) - (0x3f80_0000 >> Self::ROOT);
    /// One of the equal steps: what the code `EQUAL` stands for, by it.
    const STEP: f32 = f32::from_bits((Self::EQUAL.to_bits() - Self::SHIFT) << Self::ROOT) / Self::EQUAL;
    /// What the largest code stands for.
    const TOP: f32 = f32::from_bits(((Self::CODES - 1.0).to_bits() - Self::SHIFT) << Self::ROOT);
}

struct Signed;
impl Code for Signed {
    const ROOT: u32 = 1;
    const CODES: f32 = 128.0;
    const EQUAL: f32 = 2.0;
    const SIGN: bool = true;
}

struct Unsigned;
impl Code for Unsigned {
    const ROOT: u32 = 2;
    const CODES: f32 = 256.0;
    const EQUAL: f32 = 4.0;
    const SIGN: bool = false;
}

const SIGN: u32 = 0x8000_0000;

/// What a code stands for, in parts of the scale.
#[inline(always)]
fn decode<C: Code>(code: u8) -> f32 {
    let code = if C::SIGN { f32::from(code as i8) } else { f32::from(code) };
    let size = code.abs();
    let rooted = f32::from_bits(size.to_bits().wrapping_sub(C::SHIFT) << C::ROOT);
    let x = if size < C::EQUAL { size * C::STEP } else { rooted };
    f32::from_bits(x.to_bits() | (code.to_bits() & SIGN))
}

/// The code of a number, whose size in parts of the scale is `x`; `up` in 0..1 decides which of two neighbours it is.
///
/// # Safety
/// The number must be finite and `x` so far below `TOP` that the code and `up` are less than `CODES`.
#[inline(always)]
unsafe fn encode<C: Code>(number: f32, x: f32, up: f32) -> u8 {
    let rooted = f32::from_bits((x.to_bits() >> C::ROOT).wrapping_add(C::SHIFT));
    let equal = x * (1.0 / C::STEP);
    // The straight line lies below the root where it is wanted, and above it elsewhere.
    let code = (if equal < rooted { equal } else { rooted }) + up;
    if C::SIGN {
        // SAFETY: a finite number between -128 and 128.
        unsafe { f32::from_bits(code.to_bits() | (number.to_bits() & SIGN)).to_int_unchecked::<i32>() as u8 }
    } else {
        // SAFETY: a finite number below 256.
        unsafe { code.to_int_unchecked::<i32>() }.max(i32::from(number != 0.0)) as u8
    }
}

/// Codes of one block; returns its scale.
#[inline(always)]
fn keep_block<C: Code>(wide: &[f32], codes: &mut [u8], rounding: &Rounding, state: usize) -> f32 {
    let largest = f32::from_bits(wide.iter().fold(0, |largest: u32, x| largest.max(x.to_bits() & !SIGN)));
    // Room for the random part, which may be nearly 1; the nearest code may be the largest one itself.
    let top = if rounding.nearest { C::TOP } else { C::TOP * (1.0 - 1.0 / 4096.0) };
    let scale = largest * (1.0 / top);
    if !scale.is_normal() {
        // Smaller than any normal number, which is nothing beside an epsilon; or spoilt by one that is not finite.
        codes.fill(0);
        return if scale.is_finite() { 0.0 } else { f32::NAN };
    }
    let inverse = top / largest;
    if rounding.nearest {
        for (x, code) in wide.iter().zip(codes) {
            // SAFETY: all are finite, and none is larger than the largest.
            *code = unsafe { encode::<C>(*x, x.abs() * inverse, 0.5) };
        }
        return scale;
    }
    let mut counter = rounding.counter();
    for (x, code) in wide.iter().zip(codes) {
        let random = Rounding::half(rounding.bits(counter), state);
        // SAFETY: as above.
        *code = unsafe { encode::<C>(*x, x.abs() * inverse, f32::from_bits(ONE | (random << 7)) - 1.0) };
        counter = counter.wrapping_add(Rounding::STRIDE);
    }
    scale
}

/// The bits of 1, behind which sixteen random ones make a number from 1 to 2.
const ONE: u32 = 1.0f32.to_bits();

macro_rules! levels {
    ($($(#[$attribute:meta])* $name:ident;)*) => {$(
        mod $name {
            use super::*;

            /// # Safety
            /// As for [`Op`].
            $(#[$attribute])*
            pub unsafe fn load_halves(
                wide: *mut f32, small: *mut u8, _: *mut f32, _: &Rounding, _: usize, n: usize,
            ) {
                // SAFETY: the caller's promise.
                let (wide, small) = unsafe { slices::<bf16>(wide, small, n) };
                for (x, half) in wide.iter_mut().zip(small) {
                    *x = half.load();
                }
            }

            /// # Safety
            /// As for [`Op`].
            $(#[$attribute])*
            pub unsafe fn keep_halves(
                wide: *mut f32, small: *mut u8, _: *mut f32, rounding: &Rounding, state: usize, n: usize,
            ) {
                // SAFETY: the caller's promise.
                let (wide, small) = unsafe { slices::<Random>(wide, small, n) };
                if rounding.nearest {
                    for (x, half) in wide.iter().zip(small) {
                        *half = Random::store(*x);
                    }
                    return;
                }
                let mut counter = rounding.counter();
                for (x, half) in wide.iter().zip(small) {
                    *half = Random::keep(*x, rounding, rounding.bits(counter), state);
                    counter = counter.wrapping_add(Rounding::STRIDE);
                }
            }

            /// # Safety
            /// As for [`Op`].
            $(#[$attribute])*
            pub unsafe fn load_codes<C: Code>(
                wide: *mut f32, small: *mut u8, scales: *mut f32, _: &Rounding, _: usize, n: usize,
            ) {
                // SAFETY: the caller's promise.
                let (wide, small) = unsafe { slices::<u8>(wide, small, n) };
                for (i, (wide, codes)) in wide.chunks_mut(CODED).zip(small.chunks(CODED)).enumerate() {
                    // SAFETY: there is a scale for every block.
                    let scale = unsafe { *scales.add(i) };
                    for (x, code) in wide.iter_mut().zip(codes) {
                        *x = decode::<C>(*code) * scale;
                    }
                }
            }

            /// # Safety
            /// As for [`Op`].
            $(#[$attribute])*
            pub unsafe fn keep_codes<C: Code>(
                wide: *mut f32, small: *mut u8, scales: *mut f32, rounding: &Rounding, state: usize, n: usize,
            ) {
                // SAFETY: the caller's promise.
                let (wide, small) = unsafe { slices::<u8>(wide, small, n) };
                for (i, (wide, codes)) in wide.chunks(CODED).zip(small.chunks_mut(CODED)).enumerate() {
                    let scale = keep_block::<C>(wide, codes, &rounding.ahead(i * CODED), state);
                    // SAFETY: there is a scale for every block.
                    unsafe { *scales.add(i) = scale };
                }
            }

            /// # Safety
            /// As for [`Op`].
            $(#[$attribute])*
            pub unsafe fn store<P: Storage<Compute = f32>>(
                wide: *mut f32, small: *mut u8, _: *mut f32, _: &Rounding, _: usize, n: usize,
            ) {
                // SAFETY: the caller's promise.
                let (wide, small) = unsafe { slices::<P>(wide, small, n) };
                for (x, p) in wide.iter().zip(small) {
                    *p = P::store(*x);
                }
            }
        }
    )*};
}
levels! {
    baseline;
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    avx2;
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
    avx512;
}

/// # Safety
/// Both must be valid for `n` aligned elements, and not overlap.
#[inline(always)]
unsafe fn slices<'a, T>(wide: *mut f32, small: *mut u8, n: usize) -> (&'a mut [f32], &'a mut [T]) {
    // SAFETY: the caller's promise.
    unsafe { (std::slice::from_raw_parts_mut(wide, n), std::slice::from_raw_parts_mut(small.cast(), n)) }
}
