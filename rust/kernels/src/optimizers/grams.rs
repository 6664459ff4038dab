//! Grams. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper(beta1, beta2, eps);
    each_step(lr, t) {
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        step_size = lr / (1.0 - pow(beta1, t));
        inv_bias2_sqrt = 1.0 / sqrt(1.0 - pow(beta2, t));
    }

    /// Grams (arXiv:2412.17107): Adam's step by its size, in the direction of the gradient:
    /// `p -= lr/bc1 * sign(g) * abs(m)/(sqrt(v)/sqrt(bc2) + eps)` with `bc = 1 - beta^t`.
    grams {
        element m, nonnegative v;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            p = fma(-step_size * sign(g), abs(m) / fma(sqrt(v), inv_bias2_sqrt, eps), p);
        }
    }
}
