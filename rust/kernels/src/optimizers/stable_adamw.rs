//! StableAdamW. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper(beta1, beta2, eps, weight_decay);
    each_step(lr, t) {
        // With these no bias correction is needed: at step 1 they are 0.
        old1 = beta1 * (1.0 - pow(beta1, t - 1.0)) / (1.0 - pow(beta1, t));
        old2 = beta2 * (1.0 - pow(beta2, t - 1.0)) / (1.0 - pow(beta2, t));
        new1 = 1.0 - old1;
        new2 = 1.0 - old2;
        least = eps * eps;
        step_size = lr;
    }

    /// StableAdamW (arXiv:2304.13013): AdamW with the learning rate divided by `max(1, rms(g/sqrt(max(v, eps^2))))` for each
    /// array, also that of weight decay.
    stableadamw {
        element m, nonnegative v;
        pass(g) {
            m = fma(old1, m, new1 * g);
            v = fma(old2, v, new2 * g * g);
            let q = g / sqrt(max(v, least));
            mean array { qq = q * q; }
        }
        array {
            rate = step_size / max(1.0, sqrt(qq));
            kept = 1.0 - rate * weight_decay;
        }
        pass(p) {
            p = fma(-rate, m / (sqrt(v) + eps), p * kept);
        }
    }
}
