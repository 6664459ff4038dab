//! Fromage. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper();
    each_step(lr, t) {
        step_size = lr;
        shrink = 1.0 / sqrt(1.0 + lr * lr);
    }

    /// Fromage (arXiv:2002.03432): for each array `p = (p - lr * |p|/|g| * g) / sqrt(1 + lr^2)`; the ratio is 1 if either norm
    /// is 0.
    fromage {
        pass(p, g) {
            fast sum array { pp = p * p; gg = g * g; }
        }
        array {
            rate = step_size * if pp == 0.0 || gg == 0.0 { 1.0 } else { sqrt(pp) / sqrt(gg) };
        }
        pass(p, g) {
            p = fma(-rate, g, p) * shrink;
        }
    }
}
