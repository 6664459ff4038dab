//! Adai: momentum that is adapted for each element. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper(beta0, beta2, eps, dampening);
    each_step(lr, t) {
        one_minus_beta2 = 1.0 - beta2;
        inv_bias2 = 1.0 / (1.0 - pow(beta2, t));
        power = 1.0 / (3.0 - 2.0 * dampening);
        step_size = lr * pow(beta0, 1.0 - dampening);
    }

    /// Adai (arXiv:2006.15815): `v = beta2*v + (1-beta2)*g^2`, `h = v/bc2`, its mean over all arrays at least 0.001;
    /// `c = min(max(beta0 * (h/mean)^(1/(3-2*dampening)), eps), 1)`, one minus the momentum; `m = (1-c)*m + c^dampening*g;
    /// w = (1-c)*w + c; p -= lr * beta0^(1-dampening) * m/w`.
    adai {
        element m, nonnegative v, nonnegative w;
        pass(p, g) {
            v = fma(beta2, v, one_minus_beta2 * g * g);
            let h = v * inv_bias2;
            sum all { total = h; elements = 1.0; }
        }
        all {
            inv_mean = 1.0 / max(total / elements, 1e-3);
        }
        pass(p, g) {
            let h = v * inv_bias2;
            let c = max(min(beta0 * pow(h * inv_mean, power), 1.0), eps);
            let kept = 1.0 - c;
            m = fma(kept, m, pow(c, dampening) * g);
            w = fma(kept, w, c);
            p = fma(-step_size, m / w, p);
        }
    }
}
