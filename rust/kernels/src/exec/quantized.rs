//! Converts quantized states of an array from and to float32 where no kernel reads and writes them directly. Knows no rule.

use crate::cpu::{self, LEVELS, Level};
use crate::numeric::{
    Bfloat16State, CopiedRows, Dtype, QUANTIZATION_BLOCK, RandomBits, SCALES_ALIGN, StateFormat, StateStorage,
    quantized::int8,
};

/// A range of a state's elements, for int8 states from the start of a block.
struct Part<'a> {
    /// In float32.
    wide: *mut f32,
    /// As stored.
    kept: *mut u8,
    n: usize,
    /// The scales of its blocks, for int8 states.
    scales: *mut f32,
    /// Which of the rule's streams it is, and the index of its first block in the array.
    number: usize,
    block: usize,
    /// Where in that block it begins.
    offset: usize,
    /// The random bits of the array, for stochastic rounding.
    bits: Option<&'a RandomBits<'a>>,
}

/// Converts a part.
///
/// # Safety
/// `wide` must be valid for `n` elements, `kept` for `n` of its type, and for int8 states the scales for their blocks; they
/// must not overlap and must be writable. Int8 states are dequantized in whole rows, for which `wide` must be valid. The CPU must
/// support the level.
type Convert = unsafe fn(part: &Part);

/// Dequantizing, stochastic rounding and rounding to nearest for bfloat16; dequantizing and quantizing for int8, signed and
/// unsigned.
const KINDS: usize = 7;

static TABLE: [[Convert; KINDS]; LEVELS] = {
    macro_rules! row {
        ($level:ident) => {
            [
                $level::dequantize::<Bfloat16State<false>>,
                $level::quantize::<Bfloat16State<false>>,
                $level::quantize::<Bfloat16State<true>>,
                $level::dequantize_codes::<true>,
                $level::dequantize_codes::<false>,
                $level::quantize_codes::<true>,
                $level::quantize_codes::<false>,
            ]
        };
    }
    cpu::rows!(row)
};

/// One quantized state of an array.
#[derive(Clone, Copy)]
pub(super) struct QuantizedState {
    pub format: StateFormat,
    /// Whether it is never negative.
    pub nonnegative: bool,
    /// Which of the rule's streams it is.
    pub number: usize,
    /// Its memory, the element that it begins with, and its number of elements.
    pub data: *mut u8,
    pub start: usize,
    pub len: usize,
}

impl QuantizedState {
    /// Dequantizes `n` elements from `at`, for int8 the start of a block.
    ///
    /// # Safety
    /// As for [`Convert`].
    pub unsafe fn dequantize(&self, level: Level, wide: *mut f32, (at, n): (usize, usize)) {
        let kind = match self.format {
            StateFormat::Int8 => 3 + usize::from(self.nonnegative),
            _ => 0,
        };
        // SAFETY: upheld by the caller.
        unsafe { TABLE[level as usize][kind](&self.part(wide, (at, n), None)) }
    }

    /// Quantizes `n` elements from `at`, for int8 the start of a block.
    ///
    /// # Safety
    /// As for [`Convert`].
    pub unsafe fn quantize(
        &self,
        level: Level,
        wide: *mut f32,
        (at, n): (usize, usize),
        bits: Option<&RandomBits<'_>>,
    ) {
        let kind = match self.format {
            StateFormat::Int8 => 5 + usize::from(self.nonnegative),
            _ => 1 + usize::from(bits.is_none()),
        };
        let mut done = 0;
        while done < n {
            let (element, run) = match bits.and_then(|bits| bits.rows) {
                None => (at, n),
                Some(&CopiedRows { ref rows, width }) => {
                    let (row, col) = ((at + done) / width, (at + done) % width);
                    (rows[row] * width + col, (width - col).min(n - done))
                }
            };
            let part = Part {
                block: element / QUANTIZATION_BLOCK,
                offset: element % QUANTIZATION_BLOCK,
                ..self.part(wide.wrapping_add(done), (at + done, run), bits)
            };
            // SAFETY: upheld by the caller.
            unsafe { TABLE[level as usize][kind](&part) };
            done += run;
        }
    }

    fn part<'a>(&self, wide: *mut f32, (at, n): (usize, usize), bits: Option<&'a RandomBits<'a>>) -> Part<'a> {
        let (block, first) = (at / QUANTIZATION_BLOCK, self.start / QUANTIZATION_BLOCK);
        let scales = self.data.wrapping_add(self.len.next_multiple_of(SCALES_ALIGN)).cast::<f32>();
        let scales = scales.wrapping_add(block - first);
        let kept = self.data.wrapping_add((at - self.start) * self.format.size(Dtype::F32));
        Part { wide, kept, n, scales, number: self.number, block, offset: at % QUANTIZATION_BLOCK, bits }
    }
}

cpu::each! {
    /// # Safety
    /// As for [`Convert`].
    pub(super) unsafe fn dequantize<T: StateStorage<Compute = f32>>(part: &Part) {
        // SAFETY: upheld by the caller.
        let (wide, kept) = unsafe { part.slices::<T>() };
        for (x, kept) in wide.iter_mut().zip(kept) {
            *x = kept.dequantize();
        }
    }

    /// # Safety
    /// As for [`Convert`].
    pub(super) unsafe fn quantize<T: StateStorage<Compute = f32>>(part: &Part) {
        // SAFETY: upheld by the caller.
        let (wide, kept) = unsafe { part.slices::<T>() };
        let (mut done, mut offset) = (0, part.offset);
        while done < part.n {
            let end = part.n.min(done + QUANTIZATION_BLOCK - offset);
            let random = part.random((part.offset + done) / QUANTIZATION_BLOCK);
            for (k, (x, kept)) in wide[done..end].iter().zip(&mut kept[done..end]).enumerate() {
                *kept = T::quantize(*x, random.map_or(0, |(places, own)| places[offset + k] ^ own));
            }
            (done, offset) = (end, 0);
        }
    }

    /// # Safety
    /// As for [`Convert`].
    pub(super) unsafe fn dequantize_codes<const SIGNED: bool>(part: &Part) {
        for (i, at) in (0..part.n).step_by(QUANTIZATION_BLOCK).enumerate() {
            let n = QUANTIZATION_BLOCK.min(part.n - at);
            let rows = int8::in_rows(n);
            // SAFETY: upheld by the caller; behind a partial block's quantized values is room up to its scales.
            unsafe {
                let kept = std::slice::from_raw_parts(part.kept.add(at), rows);
                let wide = std::slice::from_raw_parts_mut(part.wide.add(at), rows);
                int8::dequantize::<SIGNED>(n, kept, *part.scales.add(i), wide);
            }
        }
    }

    /// # Safety
    /// As for [`Convert`].
    pub(super) unsafe fn quantize_codes<const SIGNED: bool>(part: &Part) {
        // SAFETY: upheld by the caller.
        let (wide, kept) = unsafe { part.slices::<u8>() };
        for (i, (wide, kept)) in wide.chunks(QUANTIZATION_BLOCK).zip(kept.chunks_mut(QUANTIZATION_BLOCK)).enumerate() {
            let scale = int8::scale::<SIGNED>(wide);
            // SAFETY: as above.
            unsafe { *part.scales.add(i) = scale };
            int8::quantize::<SIGNED>(wide, scale, part.random(i), kept);
        }
    }
}

impl Part<'_> {
    /// The random bits of each position in a block, and those of block `i` of the part.
    fn random(&self, i: usize) -> Option<(&[u32; QUANTIZATION_BLOCK], u32)> {
        self.bits.map(|bits| {
            let own: [u32; crate::kernel::MAX_STREAMS] = bits.of_block(self.block + i, self.number + 1);
            (bits.places, own[self.number])
        })
    }

    /// # Safety
    /// Both must be valid for `n` aligned elements, and not overlap.
    #[inline(always)]
    unsafe fn slices<'a, T>(&self) -> (&'a mut [f32], &'a mut [T]) {
        // SAFETY: upheld by the caller.
        unsafe {
            (
                std::slice::from_raw_parts_mut(self.wide, self.n),
                std::slice::from_raw_parts_mut(self.kept.cast(), self.n),
            )
        }
    }
}
