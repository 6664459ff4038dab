//! The float64 scalars of a step: hyperparameters, the prologue, clipping. Knows no array.

use super::Rule;
use crate::numeric::fpenv;

/// Number of scalars of the prologue, which precede the rule's own.
pub const PROLOGUE_SCALARS: usize = 3;
/// The index of the weight decay that is added to gradients.
pub const L2: usize = 1;
/// The index of the factor that multiplies the parameter.
pub const DECAY: usize = 2;

/// The names of the prologue's scalars.
pub const PROLOGUE_NAMES: [&str; PROLOGUE_SCALARS] = ["gradient_factor", "l2", "decay"];
/// The statements that precede the rule's own: the first two where a pass reads the gradient, the third in the pass that writes
/// the parameter. The second is skipped where `l2` is 0, so that a zero does not turn an infinite parameter into NaN.
pub const PROLOGUE: [&str; 3] = ["g = g * gradient_factor", "g = fma(l2, p, g)", "p = p * decay"];

/// How `weight_decay` acts; the prologue applies it, so rules need not.
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
    /// The schedule's base learning rate; read by [`Decay::Independent`] only.
    pub initial_lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// How weight decay acts.
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
    /// unscaling. Scalars of scope `all` and `array` are set to zero.
    ///
    /// # Panics
    /// When the length of `hypers` is not that of [`Rule::hypers`].
    pub fn scalars(&self, common: &Common, hypers: &[f64], t: u64, gradient_factor: f64, into: &mut Vec<f64>) {
        into.clear();
        into.resize(self.scalars.len(), 0.0);
        self.fill_scalars(common, hypers, t, gradient_factor, into);
    }

    /// Writes the scalars into a slice of zeros with the length of [`Rule::scalars`](field@Rule::scalars).
    pub(crate) fn fill_scalars(&self, common: &Common, hypers: &[f64], t: u64, gradient_factor: f64, into: &mut [f64]) {
        assert_eq!(hypers.len(), self.hypers.len(), "hyperparameters of {}", self.name);
        fpenv::standard(|| {
            into[0] = if common.maximize { -gradient_factor } else { gradient_factor };
            into[L2] = if common.decay == Decay::L2 { common.weight_decay } else { 0.0 };
            into[DECAY] = match common.decay {
                Decay::L2 | Decay::Own => 1.0,
                Decay::Decoupled => 1.0 - common.lr * common.weight_decay,
                // A learning rate that starts at zero has no multiplier, so there is no decay.
                Decay::Independent if common.initial_lr == 0.0 => 1.0,
                Decay::Independent => 1.0 - common.lr / common.initial_lr * common.weight_decay,
            };
            (self.host)(common, hypers, t as f64, into);
        });
    }
}

/// The function of a stage without scalar statements.
#[doc(hidden)]
pub fn no_text(_: &mut [f64]) {}

/// The factor for gradients that are divided by `grad_scale` and not clipped.
pub fn unscale_factor(grad_scale: f64) -> f64 {
    fpenv::standard(|| 1.0 / grad_scale)
}
