//! PAdam. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper(beta1, beta2, partial, eps);
    each_step(lr, t) {
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        step_size = lr * sqrt(1.0 - pow(beta2, t)) / (1.0 - pow(beta1, t));
        exponent = 2.0 * partial;
    }

    /// PAdam (arXiv:1806.06763): Adam's `m` and `v`; `p -= lr*sqrt(bc2)/bc1 * m/(sqrt(v) + eps)^(2*partial)` with
    /// `bc = 1 - beta^t`.
    padam {
        element m, nonnegative v;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            p = fma(-step_size, m / pow(sqrt(v) + eps, exponent), p);
        }
    }

    /// PAdam with the largest `v` so far in the denominator.
    padam_amsgrad {
        element m, nonnegative v, nonnegative vmax;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            vmax = max(vmax, v);
            p = fma(-step_size, m / pow(sqrt(vmax) + eps, exponent), p);
        }
    }
}
