//! The float64 scalars of a step: hyperparameters, the prologue, clipping.

use super::Rule;
use crate::numeric::fpenv;

/// How many scalars the prologue takes, in front of the rule's own.
pub const PROLOGUE_SCALARS: usize = 3;
/// Which of them is the weight decay that is added to gradients.
pub const L2: usize = 1;
/// And which is what the parameter is multiplied by.
pub const DECAY: usize = 2;

/// What the scalars of the prologue are called.
pub const PROLOGUE_NAMES: [&str; PROLOGUE_SCALARS] = ["gradient_factor", "l2", "decay"];
/// What happens where a pass reads the gradient, and in the pass that writes the parameter, before the rule's own text. The
/// second line is left out where `l2` is 0, so that a zero does not turn an infinite parameter into NaN.
pub const PROLOGUE: [&str; 3] = ["g = g * gradient_factor", "g = fma(l2, p, g)", "p = p * decay"];

/// How `weight_decay` acts; the prologue applies it, no rule repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// `g += weight_decay * p`, before anything else.
    L2,
    /// `p *= 1 - lr * weight_decay`.
    Decoupled,
    /// `p *= 1 - (lr / initial_lr) * weight_decay`: the schedule's multiplier without the learning rate.
    Independent,
    /// The rule takes it as a hyperparameter and applies it itself.
    Own,
}

/// The hyperparameters that every rule has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Common {
    /// Learning rate of this step.
    pub lr: f64,
    /// Learning rate that a schedule started from; read by [`Decay::Independent`] only.
    pub initial_lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// What weight decay means.
    pub decay: Decay,
    /// Ascend instead of descend.
    pub maximize: bool,
}

impl Default for Common {
    /// lr 1e-3, no weight decay, descending.
    fn default() -> Self {
        Common { lr: 1e-3, initial_lr: 1e-3, weight_decay: 0.0, decay: Decay::L2, maximize: false }
    }
}

impl Rule {
    /// The scalars of step `t` (counted from 1), written to `into`. `gradient_factor` multiplies every gradient: clipping and
    /// unscaling. Scalars of scope `all` and `array` are zero.
    ///
    /// # Panics
    /// When `hypers` has another length than [`Rule::hypers`].
    pub fn scalars(&self, common: &Common, hypers: &[f64], t: u64, gradient_factor: f64, into: &mut Vec<f64>) {
        into.clear();
        into.resize(self.scalars.len(), 0.0);
        self.fill_scalars(common, hypers, t, gradient_factor, into);
    }

    /// The same for a slice of zeros, of the length of [`Rule::scalars`](field@Rule::scalars).
    pub(crate) fn fill_scalars(&self, common: &Common, hypers: &[f64], t: u64, gradient_factor: f64, into: &mut [f64]) {
        assert_eq!(hypers.len(), self.hypers.len(), "hyperparameters of {}", self.name);
        fpenv::standard(|| {
            into[0] = if common.maximize { -gradient_factor } else { gradient_factor };
            into[L2] = if common.decay == Decay::L2 { common.weight_decay } else { 0.0 };
            into[DECAY] = match common.decay {
                Decay::L2 | Decay::Own => 1.0,
                Decay::Decoupled => 1.0 - common.lr * common.weight_decay,
                // A learning rate that starts at zero has no multiplier: no decay then.
                Decay::Independent if common.initial_lr == 0.0 => 1.0,
                Decay::Independent => 1.0 - common.lr / common.initial_lr * common.weight_decay,
            };
            (self.host)(common, hypers, t as f64, into);
        });
    }
}

/// The text of a stage that has none over scalars.
#[doc(hidden)]
pub fn no_text(_: &mut [f64]) {}

/// The factor for gradients that are divided by `grad_scale` and not clipped.
pub fn unscale_factor(grad_scale: f64) -> f64 {
    fpenv::standard(|| 1.0 / grad_scale)
}
