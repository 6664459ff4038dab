//! Tests of the driver for every rule: splitting an array changes no bit, and a reduction computes what the rule says, for
//! every scope, type and shape. Knows no binding.

use schuss_macros::rules;

use super::super::matrix::Matrix;
use super::super::partition::cut;
use super::super::work_list::WHOLE;
use super::*;
use crate::kernel::CompiledRule;
use crate::numeric::{Dtype, StateFormat};
use crate::optimizers;
use crate::rule::{Common, Decay, Scope};
use crate::support::{
    Case, Owned, PLAIN, SHAPES, Settings, arrays, first_shared, hypers, len, run, scalars, work_list,
};

/// Splits arrays that one task would otherwise take through all their stages, and prefetches.
fn cut_all(work: &mut WorkList) {
    work.items.iter_mut().for_each(|item| (item.whole, item.prefetches) = (false, true));
    work.any_large = true;
    work.extents.iter_mut().chain(&mut work.blocks).for_each(|extent| extent.whole = false);
    let chunks = |extents| cut(extents, work.total()).unwrap();
    (work.chunks, work.block_chunks) = (chunks(&work.extents), chunks(&work.blocks));
}

/// Two steps over arrays, split or not; returns all resulting memory.
fn two_steps(rule: &'static CompiledRule, case: &Case, mut arrays: Vec<Owned>, cuts: bool) -> (Vec<Owned>, Vec<u64>) {
    let hypers = hypers(rule, case.flags);
    let mut shared = first_shared(rule.rule, &hypers);
    // SAFETY: the memory lives until the last step.
    let mut work = unsafe { work_list(rule, &mut arrays) };
    let plain = rule.rule.programs.iter().all(|program| program.stages.len() == 1);
    assert!(plain || work.items.iter().any(|item| item.whole));
    if cuts {
        cut_all(&mut work);
    }
    for t in 1..3 {
        let decay = if t == 1 { Decay::L2 } else { Decay::Decoupled };
        let common = Common { weight_decay: 0.1 * case.flags, decay, ..Common::default() };
        let mut of_groups = [1.0, 0.37].map(|factor| scalars(rule.rule, &common, &hypers, t, factor));
        let rounding = if case.nearest { Rounding::Nearest } else { Rounding::stochastic(5, t, case.format) };
        let zero_grads = case.zero_grads && t == 2;
        let basic = Step::new(Level::Baseline, 2, &mut of_groups);
        let mut step = Step { zero_grads, rounding: &rounding, shared: &mut shared, ..basic };
        // SAFETY: every pointer is to a separate buffer that is long enough.
        rule.rule.programs.iter().rev().for_each(|program| unsafe { work.run(program.name, &mut step) });
    }
    (arrays, shared.iter().map(|x| x.to_bits()).collect())
}

fn compare_cuts(rule: &'static CompiledRule, case: &Case) {
    let shapes: Vec<Matrix> = SHAPES.into_iter().filter(|&shape| len(shape) <= WHOLE).collect();
    let [(whole, shared_of_whole), (cut, shared_of_cut)] =
        [false, true].map(|cuts| two_steps(rule, case, arrays(rule, case, &shapes), cuts));
    for (whole, cut) in whole.iter().zip(&cut) {
        let same = (&whole.param, &whole.states, &whole.rounded) == (&cut.param, &cut.states, &cut.rounded);
        assert!(same, "{rule:?} {case:?} {:?}", whole.matrix);
    }
    assert_eq!(shared_of_whole, shared_of_cut, "{rule:?} {case:?}");
}

#[test]
fn an_array_that_is_cut_has_the_bits_of_one_that_is_not() {
    use Dtype::{Bf16, F16, F32, F64};
    for &rule in optimizers::ALL.iter().chain(optimizers::TOOLS).chain(&[measure(), texts_first()]) {
        for (types, zero_grads) in [((F32, F32), false), ((F64, F64), true), ((Bf16, F16), false), ((F32, F64), true)] {
            compare_cuts(rule, &Case { types, flags: 1.0, zero_grads, ..PLAIN });
        }
        let formats = [StateFormat::Bfloat16, StateFormat::Int8];
        let formats = formats.iter().filter(|format| **format != StateFormat::Int8 || rule.rule.takes_int8());
        for (format, nearest) in formats.flat_map(|f| [(*f, true), (*f, false)]) {
            let case = Case { flags: 1.0, format, nearest, ..PLAIN };
            compare_cuts(rule, &case);
            compare_cuts(rule, &Case { types: (Bf16, F32), master: true, ..case });
        }
    }
}

rules! {
    hyper();
    each_step(lr, t) {}

    /// Scalar stages before passes, after them, and between stages over all arrays.
    texts_first {
        row r = 1.0;
        array a = 1.0, b;
        all d = 1.0;
        row {
            r = r + 1.0;
            sum array { rs = r; }
        }
        array {
            a = a + rs;
        }
        pass(p, g) {
            p = p + a * r;
            sum all { gg = g; }
        }
        array {
            a = 0.5 * a;
        }
        all {
            d = d + 1.0;
        }
        array {
            b = b + a * d;
        }
        all {
            d = 2.0 * d;
        }
        row {
            r = r + d;
        }
        array {
            a = a + d;
        }
        pass(p) {
            p = p + r * b;
        }
    }
}

#[test]
fn texts_run_wherever_they_stand() {
    let rule = texts_first();
    for cuts in [false, true] {
        let case = Case { types: (Dtype::F64, Dtype::F64), ..PLAIN };
        let arrays = SHAPES.iter().map(|&shape| {
            let mut array = Owned::doubles(rule.rule, &[], shape, 0, &vec![1.0; len(shape)]);
            array.grad = array.param.clone();
            array
        });
        let (arrays, shared) = two_steps(rule, &case, arrays.collect(), cuts);
        let mut d = 1.0;
        // For each array: the row state, which is the same in all rows, both array states, and the parameter.
        let mut expected = vec![[1.0, 1.0, 0.0, 1.0]; arrays.len()];
        for _ in 0..2 {
            for (array, [r, a, _, p]) in arrays.iter().zip(&mut expected) {
                *r += 1.0;
                *a += *r * array.matrix.vector(Scope::Row) as f64;
                *p += *a * *r;
                *a *= 0.5;
            }
            d += 1.0;
            expected.iter_mut().for_each(|[_, a, b, _]| *b += *a * d);
            d *= 2.0;
            for [r, a, b, p] in &mut expected {
                (*r, *a) = (*r + d, *a + d);
                *p += *r * *b;
            }
        }
        assert_eq!(f64::from_bits(shared[0]), d);
        for (array, expected) in arrays.iter().zip(&expected).filter(|(array, _)| array.len() > 0) {
            let [r, a, b] = [0, 1, 2].map(|k| f64::from_bits(array.states[k][0]));
            assert_eq!([r, a, b, f64::from_bits(array.param[0])], *expected, "{:?}, cut: {cuts}", array.matrix);
            assert!(array.param.iter().all(|bits| *bits == array.param[0]));
        }
    }
}

rules! {
    hyper();
    each_step(lr, t) {}

    /// All reductions over all scopes; the states are the results.
    measure {
        element m;
        row row_mean, row_sum, row_max, row_product, row_mean_of_matrix, row_max_of_matrix;
        col col_mean, col_sum, col_max, col_product;
        array array_mean, array_sum, array_max, array_product, array_square, array_of_rows;
        all all_sum, all_max, all_product;
        pass(p, g) {
            m = g;
            mean row { rm = g; }
            sum row { rs = p; }
            max row { rx = p; }
            sum row { rp = p * g; }
            mean col { cm = g * g; }
            sum col { cs = g; }
            max col { cx = abs(g); }
            sum col { cp = g * p; }
            mean array { am = p; }
            sum array { as_ = g; aq = g * g; ap = p * g; }
            max array { ax = g; }
            sum all { ls = g; lp = p * g; }
            max all { lx = p; }
        }
        row {
            row_mean = rm;
            row_sum = rs;
            row_max = rx;
            row_product = rp;
            mean matrix { mm = row_sum; }
            max matrix { mx = row_sum; }
            sum array { ar = row_sum * row_mean; }
        }
        row {
            row_mean_of_matrix = mm;
            row_max_of_matrix = mx;
        }
        col {
            col_mean = cm;
            col_sum = cs;
            col_max = cx;
            col_product = cp;
        }
        array {
            array_mean = am;
            array_sum = as_;
            array_max = ax;
            array_product = ap;
            array_square = aq;
            array_of_rows = ar;
        }
        all {
            all_sum = ls;
            all_max = lx;
            all_product = lp;
        }
    }
}

/// The numbers in a buffer of a type.
fn values(dtype: Dtype, buffer: &[u64], n: usize) -> Vec<f64> {
    let bytes: Vec<u8> = buffer.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let one = |bytes: &[u8]| match dtype {
        Dtype::F32 => f32::from_ne_bytes(bytes.try_into().unwrap()).into(),
        Dtype::F64 => f64::from_ne_bytes(bytes.try_into().unwrap()),
        Dtype::F16 => half::f16::from_ne_bytes(bytes.try_into().unwrap()).into(),
        Dtype::Bf16 => half::bf16::from_ne_bytes(bytes.try_into().unwrap()).into(),
    };
    bytes.chunks_exact(dtype.size()).map(one).take(n).collect()
}

/// The reductions of numbers that are assigned to groups.
#[derive(Default)]
struct Reduced {
    sum: Vec<f64>,
    max: Vec<f64>,
    /// The sum of absolute values, which errors are relative to.
    size: Vec<f64>,
    count: Vec<f64>,
}

impl Reduced {
    fn of(numbers: impl Iterator<Item = (usize, f64)>) -> Reduced {
        let mut all = Reduced::default();
        for (place, x) in numbers {
            if all.sum.len() <= place {
                all.sum.resize(place + 1, 0.0);
                all.max.resize(place + 1, f64::NEG_INFINITY);
                all.size.resize(place + 1, 0.0);
                all.count.resize(place + 1, 0.0);
            }
            all.sum[place] += x;
            all.max[place] = all.max[place].max(x);
            all.size[place] += x.abs();
            all.count[place] += 1.0;
        }
        all
    }

    fn mean(&self) -> Vec<f64> {
        self.sum.iter().zip(&self.count).map(|(sum, count)| sum / count).collect()
    }
}

#[test]
fn reductions_are_what_their_texts_say() {
    use Dtype::{Bf16, F16, F32, F64};
    let rule = measure();
    let shapes: Vec<Matrix> = SHAPES
        .into_iter()
        .filter(|&shape| len(shape) > 0)
        .chain([
            Matrix { batch: 1, rows: 700, cols: 100, transposed: false, interleaved: 1 },
            Matrix { batch: 1, rows: 5, cols: 9001, transposed: true, interleaved: 1 },
        ])
        .collect();
    for types in [(F64, F64), (F32, F32), (F32, F16), (Bf16, F32), (F16, F64)] {
        for (factor, zero_grads) in [(1.0, false), (1.0, true), (0.5, false), (0.5, true)] {
            let mut arrays = arrays(rule, &Case { types, ..PLAIN }, &shapes);
            let before = arrays.clone();
            let mut shared = first_shared(rule.rule, &[]);
            let mut of_groups = [(); 2].map(|()| scalars(rule.rule, &Common::default(), &[], 1, factor));
            let settings = Settings { threads: 2, zero_grads, ..Settings::default() };
            run(rule, "step", &mut arrays, &settings, &mut of_groups, &mut shared);
            let compute = types.0.compute();
            let state = |array: &Owned, name: &str, n: usize| {
                let k = rule.rule.states.iter().position(|state| state.name == name).unwrap();
                let dtype = if rule.rule.states[k].scope == Scope::Array { F64 } else { compute };
                values(dtype, &array.states[k], n)
            };
            let (mut sums, mut largest, mut products) = (0.0, f64::NEG_INFINITY, 0.0);
            for (array, before) in arrays.iter().zip(&before) {
                let (n, shape) = (array.len(), array.matrix);
                let p = values(types.0, &before.param, n);
                let g: Vec<f64> = values(types.1, &before.grad, n)
                    .iter()
                    .map(|g| if compute == F32 { f64::from(*g as f32) * factor } else { g * factor })
                    .collect();
                let close = |name: &str, expected: &[f64], sizes: &[f64]| {
                    let found = state(array, name, expected.len());
                    let epsilon = if compute == F32 { 1e-6 } else { 1e-13 };
                    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                        assert!(
                            (found - expected).abs() <= epsilon * sizes[i].max(expected.abs()),
                            "{types:?} {shape:?} {factor} {zero_grads}: {name} {i} is {found} for {expected}"
                        );
                    }
                };
                assert!(values(compute, &array.states[0], n) == g, "{types:?} {shape:?} {factor} {zero_grads}");
                let row_and_col = |i: usize| {
                    let of_row = i / shape.cols * shape.interleaved + i % shape.cols % shape.interleaved;
                    let (row, col) = (of_row, i / (shape.rows * shape.cols) * shape.cols + i % shape.cols);
                    if shape.transposed { (col, row) } else { (row, col) }
                };
                let over = |value: &dyn Fn(usize) -> f64, scope: Scope| {
                    Reduced::of((0..n).map(|i| {
                        let (row, col) = row_and_col(i);
                        (
                            if scope == Scope::Row {
                                row
                            } else if scope == Scope::Col {
                                col
                            } else {
                                0
                            },
                            value(i),
                        )
                    }))
                };
                let (of_p, of_g) = (|i: usize| p[i], |i: usize| g[i]);
                let (square, product) = (|i: usize| g[i] * g[i], |i: usize| p[i] * g[i]);
                let (rows, cols, whole) = (Scope::Row, Scope::Col, Scope::Array);
                let row_sums = over(&of_p, rows);
                close("row_mean", &over(&of_g, rows).mean(), &over(&of_g, rows).size);
                close("row_sum", &row_sums.sum, &row_sums.size);
                close("row_max", &row_sums.max, &row_sums.size);
                close("row_product", &over(&product, rows).sum, &over(&product, rows).size);
                close("col_mean", &over(&square, cols).mean(), &over(&square, cols).size);
                close("col_sum", &over(&of_g, cols).sum, &over(&of_g, cols).size);
                close("col_max", &over(&|i| g[i].abs(), cols).max, &over(&of_g, cols).size);
                close("col_product", &over(&product, cols).sum, &over(&product, cols).size);
                close("array_mean", &over(&of_p, whole).mean(), &over(&of_p, whole).size);
                close("array_sum", &over(&of_g, whole).sum, &over(&of_g, whole).size);
                close("array_max", &over(&of_g, whole).max, &over(&of_g, whole).size);
                close("array_product", &over(&product, whole).sum, &over(&product, whole).size);
                close("array_square", &over(&square, whole).sum, &over(&square, whole).size);
                // Computed from the row results, in their type.
                let count = shape.vector(rows);
                let (found_sums, found_means) = (state(array, "row_sum", count), state(array, "row_mean", count));
                let matrix_of = |row: usize| row / (count / shape.batch) * shape.interleaved + row % shape.interleaved;
                let of_matrix = Reduced::of(found_sums.iter().enumerate().map(|(row, &x)| (matrix_of(row), x)));
                let spread = |values: &[f64]| (0..count).map(|row| values[matrix_of(row)]).collect::<Vec<_>>();
                close("row_mean_of_matrix", &spread(&of_matrix.mean()), &spread(&of_matrix.size));
                close("row_max_of_matrix", &spread(&of_matrix.max), &spread(&of_matrix.max));
                let dots = Reduced::of(found_sums.iter().zip(&found_means).map(|(a, b)| (0, a * b)));
                close("array_of_rows", &dots.sum, &dots.size);
                sums += over(&of_g, whole).sum[0];
                products += over(&product, whole).sum[0];
                largest = largest.max(over(&of_p, whole).max[0]);
            }
            for (found, expected) in shared.iter().zip([sums, largest, products]) {
                assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1e3), "{found} for {expected}");
            }
        }
    }
}
