//! LAMB: Adam with a trust ratio for each array.

use crate::math::{fma, select, sqrt};
use crate::rule::{pow, rules};

rules! {
    // bias_correction, grad_averaging, always_adapt, trust_clip and adapt are 0 or 1.
    hyper(beta1, beta2, eps, weight_decay, bias_correction, grad_averaging, always_adapt, trust_clip, adapt);
    each_step(lr, t) {
        ratio = 1.0;
        beta1 = beta1;
        beta2 = beta2;
        beta3 = if grad_averaging != 0.0 { 1.0 - beta1 } else { 1.0 };
        one_minus_beta2 = 1.0 - beta2;
        inv_bias1 = if bias_correction != 0.0 { 1.0 / (1.0 - pow(beta1, t)) } else { 1.0 };
        inv_bias2_sqrt = if bias_correction != 0.0 { 1.0 / (1.0 - pow(beta2, t)).sqrt() } else { 1.0 };
        eps = eps;
        decay_rate = weight_decay;
        rate = lr;
        clipped = trust_clip;
        adapted = if adapt != 0.0 && (weight_decay != 0.0 || always_adapt != 0.0) { 1.0 } else { 0.0 };
    }

    /// The first phase of LAMB: `m` and `v` as in Adam, and the direction
    /// `u = (m/bc1)/(sqrt(v/bc2) + eps) + wd*p`.
    lamb_direction {
        state(m, v);
        update(p, g) {
            m = fma(beta1, m, beta3 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            let u = inv_bias1 * m / fma(sqrt(v), inv_bias2_sqrt, eps);
            p = select(decay_rate != 0.0, fma(decay_rate, p, u), u);
        }
    }

    /// LAMB (arXiv:1904.00962): `p -= lr * ratio * u` with `ratio = |p|/|u|` for each array. The direction is computed
    /// again from `m` and `v`: that moves fewer bytes than keeping it.
    lamb {
        layerwise (lamb_direction) (norm_p, norm_u) {
            let quotient = norm_p / norm_u;
            // Not min, which would hide a NaN.
            let bounded = select(clipped != 0.0 && quotient > 1.0, 1.0, quotient);
            ratio = select(adapted == 0.0 || norm_p == 0.0 || norm_u == 0.0, 1.0, bounded);
        }
        reads(m, v);
        update(p) {
            let u = inv_bias1 * m / fma(sqrt(v), inv_bias2_sqrt, eps);
            let d = select(decay_rate != 0.0, fma(decay_rate, p, u), u);
            p = fma(-(rate * ratio), d, p);
        }
    }
}
