//! Adamax. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // keras_eps is 0 or 1.
    hyper(beta1, beta2, eps, keras_eps);
    each_step(lr, t) {
        one_minus_beta1 = 1.0 - beta1;
        step_size = lr / (1.0 - pow(beta1, t));
        eps_inside = if keras_eps != 0.0 { 0.0 } else { eps };
        eps_outside = if keras_eps != 0.0 { eps } else { 0.0 };
    }

    /// Adamax (arXiv:1412.6980, section 7): `m = beta1*m + (1-beta1)*g; u = max(beta2*u, abs(g) + eps);
    /// p -= lr/bc1 * m/u`; Keras adds `eps` to the divisor instead.
    adamax {
        element m, nonnegative u;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            u = max(beta2 * u, abs(g) + eps_inside);
            p = fma(-step_size, m / (u + eps_outside), p);
        }
    }
}
