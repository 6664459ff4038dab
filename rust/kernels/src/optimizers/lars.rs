//! LARS: momentum with a trust ratio for each array. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // nesterov, trust_clip, always_adapt, lr_in_momentum and adapt are 0 or 1.
    hyper(
        momentum, dampening, weight_decay, trust_coefficient, eps, nesterov, trust_clip, always_adapt, lr_in_momentum, adapt
    );
    each_step(lr, t) {
        rate = lr;
        into_buffer = if lr_in_momentum != 0.0 { lr } else { 1.0 };
        of_buffer = if lr_in_momentum != 0.0 { 1.0 } else { lr };
        mu = if t == 1.0 { 0.0 } else { momentum };
        gain = if t == 1.0 { 1.0 } else { 1.0 - dampening };
        ahead = if nesterov != 0.0 { momentum } else { 0.0 };
        adapted = if adapt != 0.0 && (weight_decay != 0.0 || always_adapt != 0.0) { 1.0 } else { 0.0 };
    }

    /// LARS (arXiv:1708.03888): for each array `ratio = trust_coefficient*|p| / (|g| + wd*|p| + eps)`;
    /// `d = ratio*(g + wd*p); b = mu*b + (1-dampening)*d; p -= lr*b`, with Nesterov `p -= lr*(d + mu*b)`; or, with the rate in the
    /// momentum, `d = lr*ratio*(g + wd*p)` without the later `lr`. Step 1 copies into the buffer, so dampening does not act then.
    lars {
        element b;
        pass(p, g) {
            fast sum array { pp = p * p; gg = g * g; }
        }
        array {
            let norm_p = sqrt(pp);
            let norm_g = sqrt(gg);
            let trusted = trust_coefficient * norm_p / (norm_g + weight_decay * norm_p + eps);
            let relative = trusted / rate;
            // A NaN fails the comparison and is kept.
            let bounded = select(trust_clip != 0.0, select(relative > 1.0, 1.0, relative), trusted);
            ratio = select(adapted == 0.0 || norm_p == 0.0 || norm_g == 0.0, 1.0, bounded);
        }
        pass(p, g) {
            let decayed = select(weight_decay != 0.0, fma(weight_decay, p, g), g);
            let d = into_buffer * ratio * decayed;
            b = select(mu != 0.0, fma(mu, b, gain * d), d);
            let update = select(ahead != 0.0, fma(ahead, b, d), b);
            p = fma(-of_buffer, update, p);
        }
    }
}
