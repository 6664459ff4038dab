//! Aggregated momentum, with two to four buffers. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // share is the part of a step that each buffer has: 1 divided by their number.
    hyper(beta1, beta2, beta3, beta4, share);
    each_step(lr, t) {
        step_size = lr * share;
    }

    /// AggMo (arXiv:1804.00325) with two buffers: `b_i = beta_i*b_i + g; p -= lr/2 * (b1 + b2)`.
    aggmo2 {
        element b1, b2;
        pass(p, g) {
            b1 = fma(beta1, b1, g);
            b2 = fma(beta2, b2, g);
            p = fma(-step_size, b1 + b2, p);
        }
    }

    /// AggMo with three buffers.
    aggmo3 {
        element b1, b2, b3;
        pass(p, g) {
            b1 = fma(beta1, b1, g);
            b2 = fma(beta2, b2, g);
            b3 = fma(beta3, b3, g);
            p = fma(-step_size, b1 + b2 + b3, p);
        }
    }

    /// AggMo with four buffers.
    aggmo4 {
        element b1, b2, b3, b4;
        pass(p, g) {
            b1 = fma(beta1, b1, g);
            b2 = fma(beta2, b2, g);
            b3 = fma(beta3, b3, g);
            b4 = fma(beta4, b4, g);
            p = fma(-step_size, (b1 + b2) + (b3 + b4), p);
        }
    }
}
