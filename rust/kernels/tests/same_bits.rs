//! Every rule gives the same bits at every CPU level, thread count and cut, for every pair of types and on special
//! values: the baseline on one thread is the oracle.

use schuss::level::Level;
use schuss::rule::{MAX_STATES, Scalars};
use schuss::{
    After, CODED, Common, Decay, Dtype, Form, Noise, Rows, Rule, SCALES_ALIGN, Segment, StateType, Step, WorkList,
};

const DTYPES: [Dtype; 4] = [Dtype::F32, Dtype::F64, Dtype::F16, Dtype::Bf16];
/// Past the parallel threshold together, with every kind of tail.
const LENGTHS: [usize; 9] = [0, 1, 7, 16, 33, 1000, 100_003, 4096, 33_000];

/// Memory of one array, aligned to eight bytes.
type Buffer = Vec<u64>;

/// Numbers of a type from a counter: ordinary ones of many magnitudes, and every kind of special one.
fn numbers(dtype: Dtype, n: usize, seed: u64, magnitude: bool) -> Buffer {
    let mut bytes = Vec::with_capacity(n * dtype.size());
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for i in 0..n {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let mut x = (state >> 11) as f64 / (1u64 << 53) as f64 * 4.0 - 2.0;
        x *= [1.0, 1e-3, 30.0][(state % 3) as usize];
        if i % 97 == 5 {
            let tiny = if dtype == Dtype::F64 { 5e-324 } else { 1e-42 };
            x = [f64::NAN, f64::INFINITY, -0.0, f64::NEG_INFINITY, tiny, -f64::NAN, 1e300, 6e-8][i / 97 % 8];
        }
        if magnitude {
            x = x.abs();
        }
        match dtype {
            Dtype::F32 => bytes.extend((x as f32).to_ne_bytes()),
            Dtype::F64 => bytes.extend(x.to_ne_bytes()),
            Dtype::F16 => bytes.extend(half::f16::from_f64(x).to_ne_bytes()),
            Dtype::Bf16 => bytes.extend(half::bf16::from_f64(x).to_ne_bytes()),
        }
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect()
}

/// One state of `n` elements, in what it is kept in.
fn state(kind: StateType, compute: Dtype, n: usize, seed: u64) -> Buffer {
    match kind {
        StateType::Compute => numbers(compute, n, seed, true),
        StateType::Bf16 => numbers(Dtype::Bf16, n, seed, true),
        StateType::Int8 => {
            let codes = n.next_multiple_of(SCALES_ALIGN) / 8;
            let mut words = numbers(Dtype::F64, codes, seed, false);
            words.extend(numbers(Dtype::F32, n.div_ceil(CODED), seed, true));
            words
        }
    }
}

/// How arrays keep their states, whether with a master copy of the parameter, and whether states are rounded to nearest.
type Keeping = (StateType, bool, bool);
const PLAIN: Keeping = (StateType::Compute, false, true);

/// What becomes of gradients in each of three steps.
const STEPS: &[After] = &[After::Keep, After::Keep, After::Zero];

/// Up to three steps over arrays of all lengths; everything that they left in memory, the gradients behind the rest.
fn run(
    rule: &'static Rule,
    flags: f64,
    types: (Dtype, Dtype),
    (kind, master, nearest): Keeping,
    (level, threads): (Level, usize),
    steps: &[After],
) -> Vec<Buffer> {
    let (param_type, grad_type) = types;
    let scalars = scalars(rule, flags);
    let compute = param_type.compute();
    let mut memory = Vec::new();
    for (k, &n) in LENGTHS.iter().enumerate() {
        memory.push(numbers(param_type, n, k as u64 + 1, false));
        memory.push(numbers(grad_type, n, k as u64 + 100, false));
        for s in 0..rule.states.len() {
            memory.push(state(kind, compute, n, (k + 200 * s) as u64));
        }
        if master {
            memory.push(numbers(Dtype::F32, n, k as u64 + 50, false));
        }
    }
    let per_array = 2 + rule.states.len() + usize::from(master);
    let noise = if nearest { Noise::Nearest } else { Noise::new(5, 7, kind) };
    for (after, scalars) in steps.iter().zip(&scalars) {
        let segments: Vec<Segment> = LENGTHS
            .iter()
            .zip(memory.chunks_exact_mut(per_array))
            .map(|(&len, own)| {
                let mut pointers = own.iter_mut().map(|buffer| buffer.as_mut_ptr().cast::<u8>());
                let (param, grad) = (pointers.next().unwrap(), pointers.next().unwrap());
                let mut states = [std::ptr::null_mut(); MAX_STATES];
                let own = pointers.by_ref().take(rule.states.len());
                states.iter_mut().zip(own).for_each(|(state, pointer)| *state = pointer);
                let form = Form { states: kind, rounded: master.then_some((param_type, param)), aside: None };
                let (param_type, param) = pointers.next().map_or((param_type, param), |master| (Dtype::F32, master));
                let count = if flags != 0.0 && len % 1000 == 0 { len / 100 } else { 0 };
                let center = (count > 0).then_some(Rows { count, strided: len > 1000 });
                Segment { rule, group: 0, len, param_type, param, states, grad_type, grad, center, form }
            })
            .collect();
        let mut work = WorkList::default();
        work.extend(segments);
        // SAFETY: every pointer is to a buffer of its own of at least the segment's bytes; the level was found.
        unsafe { work.run(&Step { level, threads, scalars: &[*scalars], after: *after, noise: &noise }) };
    }
    let mut grads = Vec::new();
    for k in (0..LENGTHS.len()).rev() {
        grads.push(memory.remove(k * per_array + 1));
    }
    memory.append(&mut grads);
    memory
}

/// Scalars of three steps: plain, with L2 and clipping, with decoupled decay and ascending.
fn scalars(rule: &Rule, flags: f64) -> Vec<Scalars> {
    let hypers: Vec<f64> = rule
        .hypers
        .iter()
        .map(|&name| match name {
            "eps" => 1e-8,
            "momentum" | "beta1" | "alpha" => 0.9,
            "threshold" => 2.0 * flags,
            "beta2" => 0.99,
            "dampening" | "lr_decay" => 0.1,
            _ => flags,
        })
        .collect();
    let plain = Common { lr: 0.01, ..Common::default() };
    let l2 = Common { weight_decay: 0.1, ..plain };
    let decoupled = Common { decay: Decay::Decoupled, maximize: true, ..l2 };
    [(plain, 1.0), (l2, 0.37), (decoupled, 1.0)]
        .iter()
        .zip(1..)
        .map(|((common, factor), t)| rule.scalars(common, &hypers, t, *factor))
        .collect()
}

#[test]
fn every_level_and_thread_count_gives_the_bits_of_the_baseline() {
    for &rule in schuss::rules::ALL {
        for flags in [0.0, 1.0] {
            for types in DTYPES.iter().flat_map(|&p| DTYPES.iter().map(move |&g| (p, g))) {
                check(rule, flags, types, PLAIN);
            }
        }
    }
}

#[test]
fn so_do_states_in_less_memory_and_master_copies() {
    use StateType::{Bf16, Compute, Int8};
    for &rule in schuss::rules::ALL {
        for (kind, nearest) in SMALL {
            for types in [(Dtype::F32, Dtype::F32), (Dtype::Bf16, Dtype::F32), (Dtype::F64, Dtype::F16)] {
                check(rule, 1.0, types, (kind, false, nearest));
            }
        }
        for (kind, types) in [(Compute, Dtype::F32), (Compute, Dtype::Bf16), (Bf16, Dtype::F32), (Int8, Dtype::F16)] {
            check(rule, 0.0, (Dtype::Bf16, types), (kind, true, false));
            check(rule, 1.0, (Dtype::F16, types), (kind, true, false));
        }
    }
}

const SMALL: [(StateType, bool); 4] =
    [(StateType::Bf16, false), (StateType::Bf16, true), (StateType::Int8, false), (StateType::Int8, true)];

#[test]
fn kernels_keep_small_states_as_tiles_do() {
    // Gradients that are zeroed go through tiles.
    let types = (Dtype::F32, Dtype::F32);
    for &rule in schuss::rules::ALL {
        for (kind, nearest) in SMALL {
            let [kept, zeroed] = [After::Keep, After::Zero].map(|after| {
                let mut memory = run(rule, 0.0, types, (kind, false, nearest), (Level::Baseline, 1), &[after]);
                memory.truncate(memory.len() - LENGTHS.len());
                memory
            });
            assert!(kept == zeroed, "{rule:?} {kind:?} nearest {nearest}");
        }
    }
}

fn check(rule: &'static Rule, flags: f64, types: (Dtype, Dtype), keeping: Keeping) {
    let oracle = run(rule, flags, types, keeping, (Level::Baseline, 1), STEPS);
    for level in Level::found() {
        for threads in [1, 3] {
            let same = run(rule, flags, types, keeping, (level, threads), STEPS) == oracle;
            assert!(same, "{rule:?} {types:?} flags {flags} {keeping:?} at {level:?} on {threads} threads");
        }
    }
}

#[test]
fn the_sum_of_squares_has_one_shape() {
    for dtype in DTYPES {
        let mut memory: Vec<Buffer> = LENGTHS.iter().map(|&n| numbers(dtype, n, 7, false)).collect();
        let finite = |word: &mut u64| *word &= 0x3fff_3fff_3fff_3fff;
        memory.iter_mut().flatten().for_each(finite);
        let mut work = WorkList::default();
        work.extend(LENGTHS.iter().zip(&mut memory).map(|(&len, buffer)| Segment {
            rule: schuss::rules::find("sgd").unwrap(),
            group: 0,
            len,
            param_type: dtype,
            param: std::ptr::null_mut(),
            states: [std::ptr::null_mut(); MAX_STATES],
            grad_type: dtype,
            grad: buffer.as_mut_ptr().cast(),
            center: None,
            form: Form::default(),
        }));
        // SAFETY: gradients are valid for their lengths, and only read.
        let sum = |level, threads| unsafe { work.sum_of_squares(level, threads) };
        let oracle = sum(Level::Baseline, 1);
        assert!(oracle.is_finite() && oracle > 0.0);
        for level in Level::found() {
            for threads in [1, 2, 5] {
                assert_eq!(sum(level, threads).to_bits(), oracle.to_bits(), "{dtype:?} {level:?} {threads}");
            }
        }
    }
}

#[test]
fn what_is_measured_of_small_states_is_that_of_their_tiles() {
    // Gradients of two bytes go through tiles; these are the same numbers.
    const N: usize = 3000;
    let values: Vec<f32> = (0..N).map(|i| (i % 7) as f32 - 2.5).collect();
    let rule = schuss::rules::lamb::lamb();
    let hypers = [0.9, 0.999, 1e-6, 0.01, 1.0, 1.0, 0.0, 0.0, 1.0];
    let common = Common { lr: 0.1, decay: Decay::Own, ..Common::default() };
    for kind in [StateType::Bf16, StateType::Int8] {
        let updated = |grad: *mut u8, grad_type| {
            let mut param = vec![1.0f32; N];
            let mut states = [(); 2].map(|()| vec![0u64; kind.bytes(Dtype::F32, N).div_ceil(8)]);
            let mut pointers = [std::ptr::null_mut(); MAX_STATES];
            for (pointer, state) in pointers.iter_mut().zip(&mut states) {
                *pointer = state.as_mut_ptr().cast();
            }
            let mut work = WorkList::default();
            work.extend([Segment {
                rule,
                group: 0,
                len: N,
                param_type: Dtype::F32,
                param: param.as_mut_ptr().cast(),
                states: pointers,
                grad_type,
                grad,
                center: None,
                form: Form { states: kind, ..Form::default() },
            }]);
            for t in 1..3 {
                let (scalars, noise) = ([rule.scalars(&common, &hypers, t, 1.0)], Noise::new(3, t, kind));
                let (level, after) = (Level::Baseline, After::Keep);
                // SAFETY: all streams are valid for their lengths, and apart.
                unsafe { work.run(&Step { level, threads: 1, scalars: &scalars, after, noise: &noise }) };
            }
            param
        };
        let (mut wide, mut half) = (values.clone(), values.iter().map(|&x| half::f16::from_f32(x)).collect::<Vec<_>>());
        let wide = updated(wide.as_mut_ptr().cast(), Dtype::F32);
        assert_eq!(wide, updated(half.as_mut_ptr().cast(), Dtype::F16), "{kind:?}");
        assert!(wide[0] != 1.0);
    }
}
