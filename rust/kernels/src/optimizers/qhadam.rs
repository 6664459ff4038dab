//! Quasi-hyperbolic Adam; quasi-hyperbolic momentum is `sgd::momentum`. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper(beta1, beta2, nu1, nu2, eps);
    each_step(lr, t) {
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        of_gradient = 1.0 - nu1;
        of_mean = nu1 / (1.0 - pow(beta1, t));
        of_square = 1.0 - nu2;
        of_squares = nu2 / (1.0 - pow(beta2, t));
        step_size = lr;
    }

    /// QHAdam (arXiv:1810.06801): `m = beta1*m + (1-beta1)*g; v = beta2*v + (1-beta2)*g^2;
    /// p -= lr * ((1-nu1)*g + nu1*m/bc1) / (sqrt((1-nu2)*g^2 + nu2*v/bc2) + eps)` with `bc = 1 - beta^t`.
    qhadam {
        element m, nonnegative v;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            let square = g * g;
            v = fma(beta2, v, one_minus_beta2 * square);
            let u = fma(of_mean, m, of_gradient * g);
            // With nu2 = 1, a square that overflows is none of its sum.
            let own = select(of_square != 0.0, of_square * square, 0.0);
            p = fma(-step_size, u / (sqrt(fma(of_squares, v, own)) + eps), p);
        }
    }
}
