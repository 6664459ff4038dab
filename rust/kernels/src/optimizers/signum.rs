//! Signs of gradients, or of their momentum. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper(momentum);
    each_step(lr, t) {
        step_size = lr;
        one_minus_momentum = 1.0 - momentum;
    }

    /// SignSGD (arXiv:1802.04434): `p -= lr * sign(g)`.
    signsgd {
        pass(p, g) {
            p = fma(-step_size, sign(g), p);
        }
    }

    /// Signum (arXiv:1802.04434): `m = momentum*m + (1-momentum)*g; p -= lr * sign(m)`.
    signum {
        element m;
        pass(p, g) {
            m = fma(momentum, m, one_minus_momentum * g);
            p = fma(-step_size, sign(m), p);
        }
    }
}
