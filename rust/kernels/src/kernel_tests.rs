//! Kernels that ask for memory ahead leave the same bits as those that do not, wherever an array ends.

use super::*;
use crate::rules;

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
