//! Kernels that ask for memory ahead leave the same bits as those that do not, wherever an array ends; and every NaN that a
//! kernel leaves is the one.

use half::{bf16, f16};

use super::*;
use crate::fetch::{AHEAD, GROUP};
use crate::level::Level;
use crate::rules;
use crate::storage::Dtype;

const LENGTHS: [usize; 12] = [0, 1, 63, 64, 65, GROUP + AHEAD - 1, GROUP + AHEAD, 383, 384, 385, 1000, 4096];

/// Numbers of a type, between a half and one and a half.
fn numbers(dtype: Dtype, n: usize, seed: usize) -> Vec<u64> {
    let mut bytes = Vec::new();
    for i in 0..n {
        let x = 0.5 + (i.wrapping_mul(2_654_435_761).wrapping_add(seed * 977) % 1000) as f64 / 1000.0;
        match dtype {
            Dtype::F32 => bytes.extend((x as f32).to_ne_bytes()),
            Dtype::F64 => bytes.extend(x.to_ne_bytes()),
            Dtype::F16 => bytes.extend(f16::from_f64(x).to_ne_bytes()),
            Dtype::Bf16 => bytes.extend(bf16::from_f64(x).to_ne_bytes()),
        }
    }
    aligned(bytes)
}

/// Bytes in memory that is aligned for every type.
fn aligned(mut bytes: Vec<u8>) -> Vec<u64> {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect()
}

/// What a kernel leaves of parameter, gradient, states and copy.
fn run(kernel: Kernel, (param, grad): (Dtype, Dtype), n: usize, far: bool) -> Vec<Vec<u64>> {
    let state = param.compute();
    let types = [param, grad, param, state, state, state, state];
    let mut memory: Vec<_> = types.iter().zip(1..).map(|(&dtype, seed)| numbers(dtype, n, seed)).collect();
    let [param, grad, aside, states @ ..] =
        <[*mut u8; 3 + MAX_STATES]>::try_from(memory.iter_mut().map(|b| b.as_mut_ptr().cast()).collect::<Vec<_>>())
            .unwrap();
    let scalars = std::array::from_fn(|k| [0.5, 0.25, 0.125, 0.75][k % 4]);
    // SAFETY: every stream is a buffer of its own of `n` elements; the level was found.
    unsafe { kernel(&Streams { param, grad, states }, n, &scalars, &Beside { aside, far, ..Beside::NOTHING }) };
    memory
}

#[test]
fn asking_for_memory_ahead_changes_no_bit() {
    use Dtype::{Bf16, F16, F32, F64};
    for &rule in rules::ALL.iter().chain(rules::tools::ALL) {
        let tables = [Some(&rule.kernels), rule.aside.as_ref().map(|(_, table)| table)];
        for (table, level) in tables.into_iter().flatten().flat_map(|t| Level::found().into_iter().map(move |l| (t, l)))
        {
            for types in [(F32, F32), (F64, F64), (F16, F16), (Bf16, F32), (F32, Bf16)] {
                let kernel = find(table, level, types.0, types.1).unwrap();
                for n in LENGTHS {
                    let same = run(kernel, types, n, true) == run(kernel, types, n, false);
                    assert!(same, "{rule:?} {types:?} at {level:?}, {n} elements");
                }
            }
        }
    }
}

/// One, infinity and two NaNs of their own in a type, then the NaN that is stored.
fn specials(dtype: Dtype) -> [u64; 5] {
    match dtype {
        Dtype::F32 => [0x3f80_0000, 0x7f80_0000, 0x7fc1_2345, 0xffc5_4321, 0x7fc0_0000],
        Dtype::F64 => [0x3ff0 << 48, 0x7ff0 << 48, 0x7ff8_0000_0001_2345, 0xfff8_0000_0005_4321, 0x7ff8 << 48],
        Dtype::F16 => [0x3c00, 0x7c00, 0x7e01, 0xfe05, 0x7e00],
        Dtype::Bf16 => [0x3f80, 0x7f80, 0x7fc1, 0xffc5, 0x7fc0],
    }
}

#[test]
fn every_nan_that_is_stored_is_the_one() {
    use Dtype::{Bf16, F32, F64};
    const N: usize = 9;
    for &rule in rules::ALL {
        let layer = rule.layer.as_ref().map(|layer| (&layer.measures, (layer.direction)().states.len(), true));
        let tables = [Some((&rule.kernels, rule.states.len(), false)), layer];
        for ((table, states, measures), level) in
            tables.into_iter().flatten().flat_map(|t| Level::found().into_iter().map(move |l| (t, l)))
        {
            for (param, grad) in [(F32, F32), (F64, F64), (Bf16, F32)] {
                let kernel = find(table, level, param, grad).unwrap();
                let types = [param, grad].into_iter().chain(std::iter::repeat_n(param.compute(), states));
                let types: Vec<Dtype> = types.collect();
                // Every choice of special values, the same in all elements, with scalars of which some are zero.
                for choice in 0..4usize.pow(types.len() as u32) * 16 {
                    let scalars =
                        std::array::from_fn(|k| f64::from(((choice / 16) + k + 1) * (choice % 16 + 1) % 7 > 2) / 2.0);
                    let mut memory: Vec<Vec<u64>> = Vec::new();
                    for (k, &dtype) in types.iter().enumerate() {
                        let value = specials(dtype)[((choice / 16) >> (2 * k)) & 3];
                        memory.push(aligned(value.to_le_bytes()[..dtype.size()].repeat(N)));
                    }
                    let mut streams = Streams {
                        param: std::ptr::null_mut(),
                        grad: std::ptr::null(),
                        states: [std::ptr::null_mut(); MAX_STATES],
                    };
                    for (k, buffer) in memory.iter_mut().enumerate() {
                        let pointer = buffer.as_mut_ptr().cast();
                        match k {
                            0 => streams.param = pointer,
                            1 => streams.grad = pointer,
                            _ => streams.states[k - 2] = pointer,
                        }
                    }
                    // SAFETY: every stream is a buffer of its own of `N` elements; the level was found.
                    unsafe { kernel(&streams, N, &scalars, &Beside::NOTHING) };
                    for (k, buffer) in memory.iter().enumerate().filter(|(k, _)| {
                        *k != 1 && (*k != 0 || !measures) && (*k < 2 || measures || rule.writes_states)
                    }) {
                        let [_, infinity, .., nan] = specials(types[k]);
                        let bytes: Vec<u8> = buffer.iter().flat_map(|word| word.to_ne_bytes()).collect();
                        for value in bytes[..N * types[k].size()].chunks(types[k].size()) {
                            let bits = value.iter().rev().fold(0, |bits: u64, byte| bits << 8 | u64::from(*byte));
                            let sign = 1 << (8 * types[k].size() - 1);
                            let one = bits & !sign <= infinity || bits == nan;
                            assert!(
                                one,
                                "{rule:?} {types:?} at {level:?}, stream {k}: {bits:#x}; see `hides nan` in rule.rs"
                            );
                        }
                    }
                }
            }
        }
    }
}
