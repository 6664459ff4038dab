//! Tests of programs that move the parameter and back it up: NAG looks ahead, and its step starts from the backup. Knows no
//! Python.

mod support;

use schuss::optimizers::nag;
use schuss::{Common, Dtype};
use support::{Owned, Settings, buffer, doubles, matrix, random, run, scalars};

const N: usize = 3000;
const HYPERS: [f64; 4] = [0.9, 0.0, 0.0, 1.0];

#[test]
fn the_step_starts_where_the_parameter_was() {
    let rule = nag::nag();
    let start: Vec<f64> = random(1).take(N).collect();
    let gradient: Vec<f64> = random(2).take(N).collect();
    let mut arrays = [Owned::doubles(rule.rule, &HYPERS, matrix(1, 1, N, false), 0, &start)];
    let (mut p, mut b) = (start, vec![0.0; N]);
    for t in 1..4 {
        let mut of_group = [scalars(rule.rule, &Common { lr: 0.1, ..Common::default() }, &HYPERS, t, 1.0)];
        arrays[0].grad = buffer(Dtype::F64, gradient.iter().copied());
        run(rule, "look_ahead", &mut arrays, &Settings::default(), &mut of_group, &mut []);
        let ahead: Vec<f64> = p.iter().zip(&b).map(|(p, b)| p - 0.1 * 0.9 * b).collect();
        assert_eq!(doubles(&arrays[0].param), ahead);
        assert_eq!(doubles(&arrays[0].backup), p);
        run(rule, "step", &mut arrays, &Settings::default(), &mut of_group, &mut []);
        for ((p, b), g) in p.iter_mut().zip(&mut b).zip(&gradient) {
            *b = if t == 1 { *g } else { f64::mul_add(0.9, *b, *g) };
            *p -= 0.1 * *b;
        }
        assert_eq!(doubles(&arrays[0].param), p);
    }
}

#[test]
fn a_float32_copy_stays_while_what_is_rounded_from_it_looks_ahead() {
    let rule = nag::nag();
    let values = |seed| random(seed).take(N);
    let make = || Owned {
        param: buffer(Dtype::F32, values(1)),
        grad: buffer(Dtype::F32, values(2)),
        states: vec![buffer(Dtype::F32, values(3)), Vec::new()],
        param_type: Dtype::F32,
        grad_type: Dtype::F32,
        backup: vec![0; N / 2],
        ..Owned::doubles(rule.rule, &HYPERS, matrix(1, 1, N, false), 0, &[0.0; N])
    };
    let (mut plain, mut rounded) = ([make()], [make()]);
    // The backup has the rounded type's length: writing a longer one would go out of bounds.
    rounded[0].backup = vec![0; N / 4];
    rounded[0].rounded = Some((Dtype::Bf16, buffer(Dtype::Bf16, values(1))));
    let mut of_group = [scalars(rule.rule, &Common { lr: 0.1, ..Common::default() }, &HYPERS, 2, 1.0)];
    run(rule, "look_ahead", &mut rounded, &Settings::default(), &mut of_group, &mut []);
    assert!(rounded[0].param == plain[0].param, "the copy has moved");
    assert!(rounded[0].backup == buffer(Dtype::Bf16, values(1)));
    assert!(rounded[0].rounded.as_ref().unwrap().1 != rounded[0].backup, "nothing has moved");
    for arrays in [&mut plain, &mut rounded] {
        if arrays[0].rounded.is_none() {
            run(rule, "look_ahead", arrays, &Settings::default(), &mut of_group, &mut []);
        }
        run(rule, "step", arrays, &Settings::default(), &mut of_group, &mut []);
    }
    assert!(rounded[0].param == plain[0].param && rounded[0].states == plain[0].states);
}
