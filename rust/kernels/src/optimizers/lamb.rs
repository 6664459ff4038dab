//! LAMB: Adam with a trust ratio for each array. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // bias_correction, grad_averaging, always_adapt, trust_clip and adapt are 0 or 1.
    hyper(beta1, beta2, eps, weight_decay, bias_correction, grad_averaging, always_adapt, trust_clip, adapt);
    each_step(lr, t) {
        beta3 = if grad_averaging != 0.0 { 1.0 - beta1 } else { 1.0 };
        one_minus_beta2 = 1.0 - beta2;
        inv_bias1 = if bias_correction != 0.0 { 1.0 / (1.0 - pow(beta1, t)) } else { 1.0 };
        inv_bias2_sqrt = if bias_correction != 0.0 { 1.0 / sqrt(1.0 - pow(beta2, t)) } else { 1.0 };
        rate = lr;
        adapted = if adapt != 0.0 && (weight_decay != 0.0 || always_adapt != 0.0) { 1.0 } else { 0.0 };
    }

    /// LAMB (arXiv:1904.00962): `m` and `v` as in Adam, `u = (m/bc1)/(sqrt(v/bc2) + eps) + wd*p`, and for each array
    /// `p -= lr * ratio * u` with `ratio = |p|/|u|`. For arrays larger than the caches the direction is computed again from
    /// `m` and `v`: that moves fewer bytes than storing it.
    lamb {
        element m, nonnegative v;
        def direction(m, v, p) {
            let adam = inv_bias1 * m / fma(sqrt(v), inv_bias2_sqrt, eps);
            select(weight_decay != 0.0, fma(weight_decay, p, adam), adam)
        }
        pass(p, g) {
            m = fma(beta1, m, beta3 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            let u = direction(m, v, p);
            fast sum array { pp = p * p; uu = u * u; }
        }
        array {
            let norm_p = sqrt(pp);
            let norm_u = sqrt(uu);
            let quotient = norm_p / norm_u;
            // A NaN fails the comparison and is kept.
            let bounded = select(trust_clip != 0.0 && quotient > 1.0, 1.0, quotient);
            ratio = select(adapted == 0.0 || norm_p == 0.0 || norm_u == 0.0, 1.0, bounded);
        }
        pass(p) {
            recall u = direction(m, v, p);
            p = fma(-(rate * ratio), u, p);
        }
    }
}
