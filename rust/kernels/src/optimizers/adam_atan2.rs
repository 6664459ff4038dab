//! Adam with an angle in the place of a quotient. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper(beta1, beta2, a, b);
    each_step(lr, t) {
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        step_size = lr * a;
        inv_bias1 = 1.0 / (1.0 - pow(beta1, t));
        b_over_bias2 = b / sqrt(1.0 - pow(beta2, t));
    }

    /// Adam-atan2 (arXiv:2407.05872): Adam's `m` and `v`; `p -= lr*a*atan2(m/bc1, b*sqrt(v/bc2))` with `bc = 1 - beta^t`.
    adamatan2 {
        element m, nonnegative v;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            p = fma(-step_size, atan2(inv_bias1 * m, b_over_bias2 * sqrt(v)), p);
        }
    }
}
