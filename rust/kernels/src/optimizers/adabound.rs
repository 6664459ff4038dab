//! AdaBound, also with the largest second moment so far. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper(beta1, beta2, final_lr, gamma, eps, initial_lr);
    each_step(lr, t) {
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        step_size = lr * sqrt(1.0 - pow(beta2, t)) / (1.0 - pow(beta1, t));
        let target = final_lr * lr / initial_lr;
        low = target * (1.0 - 1.0 / (gamma * t + 1.0));
        high = target * (1.0 + 1.0 / (gamma * t));
    }

    /// AdaBound (arXiv:1902.09843): `m = beta1*m + (1-beta1)*g; v = beta2*v + (1-beta2)*g^2;
    /// p -= clip(lr*sqrt(bc2)/bc1 / (sqrt(v) + eps), low, high) * m` with `bc = 1 - beta^t`; both bounds go to
    /// `final_lr*lr/initial_lr`.
    adabound {
        element m, nonnegative v;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            let rate = min(max(step_size / (sqrt(v) + eps), low), high);
            p = fma(-rate, m, p);
        }
    }

    /// AMSBound: AdaBound with the largest `v` so far in the denominator.
    amsbound {
        element m, nonnegative v, nonnegative vmax;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            vmax = max(vmax, v);
            let rate = min(max(step_size / (sqrt(vmax) + eps), low), high);
            p = fma(-rate, m, p);
        }
    }
}
