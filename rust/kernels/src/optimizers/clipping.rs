//! Gradient-norm clipping as a function: evaluates the rule `clip_norm` for a given sum of squares. Reads no array.

use super::tools::clip_norm;
use crate::numeric::{Squares, fpenv};
use crate::rule::{Common, Kind, Scope};

/// The norm of gradients that are divided by `grad_scale`, and the factor that clips it to `max_norm`:
/// `min(1, max_norm / (norm + 1e-6)) / grad_scale`; NaN stays NaN.
pub fn clip_factor(squares: Squares, grad_scale: f64, max_norm: f64) -> (f64, f64) {
    let rule = clip_norm().rule;
    let mut memory = [0.0; 16];
    let scalars = &mut memory[..rule.scalars.len()];
    rule.fill_scalars(&Common::default(), &[grad_scale, max_norm, squares.unit], 1, 1.0, scalars);
    let place = |name| rule.scalars.iter().position(|&scalar| scalar == name).expect("the rule has it");
    scalars[place("gg")] = squares.sum;
    for stage in rule.programs[0].stages {
        if matches!(stage.kind, Kind::Text(Scope::All)) {
            fpenv::standard(|| (stage.text)(scalars));
        }
    }
    (scalars[place("norm")], scalars[place("factor")])
}
