//! Yogi. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper(beta1, beta2, eps, initial_momentum, initial_accumulator_value);
    each_step(lr, t) {
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        step_size = lr / (1.0 - pow(beta1, t));
        inv_bias2_sqrt = 1.0 / sqrt(1.0 - pow(beta2, t));
    }

    /// Yogi (Zaheer et al., NeurIPS 2018): `m = beta1*m + (1-beta1)*g; v -= (1-beta2)*sign(v - g^2)*g^2;
    /// p -= lr/bc1 * m/(sqrt(v)/sqrt(bc2) + eps)` with `bc = 1 - beta^t`.
    yogi {
        element m = initial_momentum, nonnegative v = initial_accumulator_value;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            let square = g * g;
            v = fma(-one_minus_beta2 * sign(v - square), square, v);
            p = fma(-step_size, m / fma(sqrt(v), inv_bias2_sqrt, eps), p);
        }
    }
}
