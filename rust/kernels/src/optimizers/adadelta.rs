//! Adadelta. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper(rho, eps);
    each_step(lr, t) {
        step_size = lr;
        one_minus_rho = 1.0 - rho;
    }

    /// Adadelta (arXiv:1212.5701): `v = rho*v + (1-rho)*g^2; d = sqrt(u + eps)/sqrt(v + eps) * g;
    /// u = rho*u + (1-rho)*d^2; p -= lr*d`.
    adadelta {
        element nonnegative v, nonnegative u;
        pass(p, g) {
            v = fma(rho, v, one_minus_rho * g * g);
            let d = sqrt(u + eps) / sqrt(v + eps) * g;
            u = fma(rho, u, one_minus_rho * d * d);
            p = fma(-step_size, d, p);
        }
    }
}
