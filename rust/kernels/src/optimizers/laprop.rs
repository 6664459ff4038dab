//! LaProp. Knows no kernel, driver or device.

use super::cautious::cautious_rules;

cautious_rules! {
    // lr_in_momentum and plus_one are 0 or 1.
    hyper(beta1, beta2, eps, weight_decay, lr_in_momentum, plus_one);
    each_step(lr, t) {
        one_minus_beta2 = 1.0 - beta2;
        inv_bias2_sqrt = 1.0 / sqrt(1.0 - pow(beta2, t));
        gain = (1.0 - beta1) * if lr_in_momentum != 0.0 { lr } else { 1.0 };
        step_size = lr;
        shrink = 1.0 - lr * weight_decay;
    }

    /// LaProp (arXiv:2002.04839): `v = beta2*v + (1-beta2)*g^2; n = g/(sqrt(v)/sqrt(bc2) + eps);
    /// m = beta1*m + (1-beta1)*n; w = beta1*w + (1-beta1); p = (p - lr*m/w) * (1 - lr*wd)`; with `lr_in_momentum`, what is
    /// added to `m` and to its weight `w` is multiplied by `lr`.
    laprop {
        element m, nonnegative v;
        array nonnegative w;
        array {
            w = fma(beta1, w, gain);
            // No weight yet: all rates were 0.
            rate = if w != 0.0 { step_size / w } else { 0.0 };
        }
        pass(p, g) {
            v = fma(beta2, v, one_minus_beta2 * g * g);
            m = fma(beta1, m, gain * (g / fma(sqrt(v), inv_bias2_sqrt, eps)));
            p = fma(-rate, m, p) * shrink;
        }
    }

    /// LaProp in which only elements move whose step agrees with the sign of the gradient (arXiv:2411.16085),
    /// `1/max(share, 0.001)` or `n/(count + 1)` times as far; `count` of the `n` elements move, `share = count/n`.
    laprop_cautious {
        element m, nonnegative v;
        array nonnegative w;
        pass(g) {
            v = fma(beta2, v, one_minus_beta2 * g * g);
            m = fma(beta1, m, gain * (g / fma(sqrt(v), inv_bias2_sqrt, eps)));
            let moves = agreeing(m, g);
            mean array { share = moves; }
            sum array { count = moves; }
        }
        array {
            w = fma(beta1, w, gain);
            rate = if w != 0.0 { step_size / w * growth(share, count) } else { 0.0 };
        }
        pass(p, g) {
            p = fma(-rate, agreeing(m, g) * m, p) * shrink;
        }
    }
}
