//! The safe front for Rust programs: what it computes, and what it refuses.

use half::bf16;
use schuss::{Common, Decay, Optimizer, rules};

fn common(lr: f64) -> Common {
    Common { lr, ..Common::default() }
}

#[test]
fn gradient_descent_is_what_it_says() {
    let (mut a, mut b) = ([1.0f64, -2.0], [0.5f64]);
    let hypers = ["momentum", "dampening", "velocity", "ema", "nesterov", "debias"].map(|name| (name, 0.0));
    let mut sgd = Optimizer::new(rules::sgd::sgd(), &hypers, common(0.5)).unwrap();
    sgd.step(&mut [&mut a, &mut b], &[&[2.0, 4.0], &[1.0]]).unwrap();
    assert_eq!((a, b), ([0.0, -4.0], [0.0]));
}

#[test]
fn two_byte_parameters_take_float_gradients() {
    let mut p = [bf16::from_f32(1.0); 5];
    let mut adagrad = Optimizer::new(
        rules::adagrad::adagrad(),
        &[("lr_decay", 0.0), ("eps", 0.0), ("eps_inside_sqrt", 0.0)],
        Common { weight_decay: 0.5, decay: Decay::Decoupled, ..common(0.5) },
    )
    .unwrap();
    adagrad.step(&mut [&mut p], &[&[3.0f32; 5]]).unwrap();
    assert!(p.iter().all(|x| x.to_f32() == 0.25)); // 1 * (1 - 0.5 * 0.5) - 0.5 * 3/3
}

#[test]
fn wrong_calls_say_what_is_wrong_and_change_nothing() {
    let rule = rules::adagrad::adagrad();
    let missing = Optimizer::<f32>::new(rule, &[("eps", 0.0)], common(0.1)).err().unwrap();
    assert_eq!(
        missing.to_string(),
        r#"adagrad takes the hyperparameters ["lr_decay", "eps", "eps_inside_sqrt"], each once"#
    );
    let hypers = [("lr_decay", 0.0), ("eps", 0.0), ("eps_inside_sqrt", 0.0)];
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
