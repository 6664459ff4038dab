//! ADOPT. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // unclipped is 1, or infinity if there is no bound.
    hyper(beta1, beta2, eps, clip_exp, unclipped);
    each_step(lr, t) {
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        step_size = lr;
        later = if t == 1.0 { 0.0 } else { 1.0 };
        bound = unclipped * pow(max(t - 1.0, 1.0), clip_exp);
        // The first step does not change the parameter.
        decay = if t == 1.0 { 1.0 } else { decay };
    }

    /// ADOPT (arXiv:2411.02853): step 1 only sets `v = g^2`; later `n = clip(g/max(sqrt(v), eps), -c, c)` with the old `v`
    /// and `c = (t-1)^clip_exp`, `m = beta1*m + (1-beta1)*n; p -= lr*m; v = beta2*v + (1-beta2)*g^2`.
    adopt {
        element m, nonnegative v;
        pass(p, g) {
            let n = min(max(g / max(sqrt(v), eps), -bound), bound);
            m = select(later != 0.0, fma(beta1, m, one_minus_beta1 * n), m);
            p = select(later != 0.0, fma(-step_size, m, p), p);
            let square = g * g;
            v = select(later != 0.0, fma(beta2, v, one_minus_beta2 * square), square);
        }
    }
}
