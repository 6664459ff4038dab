//! Schedule-free SGD, AdamW and RAdam. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // In the SGD form beta1 is the momentum; beta2 and eps are not used. rectified and silent are 0 or 1.
    hyper(beta1, beta2, eps, weight_decay, warmup_steps, r, weight_lr_power, rectified, silent);
    each_step(lr, t) {
        one_minus_beta2 = 1.0 - beta2;
        inv_beta1 = 1.0 / beta1;
        let power = pow(beta2, t);
        inv_bias2_sqrt = 1.0 / sqrt(1.0 - power);
        let rho_inf = 2.0 / (1.0 - beta2) - 1.0;
        let rho = rho_inf - 2.0 * t * power / (1.0 - power);
        let rectifier = if rho > 4.0 {
            sqrt((rho - 4.0) * (rho - 2.0) * rho_inf / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho))
        } else if silent != 0.0 {
            0.0
        } else {
            1.0
        };
        let warm = if t < warmup_steps { t / warmup_steps } else { 1.0 };
        rate = lr * if rectified != 0.0 { rectifier } else { warm };
        adaptive = if rectified == 0.0 || rho > 4.0 { 1.0 } else { 0.0 };
        step_weight = pow(t, r);
    }
    // The parameter y, which is between z and the average, after a step of z along q.
    def moved(y, z, q, share, kept, along) {
        let averaged = select(share == 0.0, y, select(kept == 0.0, z, fma(kept, y, share * z)));
        fma(along, q, averaged)
    }
    def decayed(y, q) {
        select(weight_decay != 0.0, fma(weight_decay, y, q), q)
    }

    /// Schedule-free SGD (arXiv:2405.15682): `w = t^r * lr_max^weight_lr_power`, `c = w / sum of all w`, `q = g + wd*y`,
    /// `z -= lr*q; x = (1-c)*x + c*z; y = beta1*x + (1-beta1)*z`. The parameter is `y`; for evaluation it is `x`.
    schedulefreesgd {
        element exact z = p;
        array nonnegative lr_max, nonnegative weight_sum;
        array {
            lr_max = max(lr_max, rate);
            let weight = step_weight * pow(lr_max, weight_lr_power);
            weight_sum += weight;
            share = if weight_sum == 0.0 { 0.0 } else { weight / weight_sum };
            kept = 1.0 - share;
            along = rate * (beta1 * kept - 1.0);
        }
        pass(p, g) {
            let q = decayed(p, g);
            p = moved(p, z, q, share, kept, along);
            z = fma(-rate, q, z);
        }
        eval {
            pass(p) {
                p = fma(inv_beta1, p - z, z);
            }
        }
        train {
            pass(p) {
                p = fma(beta1, p - z, z);
            }
        }
    }

    /// Schedule-free AdamW: the same with `q = g/(sqrt(v/bc2) + eps) + wd*y`. RAdam's rectification scales the learning rate;
    /// before it begins the rate is 0, or `q` has no denominator.
    schedulefreeadamw {
        element nonnegative v, exact z = p;
        array nonnegative lr_max, nonnegative weight_sum;
        array {
            lr_max = max(lr_max, rate);
            let weight = step_weight * pow(lr_max, weight_lr_power);
            weight_sum += weight;
            share = if weight_sum == 0.0 { 0.0 } else { weight / weight_sum };
            kept = 1.0 - share;
            along = rate * (beta1 * kept - 1.0);
        }
        pass(p, g) {
            v = fma(beta2, v, one_minus_beta2 * g * g);
            let scaled = select(adaptive != 0.0, g / fma(sqrt(v), inv_bias2_sqrt, eps), g);
            let q = decayed(p, scaled);
            p = moved(p, z, q, share, kept, along);
            z = fma(-rate, q, z);
        }
        eval {
            pass(p) {
                p = fma(inv_beta1, p - z, z);
            }
        }
        train {
            pass(p) {
                p = fma(beta1, p - z, z);
            }
        }
    }
}
