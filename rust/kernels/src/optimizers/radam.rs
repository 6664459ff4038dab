//! Rectified Adam, also with centralized gradients, which is the fast optimizer of Ranger. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // frozen is 0 or 1: whether parameters stay unchanged while the variance cannot be rectified. So is corrected: whether eps is
    // added to the root of the second moment whose bias is corrected.
    hyper(beta1, beta2, eps, threshold, frozen, corrected);
    each_step(lr, t) {
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        let power = pow(beta2, t);
        let rho_inf = 2.0 / (1.0 - beta2) - 1.0;
        // The length of the simple moving average that the second moment approximates.
        let rho = rho_inf - 2.0 * t * power / (1.0 - power);
        rectified = if rho > threshold { 1.0 } else { 0.0 };
        let numerator = (rho - 4.0) * (rho - 2.0) * rho_inf;
        let denominator = (rho_inf - 4.0) * (rho_inf - 2.0) * rho;
        let rectifier = if rectified != 0.0 {
            sqrt(numerator / denominator * (1.0 - power))
        } else if frozen != 0.0 {
            0.0
        } else {
            1.0
        };
        offset = if corrected != 0.0 { eps * sqrt(1.0 - power) } else { eps };
        step_size = lr / (1.0 - pow(beta1, t)) * rectifier;
        // A frozen step does not change the parameter.
        decay = if rectified == 0.0 && frozen != 0.0 { 1.0 } else { decay };
    }

    /// RAdam (arXiv:1908.03265): with `rho = rho_inf - 2*t*beta2^t/(1-beta2^t)` and `rho_inf = 2/(1-beta2) - 1`,
    /// `p -= lr * (m/bc1) * r*sqrt(bc2)/(sqrt(v) + eps)` where `rho > threshold`, else `p -= lr*m/bc1`, or nothing;
    /// `r = sqrt((rho-4)(rho-2)rho_inf / ((rho_inf-4)(rho_inf-2)rho))`.
    radam {
        element m, nonnegative v;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            let d = select(rectified != 0.0, m / (sqrt(v) + offset), m);
            p = select(step_size != 0.0, fma(-step_size, d, p), p);
        }
    }

    /// RAdam with gradient centralization (arXiv:2004.01461): the mean of each row is subtracted first.
    radam_centralized {
        element m, nonnegative v;
        pass(g) {
            mean row { center = g; }
        }
        pass(p, g) {
            g = g - center;
            m = fma(beta1, m, one_minus_beta1 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            let d = select(rectified != 0.0, m / (sqrt(v) + offset), m);
            p = select(step_size != 0.0, fma(-step_size, d, p), p);
        }
    }
}
