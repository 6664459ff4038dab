//! Tests of the safe API for Rust programs: its results and its errors. Knows no driver.

use half::bf16;
use schuss::{Common, Decay, Optimizer, optimizers};

fn common(lr: f64) -> Common {
    Common { lr, ..Common::default() }
}

#[test]
fn gradient_descent_is_what_it_says() {
    let (mut a, mut b) = ([1.0f64, -2.0], [0.5f64]);
    let mut sgd = Optimizer::new(optimizers::sgd::sgd(), &[], common(0.5)).unwrap();
    sgd.step(&mut [&mut a, &mut b], &[&[2.0, 4.0], &[1.0]]).unwrap();
    assert_eq!((a, b), ([0.0, -4.0], [0.0]));
}

#[test]
fn two_byte_parameters_take_float_gradients() {
    let mut p = [bf16::from_f32(1.0); 5];
    let mut adagrad = Optimizer::new(
        optimizers::adagrad::adagrad(),
        &[("lr_decay", 0.0), ("eps", 0.0), ("eps_inside_sqrt", 0.0), ("initial_accumulator_value", 0.0)],
        Common { weight_decay: 0.5, decay: Decay::Decoupled, ..common(0.5) },
    )
    .unwrap();
    adagrad.step(&mut [&mut p], &[&[3.0f32; 5]]).unwrap();
    assert!(p.iter().all(|x| x.to_f32() == 0.25)); // 1 * (1 - 0.5 * 0.5) - 0.5 * 3/3
}

#[test]
fn wrong_calls_say_what_is_wrong_and_change_nothing() {
    let rule = optimizers::adagrad::adagrad();
    let missing = Optimizer::<f32>::new(rule, &[("eps", 0.0)], common(0.1)).err().unwrap();
    assert_eq!(
        missing.to_string(),
        "adagrad takes the hyperparameters \
         [\"lr_decay\", \"eps\", \"eps_inside_sqrt\", \"initial_accumulator_value\"], each once"
    );
    let hypers = [("lr_decay", 0.0), ("eps", 0.0), ("eps_inside_sqrt", 0.0), ("initial_accumulator_value", 0.0)];
    let mut optimizer = Optimizer::new(rule, &hypers, common(0.1)).unwrap();
    let (mut a, mut b) = ([1.0f32; 3], [1.0f32; 2]);
    let error = optimizer.step(&mut [&mut a], &[&[1.0f32; 2][..]]).unwrap_err();
    assert_eq!(error.to_string(), "parameter 0 has 3 elements, its gradient 2");
    let error = optimizer.step::<f32>(&mut [&mut a], &[]).unwrap_err();
    assert_eq!(error.to_string(), "1 parameters but 0 gradients");
    assert_eq!(a, [1.0; 3]);
    optimizer.step(&mut [&mut a], &[&[1.0f32; 3]]).unwrap();
    let error = optimizer.step(&mut [&mut b], &[&[1.0f32; 2]]).unwrap_err();
    assert_eq!(error.to_string(), "the parameters have other lengths than at the first step");
    assert_eq!(b, [1.0; 2]);
}

#[test]
fn states_start_where_the_rule_says() {
    // A hyperparameter as the initial value.
    let mut p = [1.0f64];
    let hypers = [("lr_decay", 0.0), ("eps", 0.0), ("eps_inside_sqrt", 0.0), ("initial_accumulator_value", 16.0)];
    let mut adagrad = Optimizer::new(optimizers::adagrad::adagrad(), &hypers, common(1.0)).unwrap();
    adagrad.step(&mut [&mut p], &[&[3.0]]).unwrap();
    assert_eq!(p, [1.0 - 3.0 / 5.0]);
    // A copy of the parameter as the initial value, and numbers that all arrays share and that persist across steps.
    let names = [
        "beta1",
        "beta2",
        "beta3",
        "eps",
        "weight_decay",
        "bias_correction",
        "safeguard",
        "decoupled",
        "d0",
        "d_coef",
        "growth_rate",
    ];
    let values = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.5, 1.0, f64::INFINITY];
    let hypers: Vec<_> = names.into_iter().zip(values).collect();
    let mut prodigy = Optimizer::new(optimizers::prodigy::prodigy(), &hypers, common(1.0)).unwrap();
    let (mut a, mut b) = ([4.0f64], [-4.0f64]);
    // Every step moves by d: the largest mean distance from the start so far, once it exceeds the initial d.
    for expected in [3.5, 3.0, 2.5, 1.75] {
        prodigy.step(&mut [&mut a, &mut b], &[&[1.0], &[-1.0]]).unwrap();
        assert_eq!((a, b), ([expected], [-expected]));
    }
}

#[test]
fn rules_that_need_more_than_slices_are_refused() {
    use optimizers::{muon::muon, nag::nag, radam::radam_centralized, tools::lookahead};
    for rule in [radam_centralized(), nag(), muon(), lookahead()] {
        let hypers: Vec<_> = rule.rule.hypers.iter().map(|&name| (name, 0.5)).collect();
        let error = Optimizer::<f32>::new(rule, &hypers, common(0.1)).err().unwrap();
        assert_eq!(error.to_string(), format!("{} needs more than slices; use WorkList", rule.rule.name));
    }
}
