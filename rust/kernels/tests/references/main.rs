//! Compares rules of several passes with plain float64 references, for every kind of shape, and for sizes around those at which
//! the work is split differently. Knows no Python.

mod prodigy;
#[path = "../support/mod.rs"]
mod support;

use schuss::optimizers::{adafactor, lamb, lars, novograd, radam};
use schuss::{Common, CompiledRule, Decay, Matrix};
use support::{Owned, Settings, doubles, first_shared, interleaved, len, matrix, own_decay, random, run, scalars};

const STEPS: u64 = 6;

/// Matrices in C order, batches, single columns and rows, short, long and empty ones; each is also tested transposed.
const MATRICES: [Matrix; 22] = [
    interleaved(5, 7, 15, false),
    interleaved(3, 11, 4101, false),
    interleaved(300, 40, 1200, false),
    matrix(1, 0, 5, false),
    matrix(2, 5, 0, false),
    matrix(0, 3, 3, false),
    matrix(1, 1, 1, false),
    matrix(1, 3, 2, false),
    matrix(1, 1, 40, false),
    matrix(1, 40, 1, false),
    matrix(500, 2, 3, false),
    matrix(3, 31, 33, false),
    matrix(1, 2, 1025, false),
    matrix(1, 4097, 1, false),
    matrix(2, 7, 2049, false),
    matrix(1, 32, 1024, false),
    matrix(1, 33, 1000, false),
    matrix(1, 4, 8193, false),
    matrix(1, 1, 65_537, false),
    matrix(1, 65_537, 1, false),
    matrix(2, 11_000, 3, false),
    matrix(1, 250, 300, false),
];

/// Lengths around those of blocks, strips, arrays of a single task, and panels.
const LENGTHS: [usize; 13] = [0, 1, 1023, 1024, 1025, 4095, 4097, 32_767, 32_768, 32_769, 65_535, 65_536, 65_537];

fn vectors() -> Vec<Matrix> {
    LENGTHS.map(|n| matrix(1, 1, n, false)).into()
}

fn matrices() -> Vec<Matrix> {
    let turned = |shape: Matrix| Matrix { transposed: true, ..shape };
    MATRICES.iter().flat_map(|&shape| [shape, turned(shape)]).collect()
}

/// Pairwise summation.
fn sum(values: &[f64]) -> f64 {
    match values {
        [] => 0.0,
        [x] => *x,
        _ => {
            let (a, b) = values.split_at(values.len() / 2);
            sum(a) + sum(b)
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    sum(values) / values.len() as f64
}

fn norm(values: &[f64]) -> f64 {
    sum(&values.iter().map(|x| x * x).collect::<Vec<_>>()).sqrt()
}

/// The row and column of each element in memory, counted over all matrices.
fn places(shape: Matrix) -> Vec<(usize, usize)> {
    let Matrix { batch, rows, cols, transposed, interleaved } = shape;
    let mut places = Vec::new();
    for b in 0..batch {
        for i in 0..rows {
            for j in 0..cols {
                let matrix = b * interleaved + j % interleaved;
                let (row, col) = (matrix * rows + i, matrix * (cols / interleaved) + j / interleaved);
                places.push(if transposed { (col, row) } else { (row, col) });
            }
        }
    }
    places
}

/// The means over rows and over columns.
fn means(values: &[f64], places: &[(usize, usize)]) -> (Vec<f64>, Vec<f64>) {
    let (mut rows, mut cols) = (Vec::new(), Vec::new());
    for (&x, &(row, col)) in values.iter().zip(places) {
        for (vectors, place) in [(&mut rows, row), (&mut cols, col)] {
            if vectors.len() <= place {
                vectors.resize(place + 1, Vec::new());
            }
            vectors[place].push(x);
        }
    }
    (rows.iter().map(|x| mean(x)).collect(), cols.iter().map(|x| mean(x)).collect())
}

/// The gradient of array `i` in step `t`.
fn gradient(i: usize, t: u64, n: usize) -> Vec<f64> {
    random(1000 * t + i as u64).take(n).collect()
}

/// Runs steps of a rule over arrays of these shapes, calls `reference` for each step with its number, the parameters and the
/// gradients, and compares the resulting parameters.
fn compare(
    rule: &'static CompiledRule,
    common: &Common,
    hypers: &[f64],
    shapes: &[Matrix],
    mut reference: impl FnMut(u64, &mut [Vec<f64>], &[Vec<f64>]),
) {
    let starts: Vec<Vec<f64>> =
        shapes.iter().zip(1..).map(|(&shape, seed)| random(seed).take(len(shape)).collect()).collect();
    let own = |(&shape, start): (&Matrix, &Vec<f64>)| Owned::doubles(rule.rule, hypers, shape, 0, start);
    let mut arrays: Vec<Owned> = shapes.iter().zip(&starts).map(own).collect();
    let mut shared = first_shared(rule.rule, hypers);
    let mut expected = starts.clone();
    for t in 1..=STEPS {
        let gradients: Vec<Vec<f64>> =
            shapes.iter().enumerate().map(|(i, &shape)| gradient(i, t, len(shape))).collect();
        for (array, gradient) in arrays.iter_mut().zip(&gradients) {
            array.grad = gradient.iter().map(|x| x.to_bits()).collect();
        }
        let mut scalars = [scalars(rule.rule, common, hypers, t, 1.0)];
        run(rule, "step", &mut arrays, &Settings { threads: 2, ..Settings::default() }, &mut scalars, &mut shared);
        reference(t, &mut expected, &gradients);
    }
    for (((array, expected), start), shape) in arrays.iter().zip(&expected).zip(&starts).zip(shapes) {
        close(&doubles(&array.param), expected, start, &format!("{rule:?} {shape:?}"));
    }
}

/// Compares parameters, with a tolerance relative to the largest distance that any of them moved, and to the rounding of each
/// step.
fn close(found: &[f64], expected: &[f64], start: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len());
    let moved = expected.iter().zip(start).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
    assert!(moved > 0.0 || start.is_empty(), "{what} has not moved");
    for (i, (x, y)) in found.iter().zip(expected).enumerate() {
        let tolerance = 1e-12 * moved + STEPS as f64 * f64::EPSILON * y.abs();
        assert!((x - y).abs() <= tolerance, "{what}, element {i}: {x} for {y}, moved by {moved}");
    }
}

/// PyTorch's form, which scales by the parameters.
const ADAFACTOR: [f64; 9] = [-0.8, 1e-3, 1e-2, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0];

/// The learning rate of an Adafactor step for a direction.
fn adafactor_rate(lr: f64, t: u64, p: &[f64], u: &[f64]) -> f64 {
    let [_, _, eps2, d, ..] = ADAFACTOR;
    let rms = |values: &[f64]| mean(&values.iter().map(|x| x * x).collect::<Vec<_>>()).sqrt();
    eps2.max(rms(p)) * lr.min(1.0 / (t as f64).sqrt()) / (rms(u) / d).max(1.0)
}

#[test]
fn adafactor_of_matrices() {
    let (shapes, lr) = (matrices(), 0.05);
    let all_places: Vec<_> = shapes.iter().map(|&shape| places(shape)).collect();
    let mut states: Vec<(Vec<f64>, Vec<f64>)> = vec![Default::default(); shapes.len()];
    let common = Common { lr, weight_decay: 0.1, decay: Decay::Decoupled, ..Common::default() };
    compare(adafactor::adafactor(), &common, &ADAFACTOR, &shapes, |t, params, grads| {
        let [decay, eps1, ..] = ADAFACTOR;
        let b = 1.0 - (t as f64).powf(decay);
        for (i, (p, g)) in params.iter_mut().zip(grads).enumerate() {
            let places = &all_places[i];
            let (rows, cols) = means(&g.iter().map(|x| x * x).collect::<Vec<_>>(), places);
            let (r, c) = &mut states[i];
            r.resize(rows.len(), 0.0);
            c.resize(cols.len(), 0.0);
            for (state, new) in [(&mut *r, rows), (&mut *c, cols)] {
                state.iter_mut().zip(new).for_each(|(s, x)| *s = b * *s + (1.0 - b) * x);
            }
            let of_one = r.len() / (shapes[i].batch * shapes[i].interleaved).max(1);
            let row_means: Vec<f64> = r.chunks(of_one.max(1)).map(mean).collect();
            let direction = |(g, &(row, col)): (&f64, &(usize, usize))| {
                let v: f64 = r[row] * c[col] / row_means[row / of_one].max(eps1);
                g / v.max(eps1 * eps1).sqrt()
            };
            let u: Vec<f64> = g.iter().zip(places).map(direction).collect();
            let rate = adafactor_rate(lr, t, p, &u);
            p.iter_mut().zip(&u).for_each(|(p, u)| *p = *p * (1.0 - lr * 0.1) - rate * u);
        }
    });
}

#[test]
fn adafactor_of_vectors() {
    let (shapes, lr) = (vectors(), 0.05);
    let mut states: Vec<Vec<f64>> = shapes.iter().map(|&shape| vec![0.0; len(shape)]).collect();
    compare(adafactor::adafactor_vector(), &own_decay(lr), &ADAFACTOR, &shapes, |t, params, grads| {
        let [decay, eps1, ..] = ADAFACTOR;
        let b = 1.0 - (t as f64).powf(decay);
        for ((p, g), v) in params.iter_mut().zip(grads).zip(&mut states) {
            v.iter_mut().zip(g).for_each(|(v, g)| *v = b * *v + (1.0 - b) * g * g);
            let u: Vec<f64> = g.iter().zip(v).map(|(g, v)| g / v.max(eps1 * eps1).sqrt()).collect();
            let rate = adafactor_rate(lr, t, p, &u);
            p.iter_mut().zip(&u).for_each(|(p, u)| *p -= rate * u);
        }
    });
}

#[test]
fn novograd() {
    for averaging in [0.0, 1.0] {
        let (b1, b2, eps, wd, lr) = (0.95, 0.98, 1e-8, 0.01, 0.02);
        let shapes = vectors();
        let mut states: Vec<(Vec<f64>, f64)> = shapes.iter().map(|&shape| (vec![0.0; len(shape)], 0.0)).collect();
        let hypers = [b1, b2, eps, wd, averaging];
        compare(novograd::novograd(), &own_decay(lr), &hypers, &shapes, |t, params, grads| {
            for ((p, g), (m, v)) in params.iter_mut().zip(grads).zip(&mut states) {
                let square = norm(g).powi(2);
                *v = if t == 1 { square } else { b2 * *v + (1.0 - b2) * square };
                for ((p, g), m) in p.iter_mut().zip(g).zip(m) {
                    let u = g / (v.sqrt() + eps) + wd * *p;
                    *m = b1 * *m + if averaging != 0.0 { (1.0 - b1) * u } else { u };
                    *p -= lr * *m;
                }
            }
        });
    }
}

#[test]
fn lamb_and_its_trust_ratios() {
    for (trust_clip, adapt) in [(0.0, 1.0), (1.0, 1.0), (0.0, 0.0)] {
        let (b1, b2, eps, wd, lr) = (0.9, 0.99, 1e-6, 0.02, 0.02);
        let shapes = vectors();
        let mut states: Vec<Vec<[f64; 2]>> = shapes.iter().map(|&shape| vec![[0.0; 2]; len(shape)]).collect();
        let hypers = [b1, b2, eps, wd, 1.0, 1.0, 0.0, trust_clip, adapt];
        compare(lamb::lamb(), &own_decay(lr), &hypers, &shapes, |t, params, grads| {
            let [bias1, bias2] = [b1, b2].map(|b: f64| 1.0 - b.powi(t as i32));
            for ((p, g), state) in params.iter_mut().zip(grads).zip(&mut states) {
                let mut u = Vec::new();
                for ((p, g), [m, v]) in p.iter().zip(g).zip(state) {
                    *m = b1 * *m + (1.0 - b1) * g;
                    *v = b2 * *v + (1.0 - b2) * g * g;
                    u.push(*m / bias1 / ((*v / bias2).sqrt() + eps) + wd * p);
                }
                let mut ratio = norm(p) / norm(&u);
                if trust_clip != 0.0 {
                    ratio = ratio.min(1.0);
                }
                if adapt == 0.0 {
                    ratio = 1.0;
                }
                p.iter_mut().zip(&u).for_each(|(p, u)| *p -= lr * ratio * u);
            }
        });
    }
}

#[test]
fn lars_and_its_trust_ratios() {
    for (nesterov, trust_clip, lr_in_momentum) in [(0.0, 0.0, 1.0), (1.0, 1.0, 0.0)] {
        let (mu, wd, coefficient, eps, lr) = (0.9, 0.02, 0.5, 1e-8, 0.1);
        let shapes = vectors();
        let mut states: Vec<Vec<f64>> = shapes.iter().map(|&shape| vec![0.0; len(shape)]).collect();
        let hypers = [mu, 0.0, wd, coefficient, eps, nesterov, trust_clip, 0.0, lr_in_momentum, 1.0];
        compare(lars::lars(), &own_decay(lr), &hypers, &shapes, |_, params, grads| {
            for ((p, g), b) in params.iter_mut().zip(grads).zip(&mut states) {
                let mut ratio = coefficient * norm(p) / (norm(g) + wd * norm(p) + eps);
                if trust_clip != 0.0 {
                    ratio = (ratio / lr).min(1.0);
                }
                let (into, of) = if lr_in_momentum != 0.0 { (lr, 1.0) } else { (1.0, lr) };
                for ((p, g), b) in p.iter_mut().zip(g).zip(b) {
                    let d = into * ratio * (g + wd * *p);
                    *b = mu * *b + d;
                    *p -= of * if nesterov != 0.0 { d + mu * *b } else { *b };
                }
            }
        });
    }
}

#[test]
fn radam_with_centralized_gradients() {
    let (b1, b2, eps, threshold, lr, wd) = (0.9, 0.9, 1e-8, 4.5, 0.02, 0.1);
    let shapes = matrices();
    let all_places: Vec<_> = shapes.iter().map(|&shape| places(shape)).collect();
    let mut states: Vec<Vec<[f64; 2]>> = shapes.iter().map(|&shape| vec![[0.0; 2]; len(shape)]).collect();
    let common = Common { lr, weight_decay: wd, decay: Decay::Decoupled, ..Common::default() };
    compare(radam::radam_centralized(), &common, &[b1, b2, eps, threshold, 0.0, 0.0], &shapes, |t, params, grads| {
        let [bias1, bias2] = [b1, b2].map(|b: f64| 1.0 - b.powi(t as i32));
        let rho_inf: f64 = 2.0 / (1.0 - b2) - 1.0;
        let rho = rho_inf - 2.0 * t as f64 * (1.0 - bias2) / bias2;
        let r = ((rho - 4.0) * (rho - 2.0) * rho_inf / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho)).sqrt();
        for (i, (p, g)) in params.iter_mut().zip(grads).enumerate() {
            let (rows, _) = means(g, &all_places[i]);
            for (((p, g), &(row, _)), [m, v]) in p.iter_mut().zip(g).zip(&all_places[i]).zip(&mut states[i]) {
                let g = g - rows[row];
                *p *= 1.0 - lr * wd;
                *m = b1 * *m + (1.0 - b1) * g;
                *v = b2 * *v + (1.0 - b2) * g * g;
                *p -= lr * *m / bias1 * if rho > threshold { r * bias2.sqrt() / (v.sqrt() + eps) } else { 1.0 };
            }
        }
    });
}
