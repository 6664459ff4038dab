//! Tests that every NaN stored by a kernel is the canonical one, whatever produced it. Knows no driver.

use super::*;
use crate::cpu::Level;
use crate::numeric::{Dtype, Rounding, StateFormat};
use crate::optimizers;
use crate::rule::{Kind, Scope, Stage};

/// Number of elements: not a multiple of any level's vector width.
const N: usize = 9;

/// One, infinity and two non-canonical NaNs of a type, then the canonical NaN.
fn specials(dtype: Dtype) -> [u64; 5] {
    match dtype {
        Dtype::F32 => [0x3f80_0000, 0x7f80_0000, 0x7fc1_2345, 0xffc5_4321, 0x7fc0_0000],
        Dtype::F64 => [0x3ff0 << 48, 0x7ff0 << 48, 0x7ff8_0000_0001_2345, 0xfff8_0000_0005_4321, 0x7ff8 << 48],
        Dtype::F16 => [0x3c00, 0x7c00, 0x7e01, 0xfe05, 0x7e00],
        Dtype::Bf16 => [0x3f80, 0x7f80, 0x7fc1, 0xffc5, 0x7fc0],
    }
}

/// A stream whose elements are all the same number.
fn stream(dtype: Dtype, special: usize) -> Vec<u64> {
    let mut bytes = specials(dtype)[special].to_le_bytes()[..dtype.size()].repeat(N);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
}

/// A bit pattern in a stream that is a NaN but not the canonical one, if any.
fn wrong_nan(dtype: Dtype, stream: &[u64]) -> Option<u64> {
    let [_, infinity, .., nan] = specials(dtype);
    let bytes: Vec<u8> = stream.iter().flat_map(|word| word.to_le_bytes()).collect();
    let sign = 1 << (8 * dtype.size() - 1);
    bytes[..N * dtype.size()]
        .chunks(dtype.size())
        .map(|bytes| bytes.iter().rev().fold(0, |bits: u64, byte| bits << 8 | u64::from(*byte)))
        .find(|&bits| bits & !sign > infinity && bits != nan)
}

/// A kernel and its streams.
struct Case<'a> {
    kernel: Kernel,
    what: String,
    /// The element streams that it uses: index, type, whether they are written.
    streams: Vec<(usize, Dtype, bool)>,
    /// How many operands it reads after them, and how many streams of terms it writes.
    operands: usize,
    tiles: usize,
    compute: Dtype,
    scalars: usize,
    bits: Option<RandomBits<'a>>,
    states: usize,
}

impl Case<'_> {
    /// Runs the kernel on every combination of special values, with some scalars zero and some NaN.
    fn check(&self) {
        let places = self.streams.len() + self.operands;
        for choice in 0..4usize.pow(places as u32) * 16 {
            let (values, pattern) = (choice / 16, choice % 16);
            let scalar = |k: usize| match (values + k + 1) * (pattern + 1) % 7 {
                6 if pattern >= 12 => f64::from_bits(specials(Dtype::F64)[3]),
                3.. => 0.5,
                _ => 0.0,
            };
            let scalars: Vec<f64> = (0..self.scalars).map(scalar).collect();
            let special = |k: usize| values >> (2 * k) & 3;
            let types = self.streams.iter().map(|&(_, dtype, _)| dtype);
            let types = types.chain(std::iter::repeat_n(self.compute, self.operands));
            let mut memory: Vec<_> = types.enumerate().map(|(k, dtype)| stream(dtype, special(k))).collect();
            memory.resize(places + self.tiles, vec![0; N]);
            let mut pointers = memory.iter_mut().map(|buffer| buffer.as_mut_ptr().cast::<u8>());
            let mut streams = [std::ptr::null_mut(); MAX_STREAMS];
            for &(place, ..) in &self.streams {
                streams[place] = pointers.next().unwrap();
            }
            let tail: Vec<*mut u8> = pointers.collect();
            let mut sums = [0.0; MAX_STREAMS];
            let extras = Extras {
                bits: self.bits.as_ref(),
                block: 0,
                states: self.states,
                tail: Tail { streams: tail.as_ptr(), sums: sums.as_mut_ptr(), stride: 1 },
                prefetches: false,
            };
            // SAFETY: every stream is a separate buffer of `N` elements; this CPU supports the level.
            unsafe { (self.kernel)(streams.as_ptr(), 0, N, &scalars, &extras) };
            for (&(place, dtype, written), buffer) in self.streams.iter().zip(&memory) {
                let wrong = wrong_nan(dtype, buffer).filter(|_| written);
                assert!(wrong.is_none(), "{}, stream {place}, scalars {scalars:?}: {:#x}", self.what, wrong.unwrap());
            }
        }
    }
}

fn pass_of(stage: &'static crate::rule::Stage) -> Option<&'static crate::rule::Pass> {
    match &stage.kind {
        crate::rule::Kind::Pass(pass) => Some(pass),
        _ => None,
    }
}

#[test]
fn passes_store_the_canonical_nan() {
    use Dtype::{Bf16, F32, F64};
    let rounding = Rounding::stochastic(1, 2, StateFormat::Bfloat16);
    for compiled in optimizers::ALL.iter().chain(optimizers::TOOLS) {
        let rule = compiled.rule;
        // A pass that reuses a term has a second kernel, with one more operand.
        let passes = rule.stages().filter_map(|stage| Some((stage, pass_of(stage)?)));
        let kernels = passes
            .flat_map(|(stage, pass)| (0..=usize::from(pass.recalls.is_some())).map(move |more| (stage, pass, more)));
        for (stage, pass, more) in kernels {
            for (param, grad, states) in [
                (F32, F32, States::Compute),
                (F64, F64, States::Compute),
                (Bf16, F32, States::Compute),
                (F32, F32, States::Bfloat16),
            ] {
                let state_type = if states == States::Compute { param.compute() } else { Bf16 };
                let mut streams = Vec::new();
                if pass.reads_param {
                    streams.push((0, param, pass.writes_param));
                }
                if pass.reads_grad {
                    streams.push((1, grad, false));
                }
                for (k, (_, state)) in rule.streams().enumerate() {
                    if (pass.reads | pass.writes) & 1 << k != 0 {
                        // A backup keeps every bit of the parameter.
                        let backup = state.scope == Scope::Backup;
                        let written = !backup && pass.writes & 1 << k != 0;
                        streams.push((2 + k, if backup { param } else { state_type }, written));
                    }
                }
                for level in Level::found() {
                    let types = Types { param, grad, states };
                    let Some(kernel) = find(compiled.kernels[pass.kernel + more], level, types) else { continue };
                    let case = Case {
                        kernel,
                        what: format!("{rule:?}, kernel {} of {types:?} at {level:?}", pass.kernel + more),
                        streams: streams.clone(),
                        operands: pass.operands.len() + more,
                        tiles: pass.tiles,
                        compute: param.compute(),
                        scalars: rule.scalars.len(),
                        bits: rounding.of_array(0).filter(|_| states == States::Bfloat16),
                        states: rule.streams().count(),
                    };
                    case.check();
                    let Some(place) = pass.row_kernel.filter(|_| more == 0 && (grad, state_type) == (param, param))
                    else {
                        continue;
                    };
                    let of_cols =
                        |stage: &&Stage| stage.reductions.iter().filter(|one| one.scope == Scope::Col).count();
                    Case {
                        kernel: find_vector(compiled.row_kernels[place], level, param),
                        what: format!("{rule:?}, kernel {place} for rows of {types:?} at {level:?}"),
                        tiles: of_cols(&stage) + pass.tiles,
                        ..case
                    }
                    .check();
                }
            }
        }
    }
}

#[test]
fn texts_over_rows_and_columns_store_the_canonical_nan() {
    for compiled in optimizers::ALL.iter().chain(optimizers::TOOLS) {
        let rule = compiled.rule;
        for stage in rule.stages() {
            let Kind::Vector { scope, kernel } = stage.kind else { continue };
            let vectors = if scope == Scope::Row { rule.rows } else { rule.cols };
            for (compute, level) in
                [Dtype::F32, Dtype::F64].iter().flat_map(|c| Level::found().into_iter().map(move |l| (*c, l)))
            {
                let written = |name: &str| stage.statements.iter().any(|s| !s.local && s.name == name);
                let streams = vectors.iter().enumerate().map(|(k, name)| (k, compute, written(name)));
                let case = Case {
                    kernel: find_vector(compiled.vector_kernels[kernel], level, compute),
                    what: format!("{rule:?}, text {kernel} over {scope:?} of {compute:?} at {level:?}"),
                    streams: streams.collect(),
                    operands: 0,
                    tiles: stage.reductions.len() * 2,
                    compute,
                    scalars: rule.scalars.len(),
                    bits: None,
                    states: 0,
                };
                case.check();
            }
        }
    }
}
