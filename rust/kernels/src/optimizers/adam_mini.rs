//! Adam-mini. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper(beta1, beta2, eps);
    each_step(lr, t) {
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        step_size = lr / (1.0 - pow(beta1, t));
        inv_bias2_sqrt = 1.0 / sqrt(1.0 - pow(beta2, t));
    }

    /// Adam-mini (arXiv:2406.16793): AdamW with one second moment for each block of an array, the mean of its elements' squared
    /// gradients. The blocks are the rows of the array as a matrix.
    adammini {
        element m;
        row nonnegative v;
        pass(g) {
            mean row { squares = g * g; }
        }
        row {
            v = fma(beta2, v, one_minus_beta2 * squares);
            denominator = fma(sqrt(v), inv_bias2_sqrt, eps);
        }
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            p = fma(-step_size, m / denominator, p);
        }
    }
}
