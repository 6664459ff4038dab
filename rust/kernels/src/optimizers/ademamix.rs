//! AdEMAMix. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // A warm-up of 1 step is none.
    hyper(beta1, beta2, beta3, eps, alpha, alpha_warmup, beta3_warmup);
    each_step(lr, t) {
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        let part = t / beta3_warmup;
        // From beta1 to beta3, in equal steps of the time in which an average forgets.
        slow = if part < 1.0 && beta3 > 0.0 {
            pow(beta3, 1.0 / ((1.0 - part) * log(beta3) / log(beta1) + part))
        } else {
            beta3
        };
        one_minus_slow = 1.0 - slow;
        inv_bias1 = 1.0 / (1.0 - pow(beta1, t));
        inv_bias2_sqrt = 1.0 / sqrt(1.0 - pow(beta2, t));
        of_slow = alpha * min(t / alpha_warmup, 1.0);
        step_size = lr;
    }

    /// AdEMAMix (arXiv:2409.03137): Adam with a second, slow average: `m = beta1*m + (1-beta1)*g;
    /// m2 = slow*m2 + (1-slow)*g; v = beta2*v + (1-beta2)*g^2;
    /// p -= lr * (m/bc1 + of_slow*m2) / (sqrt(v)/sqrt(bc2) + eps)` with `bc = 1 - beta^t`.
    ademamix {
        element m, m2, nonnegative v;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            m2 = fma(slow, m2, one_minus_slow * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            let u = fma(of_slow, m2, inv_bias1 * m);
            p = fma(-step_size, u / fma(sqrt(v), inv_bias2_sqrt, eps), p);
        }
    }
}
