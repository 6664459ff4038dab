//! Rectified Adam.

use crate::math::{fma, select, sqrt};
use crate::rule::{pow, rules};

rules! {
    // frozen is 0 or 1: what happens while the variance cannot be rectified.
    hyper(beta1, beta2, eps, threshold, frozen);
    each_step(lr, t) {
        beta1 = beta1;
        beta2 = beta2;
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        rectified = if length(beta2, t) > threshold { 1.0 } else { 0.0 };
        step_size = {
            let rho_inf = 2.0 / (1.0 - beta2) - 1.0;
            let rho = length(beta2, t);
            let rectifier = if rectified != 0.0 {
                let numerator = (rho - 4.0) * (rho - 2.0) * rho_inf;
                let denominator = (rho_inf - 4.0) * (rho_inf - 2.0) * rho;
                (numerator / denominator * (1.0 - pow(beta2, t))).sqrt()
            } else if frozen != 0.0 {
                0.0
            } else {
                1.0
            };
            lr / (1.0 - pow(beta1, t)) * rectifier
        };
        eps = eps;
    };
    still { rectified == 0.0 && frozen != 0.0 }

    /// RAdam (arXiv:1908.03265): with `rho = rho_inf - 2*t*beta2^t/(1-beta2^t)` and `rho_inf = 2/(1-beta2) - 1`,
    /// `p -= lr * (m/bc1) * r*sqrt(bc2)/(sqrt(v) + eps)` where `rho > threshold`, else `p -= lr*m/bc1`, or nothing;
    /// `r = sqrt((rho-4)(rho-2)rho_inf / ((rho_inf-4)(rho_inf-2)rho))`.
    radam {
        hides nan;
        state(m, v);
        update(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            let d = select(rectified != 0.0, m / (sqrt(v) + eps), m);
            p = select(step_size != 0.0, fma(-step_size, d, p), p);
        }
    }
}

/// The length of the simple moving average that the second moment stands for at step `t`.
fn length(beta2: f64, t: f64) -> f64 {
    let power = pow(beta2, t);
    2.0 / (1.0 - beta2) - 1.0 - 2.0 * t * power / (1.0 - power)
}
