//! States and parameters that no kernel takes as they are: converted a tile at a time, from and to float32.

use half::{bf16, f16};

use super::noise::Bits;
use super::{CODED, Half, SCALES_ALIGN, State, StateType, codes};
use crate::level::{self, LEVELS, Level};
use crate::storage::{Dtype, Storage};

/// What is converted.
struct Part<'a> {
    /// In float32.
    wide: *mut f32,
    /// In less memory.
    small: *mut u8,
    n: usize,
    /// The scales of its blocks, where it has any.
    scales: *mut f32,
    /// Which of the rule's states it is, and which block of the array's it begins at.
    number: usize,
    block: usize,
    /// The random bits of the array, for stochastic rounding.
    bits: Option<Bits<'a>>,
}

/// Converts a part.
///
/// # Safety
/// `wide` must be valid for `n` elements, `small` for `n` of its type and, for codes, the scales for their blocks; they may
/// not overlap; all must be valid for writing. The CPU must have the level.
type Op = unsafe fn(part: &Part);

/// Loading, keeping stochastically and keeping to nearest bfloat16; loading and keeping codes with and without sign; storing
/// bfloat16 and float16 parameters.
const OPS: usize = 9;

static TABLE: [[Op; OPS]; LEVELS] = {
    macro_rules! row {
        ($level:ident) => {
            [
                $level::load::<Half<false>>,
                $level::keep::<Half<false>>,
                $level::keep::<Half<true>>,
                $level::load_codes::<true>,
                $level::load_codes::<false>,
                $level::keep_codes::<true>,
                $level::keep_codes::<false>,
                $level::store::<bf16>,
                $level::store::<f16>,
            ]
        };
    }
    level::rows!(row)
};

/// One state of an array.
#[derive(Clone, Copy)]
pub(crate) struct SmallState {
    /// How it is kept.
    pub kind: StateType,
    /// Whether it may be negative.
    pub signed: bool,
    /// Which of the rule's it is.
    pub number: usize,
    /// Its memory, and its elements.
    pub data: *mut u8,
    pub len: usize,
}

impl SmallState {
    /// The scale of the block that `at` begins.
    pub fn scales(&self, at: usize) -> *mut f32 {
        self.data.wrapping_add(self.len.next_multiple_of(SCALES_ALIGN)).cast::<f32>().wrapping_add(at / CODED)
    }

    /// Reads `n` elements from `at`, which begins a block.
    ///
    /// # Safety
    /// As for [`Op`].
    pub unsafe fn load(&self, level: Level, wide: *mut f32, (at, n): (usize, usize)) {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.run([0, 3, 4], level, wide, (at, n), None) }
    }

    /// Writes `n` elements from `at`, which begins a block.
    ///
    /// # Safety
    /// As for [`Op`].
    pub unsafe fn keep(&self, level: Level, wide: *mut f32, (at, n): (usize, usize), bits: Option<Bits<'_>>) {
        let half = if bits.is_none() { 2 } else { 1 };
        // SAFETY: the caller's promise, passed on.
        unsafe { self.run([half, 5, 6], level, wide, (at, n), bits) }
    }

    /// Runs what the table has for bfloat16, codes with sign or codes without.
    ///
    /// # Safety
    /// As for [`Op`].
    unsafe fn run(
        &self,
        [half, signed, unsigned]: [usize; 3],
        level: Level,
        wide: *mut f32,
        (at, n): (usize, usize),
        bits: Option<Bits<'_>>,
    ) {
        let op = match self.kind {
            StateType::Int8 if self.signed => signed,
            StateType::Int8 => unsigned,
            _ => half,
        };
        let small = self.data.wrapping_add(at * self.kind.size(Dtype::F32));
        let (scales, block) = (self.scales(at), at / CODED);
        let part = Part { wide, small, n, scales, number: self.number, block, bits };
        // SAFETY: the caller's promise, passed on.
        unsafe { TABLE[level as usize][op](&part) }
    }
}

/// Rounds `n` float32 numbers to parameters of two bytes, to nearest even.
///
/// # Safety
/// As for [`Op`].
pub(crate) unsafe fn round(level: Level, wide: *mut f32, dtype: Dtype, param: *mut u8, n: usize) {
    let op = if dtype == Dtype::Bf16 { 7 } else { 8 };
    let scales = std::ptr::null_mut();
    let part = Part { wide, small: param, n, scales, number: 0, block: 0, bits: None };
    // SAFETY: the caller's promise, passed on.
    unsafe { TABLE[level as usize][op](&part) }
}

level::each! {
    /// # Safety
    /// As for [`Op`].
    pub(super) unsafe fn load<T: State<Compute = f32>>(part: &Part) {
        // SAFETY: the caller's promise.
        let (wide, small) = unsafe { part.slices::<T>() };
        for (x, small) in wide.iter_mut().zip(small) {
            *x = small.read();
        }
    }

    /// # Safety
    /// As for [`Op`].
    pub(super) unsafe fn keep<T: State<Compute = f32>>(part: &Part) {
        // SAFETY: the caller's promise.
        let (wide, small) = unsafe { part.slices::<T>() };
        for (i, (wide, small)) in wide.chunks(CODED).zip(small.chunks_mut(CODED)).enumerate() {
            let random = part.random(i);
            for (k, (x, small)) in wide.iter().zip(small).enumerate() {
                *small = T::keep(*x, random.map_or(0, |(places, own)| places[k] ^ own));
            }
        }
    }

    /// # Safety
    /// As for [`Op`].
    pub(super) unsafe fn load_codes<const SIGNED: bool>(part: &Part) {
        // SAFETY: the caller's promise.
        let (wide, small) = unsafe { part.slices::<u8>() };
        let mut block = [0.0; CODED];
        for (i, (wide, small)) in wide.chunks_mut(CODED).zip(small.chunks(CODED)).enumerate() {
            // SAFETY: as above.
            codes::read::<SIGNED>(small, unsafe { *part.scales.add(i) }, &mut block);
            wide.copy_from_slice(&block[..wide.len()]);
        }
    }

    /// # Safety
    /// As for [`Op`].
    pub(super) unsafe fn keep_codes<const SIGNED: bool>(part: &Part) {
        // SAFETY: the caller's promise.
        let (wide, small) = unsafe { part.slices::<u8>() };
        for (i, (wide, small)) in wide.chunks(CODED).zip(small.chunks_mut(CODED)).enumerate() {
            let scale = codes::scale::<SIGNED>(wide);
            // SAFETY: as above.
            unsafe { *part.scales.add(i) = scale };
            codes::keep::<SIGNED>(wide, scale, part.random(i), small);
        }
    }

    /// # Safety
    /// As for [`Op`].
    pub(super) unsafe fn store<P: Storage<Compute = f32>>(part: &Part) {
        // SAFETY: the caller's promise.
        let (wide, small) = unsafe { part.slices::<P>() };
        for (x, p) in wide.iter().zip(small) {
            *p = P::store(*x);
        }
    }
}

impl Part<'_> {
    /// The random bits of places, and those of block `i` of the part.
    fn random(&self, i: usize) -> Option<(&[u32; CODED], u32)> {
        self.bits.map(|bits| (bits.places, bits.block(self.block + i)[self.number]))
    }

    /// # Safety
    /// Both must be valid for `n` aligned elements, and not overlap.
    #[inline(always)]
    unsafe fn slices<'a, T>(&self) -> (&'a mut [f32], &'a mut [T]) {
        // SAFETY: the caller's promise.
        unsafe {
            (
                std::slice::from_raw_parts_mut(self.wide, self.n),
                std::slice::from_raw_parts_mut(self.small.cast(), self.n),
            )
        }
    }
}
