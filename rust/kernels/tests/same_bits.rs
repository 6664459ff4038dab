//! Tests that every rule gives the same bits at every CPU level, thread count and split, for every pair of types and on special
//! values: the baseline on one thread is the reference. Knows no Python.

mod support;

use schuss::level::Level;
use schuss::rule::Scope;
use schuss::{Common, CompiledRule, Decay, Dtype, Matrix, Rounding, Squares, StateFormat, WorkList};
use support::{
    Buffer, Case, Owned, PLAIN, SHAPES, Settings, arrays, buffer, first_shared, hypers, interleaved, matrix, run,
    scalars, work_list,
};

const DTYPES: [Dtype; 4] = [Dtype::F32, Dtype::F64, Dtype::F16, Dtype::Bf16];

/// Arrays larger than one thread processes alone.
const LARGE: [Matrix; 8] = [
    matrix(1, 30, 1000, false),
    matrix(1, 5, 20_003, true),
    matrix(1, 1, 70_001, false),
    matrix(1, 30_001, 3, false),
    matrix(100, 1, 7, true),
    matrix(2, 170, 300, true),
    matrix(1, 300, 130, false),
    interleaved(2, 100, 700, true),
];

/// Three steps over the arrays: plain, with L2 and clipping, with decoupled decay and ascending. Each runs every program,
/// `step` last. Returns all memory afterwards.
fn steps(rule: &'static CompiledRule, case: &Case, shapes: &[Matrix], level: Level, threads: usize) -> Vec<Buffer> {
    let mut arrays = arrays(rule, case, shapes);
    let hypers = hypers(rule, case.flags);
    let mut shared = first_shared(rule.rule, &hypers);
    let plain = Common { lr: 0.01, ..Common::default() };
    let l2 = Common { weight_decay: 0.1, ..plain };
    let decoupled = Common { decay: Decay::Decoupled, maximize: true, ..l2 };
    for ((common, factor), t) in [(plain, 1.0), (l2, 0.37), (decoupled, 1.0)].iter().zip(1..) {
        let slower = Common { lr: 0.5 * common.lr, ..*common };
        let mut of_groups = [common, &slower].map(|common| scalars(rule.rule, common, &hypers, t, *factor));
        let rounding = if case.nearest { Rounding::Nearest } else { Rounding::stochastic(5, t, case.format) };
        for program in rule.rule.programs.iter().rev() {
            let zero_grads = case.zero_grads && t == 3 && program.name == "step";
            let settings = Settings { level, threads, zero_grads, rounding: rounding.clone() };
            run(rule, program.name, &mut arrays, &settings, &mut of_groups, &mut shared);
        }
    }
    let mut memory = vec![shared.iter().map(|x| x.to_bits()).collect()];
    for array in arrays {
        memory.extend([array.param, array.grad, array.backup]);
        memory.extend(array.states);
        memory.extend(array.rounded.map(|(_, buffer)| buffer));
    }
    memory
}

fn rules() -> impl Iterator<Item = &'static CompiledRule> {
    schuss::optimizers::ALL.iter().chain(schuss::optimizers::TOOLS).copied()
}

fn check(rule: &'static CompiledRule, case: &Case, shapes: &[Matrix], threads: &[usize]) {
    let oracle = steps(rule, case, shapes, Level::Baseline, 1);
    for level in Level::found() {
        for &threads in threads {
            if (level, threads) == (Level::Baseline, 1) {
                continue;
            }
            let found = steps(rule, case, shapes, level, threads);
            let place = found.iter().zip(&oracle).position(|(a, b)| a != b);
            assert!(place.is_none(), "{rule:?} {case:?} at {level:?} on {threads} threads: buffer {place:?} differs");
        }
    }
}

#[test]
fn every_level_gives_the_bits_of_the_baseline() {
    for rule in rules() {
        for (k, types) in DTYPES.iter().flat_map(|&p| DTYPES.iter().map(move |&g| (p, g))).enumerate() {
            for specials in [false, true] {
                let flags = f64::from((k % 2 == 0) == specials);
                check(rule, &Case { flags, types, specials, ..PLAIN }, &SHAPES, &[1]);
            }
        }
    }
}

#[test]
fn every_number_of_threads_gives_the_bits_of_one() {
    for rule in rules() {
        for (types, flags) in [((Dtype::F32, Dtype::F32), 1.0), ((Dtype::Bf16, Dtype::F16), 0.0)] {
            check(rule, &Case { flags, types, ..PLAIN }, &LARGE, &[1, 2, 3]);
        }
    }
}

/// Quantized state formats, and whether they round to nearest.
const QUANTIZED: [(StateFormat, bool); 4] = [
    (StateFormat::Bfloat16, false),
    (StateFormat::Bfloat16, true),
    (StateFormat::Int8, false),
    (StateFormat::Int8, true),
];

#[test]
fn so_do_quantized_states_and_float32_copies() {
    use Dtype::{Bf16, F16, F32, F64};
    use StateFormat::{Bfloat16, Compute, Int8};
    for rule in rules() {
        let fits = |format: StateFormat| format != Int8 || rule.rule.takes_int8();
        for (format, nearest) in QUANTIZED.into_iter().filter(|(format, _)| fits(*format)) {
            for types in [(F32, F32), (Bf16, F32), (F64, F16)] {
                check(rule, &Case { flags: 1.0, types, format, nearest, specials: true, ..PLAIN }, &SHAPES, &[1]);
            }
            check(rule, &Case { format, nearest, zero_grads: false, ..PLAIN }, &LARGE, &[1, 3]);
        }
        for (format, grad) in [(Compute, F32), (Compute, Bf16), (Bfloat16, F32), (Int8, F16)] {
            if !fits(format) {
                continue;
            }
            let case = Case { format, master: true, nearest: false, specials: true, ..PLAIN };
            check(rule, &Case { types: (Bf16, grad), ..case }, &SHAPES, &[1]);
            check(rule, &Case { types: (F16, grad), flags: 1.0, specials: false, ..case }, &SHAPES, &[1, 3]);
        }
    }
}

#[test]
fn gradients_that_are_zeroed_change_nothing_else() {
    for rule in rules() {
        for (format, nearest) in QUANTIZED.into_iter().chain([(StateFormat::Compute, true)]) {
            if format == StateFormat::Int8 && !rule.rule.takes_int8() {
                continue;
            }
            for types in [(Dtype::F32, Dtype::F32), (Dtype::F64, Dtype::F32)] {
                let [kept, zeroed] = [false, true].map(|zero_grads| {
                    let case = Case { types, format, nearest, zero_grads, ..PLAIN };
                    let mut memory = steps(rule, &case, &SHAPES, Level::Baseline, 1);
                    let per_array = 3 + rule.rule.states.len();
                    let grads: Vec<Buffer> =
                        (0..SHAPES.len()).map(|i| std::mem::take(&mut memory[1 + per_array * i + 1])).collect();
                    (memory, grads)
                });
                assert!(kept.0 == zeroed.0, "{rule:?} {types:?} {format:?} nearest {nearest}");
                let zero = zeroed.1.iter().flatten().all(|&bits| bits == 0);
                assert_eq!(zero, rule.rule.reads_gradient(), "{rule:?}");
            }
        }
    }
}

#[test]
fn the_sum_of_squares_has_one_shape() {
    for dtype in DTYPES {
        let rule = schuss::optimizers::find("clip_norm").unwrap();
        let case = Case { types: (dtype, dtype), ..PLAIN };
        let shapes = [SHAPES.as_slice(), &LARGE].concat();
        let mut memory = arrays(rule, &case, &shapes);
        // Clipping's sum adds in the same order.
        let (hypers, mut shared) = ([1.0; 3], []);
        let mut of_groups = [(); 2].map(|()| scalars(rule.rule, &Common::default(), &hypers, 1, 1.0));
        run(rule, "step", &mut memory, &Settings { threads: 3, ..Settings::default() }, &mut of_groups, &mut shared);
        let place = rule.rule.scalars.iter().position(|&name| name == "gg").unwrap();
        let oracle = of_groups[0][place];
        assert!(oracle.is_finite() && oracle > 0.0);
        // Rules with rows split arrays differently; the sum must not change. Arrays are also tested alone, since a sum over
        // many hides the last bits.
        for rule in [rule, schuss::optimizers::find("adafactor").unwrap()] {
            let mut memory = arrays(rule, &case, &shapes);
            let alone = memory.chunks_exact(1).map(<[Owned]>::to_vec).collect::<Vec<_>>();
            // SAFETY: the memory lives until the last sum.
            let mut work = unsafe { work_list(rule, &mut memory) };
            let sums = |work: &mut WorkList| {
                let found = Level::found().into_iter().flat_map(|level| [1, 2, 5].map(|threads| (level, threads)));
                // SAFETY: gradients are valid for their lengths, and only read.
                found.map(|(level, threads)| unsafe { work.sum_of_squares(level, threads) }).collect::<Vec<_>>()
            };
            assert!(sums(&mut work).iter().all(|sum| *sum == Squares { sum: oracle, unit: 1.0 }), "{dtype:?}");
            for mut array in alone {
                // SAFETY: as above.
                let sums = sums(&mut unsafe { work_list(rule, &mut array) });
                assert!(sums.iter().all(|sum| *sum == sums[0]), "{dtype:?} {:?}", array[0].matrix);
            }
        }
    }
}

#[test]
fn quantized_states_are_those_of_their_tiles() {
    // Two-byte gradients go through tiles; the values are the same.
    let shapes = [matrix(1, 10, 300, false), matrix(1, 1, 33_000, false)];
    for rule in rules().filter(|rule| rule.rule.states.iter().any(|state| state.scope == Scope::Element)) {
        for (format, nearest) in QUANTIZED {
            if format == StateFormat::Int8 && !rule.rule.takes_int8() {
                continue;
            }
            let [wide, narrow] = [Dtype::F32, Dtype::F16].map(|grad_type| {
                let case = Case { format, nearest, ..PLAIN };
                let mut arrays = arrays(rule, &case, &shapes);
                for array in &mut arrays {
                    let values: Vec<f64> = (0..array.len()).map(|i| (i % 7) as f64 - 2.5).collect();
                    (array.grad, array.grad_type) = (buffer(grad_type, values), grad_type);
                }
                let hypers = hypers(rule, 1.0);
                let mut shared = first_shared(rule.rule, &hypers);
                for t in 1..3 {
                    let mut of_groups = [(); 2].map(|()| scalars(rule.rule, &Common::default(), &hypers, t, 1.0));
                    let rounding = if nearest { Rounding::Nearest } else { Rounding::stochastic(3, t, format) };
                    let settings = Settings { rounding, ..Settings::default() };
                    run(rule, "step", &mut arrays, &settings, &mut of_groups, &mut shared);
                }
                arrays.into_iter().map(|array| (array.param, array.states)).collect::<Vec<_>>()
            });
            assert!(wide == narrow, "{rule:?} {format:?} nearest {nearest}");
        }
    }
}

#[test]
fn centralized_gradients_are_those_of_the_tool() {
    let [centralize, plain, fused] =
        ["centralize", "radam", "radam_centralized"].map(|name| schuss::optimizers::find(name).unwrap());
    let hypers = hypers(plain, 1.0);
    for (format, nearest) in QUANTIZED.into_iter().chain([(StateFormat::Compute, true)]) {
        for shapes in [SHAPES.as_slice(), &LARGE] {
            let [expected, found] = [plain, fused].map(|rule| {
                let mut arrays = arrays(rule, &Case { format, ..PLAIN }, shapes);
                if rule.rule.name == plain.rule.name {
                    for array in arrays.iter_mut().filter(|array| array.len() > 0) {
                        let mut alone = [Owned { param: array.grad.clone(), states: Vec::new(), ..array.clone() }];
                        let nothing = scalars(centralize.rule, &Common::default(), &[], 1, 1.0);
                        let mut nothing = [nothing.clone(), nothing];
                        run(centralize, "step", &mut alone, &Settings::default(), &mut nothing, &mut []);
                        array.grad = alone[0].param.clone();
                    }
                }
                for t in 1..3 {
                    let mut of_groups = [(); 2].map(|()| scalars(rule.rule, &Common::default(), &hypers, t, 1.0));
                    let rounding = if nearest { Rounding::Nearest } else { Rounding::stochastic(3, t, format) };
                    let settings = Settings { rounding, threads: 3, ..Settings::default() };
                    run(rule, "step", &mut arrays, &settings, &mut of_groups, &mut []);
                }
                arrays.into_iter().map(|array| (array.param, array.states)).collect::<Vec<_>>()
            });
            for ((found, expected), shape) in found.iter().zip(&expected).zip(shapes) {
                assert!(found == expected, "{shape:?} {format:?} nearest {nearest}");
            }
        }
    }
}
