//! Prodigy against a plain float64 reference. Its estimate depends on all arrays, so the reference steps all of them at once.

use schuss::Matrix;
use schuss::optimizers::prodigy;

use crate::support::{Owned, Settings, doubles, first_shared, len, matrix, own_decay, random, run, scalars};
use crate::{STEPS, close, sum};

/// Prodigy over arrays in groups with different learning rates: the distance, its largest estimate, and the numerator.
struct Prodigy {
    hypers: [f64; 11],
    d: f64,
    d_max: f64,
    numerator: f64,
    start: Vec<Vec<f64>>,
    states: Vec<Vec<[f64; 3]>>,
}

impl Prodigy {
    fn step(&mut self, t: u64, params: &mut [Vec<f64>], grads: &[Vec<f64>], rates: &[f64]) {
        let [b1, b2, b3, eps, wd, bias, safeguard, decoupled, d0, coefficient, growth] = self.hypers;
        let lead = if bias != 0.0 { (1.0 - b2.powi(t as i32)).sqrt() / (1.0 - b1.powi(t as i32)) } else { 1.0 };
        let old = self.d;
        let mut numerator = b3 * self.numerator;
        let (mut dots, mut sizes) = (Vec::new(), Vec::new());
        for (i, (p, g)) in params.iter().zip(grads).enumerate() {
            let step = old * rates[i] * lead;
            for (j, (p, g)) in p.iter().zip(g).enumerate() {
                let g = if decoupled != 0.0 { *g } else { g + wd * p };
                let [m, v, s] = &mut self.states[i][j];
                if rates[i] != 0.0 {
                    *m = b1 * *m + (1.0 - b1) * old * g;
                    *v = b2 * *v + (1.0 - b2) * old * old * g * g;
                    dots.push(old / d0 * step * g * (self.start[i][j] - p));
                    *s = b3 * *s + old / d0 * if safeguard != 0.0 { old } else { step } * g;
                    sizes.push(s.abs());
                }
            }
        }
        numerator += sum(&dots);
        let denominator = sum(&sizes);
        if denominator == 0.0 {
            return;
        }
        self.numerator = numerator;
        let estimate = coefficient * numerator / denominator;
        if self.d == d0 {
            self.d = self.d.max(estimate);
        }
        self.d_max = self.d_max.max(estimate);
        self.d = self.d_max.min(self.d * growth);
        for (i, p) in params.iter_mut().enumerate() {
            let step = old * rates[i] * lead;
            for (j, p) in p.iter_mut().enumerate() {
                let [m, v, _] = self.states[i][j];
                if decoupled != 0.0 {
                    *p *= 1.0 - wd * step;
                }
                *p -= step * m / (v.sqrt() + self.d * eps);
            }
        }
    }
}

#[test]
fn prodigy_has_one_estimate_for_all_groups() {
    // The two groups' arrays alternate: a group's scalar stage must not run twice.
    let shapes: Vec<Matrix> = [32_769, 5, 1024, 0, 4097].map(|n| matrix(1, 1, n, false)).into();
    for (groups, rates) in [([0, 0, 0, 0, 0], [1.0, 1.0]), ([0, 1, 0, 1, 0], [1.0, 1.0]), ([0, 1, 1, 0, 1], [1.0, 0.0])]
    {
        for (bias, safeguard, decoupled, growth) in [(0.0, 0.0, 1.0, f64::INFINITY), (1.0, 1.0, 0.0, 1.02)] {
            let hypers = [0.9, 0.99, 0.995, 1e-8, 0.01, bias, safeguard, decoupled, 1e-2, 2.0, growth];
            let rule = prodigy::prodigy();
            let starts: Vec<Vec<f64>> =
                shapes.iter().zip(1..).map(|(&shape, seed)| random(seed).take(len(shape)).collect()).collect();
            let mut arrays: Vec<Owned> = (0..shapes.len())
                .map(|i| Owned::doubles(rule.rule, &hypers, shapes[i], groups[i], &starts[i]))
                .collect();
            let at_first = arrays.clone();
            let states = starts.iter().map(|start| vec![[0.0; 3]; start.len()]).collect();
            let mut reference = Prodigy { hypers, d: 1e-2, d_max: 1e-2, numerator: 0.0, start: starts.clone(), states };
            let (mut expected, mut shared) = (starts.clone(), first_shared(rule.rule, &hypers));
            let of_arrays = groups.map(|group| rates[group]);
            for t in 1..=STEPS {
                // Gradients that point away from the start, so that the estimate grows.
                let gradients: Vec<Vec<f64>> = starts.iter().map(|p| p.iter().map(|p| p + 0.1).collect()).collect();
                for (array, gradient) in arrays.iter_mut().zip(&gradients) {
                    array.grad = gradient.iter().map(|x| x.to_bits()).collect();
                }
                let mut scalars = rates.map(|lr| scalars(rule.rule, &own_decay(lr), &hypers, t, 1.0));
                run(
                    rule,
                    "step",
                    &mut arrays,
                    &Settings { threads: 2, ..Settings::default() },
                    &mut scalars,
                    &mut shared,
                );
                reference.step(t, &mut expected, &gradients, &of_arrays);
                let what = format!("groups {groups:?} at step {t}");
                for (found, expected) in shared.iter().zip([reference.d, reference.d_max, reference.numerator]) {
                    assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{what}: {found} for {expected}");
                }
            }
            assert!(reference.d > 1.01e-2, "the estimate has not grown");
            for (i, array) in arrays.iter().enumerate() {
                if of_arrays[i] == 0.0 {
                    let kept = array.states.iter().zip(&at_first[i].states).all(|(state, first)| state == first);
                    assert!(kept && array.param == at_first[i].param, "a group without a rate stays as it is");
                    continue;
                }
                close(&doubles(&array.param), &expected[i], &starts[i], &format!("groups {groups:?}, array {i}"));
            }
        }
    }
}
