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
            // In two factors: where gradients are tiny, one would be infinite in float32, and a NaN times 0.
            root = if pp == 0.0 || gg == 0.0 { 1.0 } else { sqrt(sqrt(pp) / sqrt(gg)) };
            rate = step_size * root;
        }
        pass(p, g) {
            p = fma(-rate, root * g, p) * shrink;
        }
    }
}
