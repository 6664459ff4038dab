//! AdaBelief, also with the largest second moment so far, and rectified. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // rectify and frozen are 0 or 1: whether the step is rectified as RAdam's, and whether parameters stay unchanged while
    // it cannot be.
    hyper(beta1, beta2, eps, rectify, threshold, frozen);
    each_step(lr, t) {
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        let power = pow(beta2, t);
        let bias2_sqrt = sqrt(1.0 - power);
        let rho_inf = 2.0 / (1.0 - beta2) - 1.0;
        // The length of the simple moving average that the second moment approximates.
        let rho = rho_inf - 2.0 * t * power / (1.0 - power);
        divided = if rectify != 0.0 && (rho < threshold || rho <= 4.0) { 0.0 } else { 1.0 };
        let numerator = (rho - 4.0) * (rho - 2.0) * rho_inf;
        let denominator = (rho_inf - 4.0) * (rho_inf - 2.0) * rho;
        let rectifier = if rectify == 0.0 {
            1.0
        } else if divided != 0.0 {
            sqrt(numerator / denominator) * bias2_sqrt
        } else if frozen != 0.0 {
            0.0
        } else {
            1.0
        };
        inv_bias2_sqrt = if rectify != 0.0 { 1.0 } else { 1.0 / bias2_sqrt };
        step_size = lr / (1.0 - pow(beta1, t)) * rectifier;
        // A frozen step does not change the parameter.
        decay = if divided == 0.0 && frozen != 0.0 { 1.0 } else { decay };
    }

    /// AdaBelief (arXiv:2010.07468): `m = beta1*m + (1-beta1)*g; s = beta2*s + (1-beta2)*(g-m)^2 + eps;
    /// p -= lr/bc1 * m/(sqrt(s)/sqrt(bc2) + eps)` with `bc = 1 - beta^t`. Rectified, it is
    /// `p -= lr/bc1 * r*sqrt(bc2) * m/(sqrt(s) + eps)` where `rho >= threshold` and `rho > 4`, else `p -= lr*m/bc1` or nothing; `rho` and
    /// `r` are RAdam's.
    adabelief {
        element m, nonnegative s;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            let d = g - m;
            s = fma(beta2, s, one_minus_beta2 * d * d) + eps;
            let u = select(divided != 0.0, m / fma(sqrt(s), inv_bias2_sqrt, eps), m);
            p = select(step_size != 0.0, fma(-step_size, u, p), p);
        }
    }

    /// AdaBelief with the largest `s` so far in the denominator.
    adabelief_amsgrad {
        element m, nonnegative s, nonnegative smax;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            let d = g - m;
            s = fma(beta2, s, one_minus_beta2 * d * d) + eps;
            smax = max(smax, s);
            let u = select(divided != 0.0, m / fma(sqrt(smax), inv_bias2_sqrt, eps), m);
            p = select(step_size != 0.0, fma(-step_size, u, p), p);
        }
    }
}
