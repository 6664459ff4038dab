//! LARS: momentum with a trust ratio for each array.

use crate::math::{fma, select};
use crate::rule::rules;
use crate::rules::tools::replace;

rules! {
    // nesterov, trust_clip, always_adapt, lr_in_momentum and adapt are 0 or 1.
    hyper(
        momentum, dampening, weight_decay, trust_coefficient, eps, nesterov, trust_clip, always_adapt, lr_in_momentum, adapt
    );
    each_step(lr, t) {
        ratio = 1.0;
        decay_rate = weight_decay;
        rate = lr;
        into_buffer = if lr_in_momentum != 0.0 { lr } else { 1.0 };
        of_buffer = if lr_in_momentum != 0.0 { 1.0 } else { lr };
        mu = if t == 1.0 { 0.0 } else { momentum };
        gain = if t == 1.0 { 1.0 } else { 1.0 - dampening };
        ahead = if nesterov != 0.0 { momentum } else { 0.0 };
        trust = trust_coefficient;
        eps = eps;
        clipped = trust_clip;
        adapted = if adapt != 0.0 && (weight_decay != 0.0 || always_adapt != 0.0) { 1.0 } else { 0.0 };
    }

    /// LARS (arXiv:1708.03888): for each array `ratio = trust_coefficient*|p| / (|g| + wd*|p| + eps)`;
    /// `b = mu*b + lr*ratio*(g + wd*p); p -= b`. Step 1 copies into the buffer, so dampening does not act then.
    lars {
        layerwise (replace) (norm_p, norm_g) {
            let trusted = trust * norm_p / (norm_g + decay_rate * norm_p + eps);
            let relative = trusted / rate;
            // Not min, which would hide a NaN.
            let bounded = select(clipped != 0.0, select(relative > 1.0, 1.0, relative), trusted);
            ratio = select(adapted == 0.0 || norm_p == 0.0 || norm_g == 0.0, 1.0, bounded);
        }
        state(b);
        update(p, g) {
            let decayed = select(decay_rate != 0.0, fma(decay_rate, p, g), g);
            let d = into_buffer * ratio * decayed;
            b = select(mu != 0.0, fma(mu, b, gain * d), d);
            let step = select(ahead != 0.0, fma(ahead, b, d), b);
            p = fma(-of_buffer, step, p);
        }
    }
}
