//! Adan. Knows no kernel, driver or device.

use super::cautious::cautious_rules;

cautious_rules! {
    // no_prox and plus_one are 0 or 1; no_prox: whether parameters shrink before the step, and not after it.
    hyper(beta1, beta2, beta3, eps, weight_decay, no_prox, plus_one);
    each_step(lr, t) {
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        one_minus_beta3 = 1.0 - beta3;
        later = if t == 1.0 { 0.0 } else { 1.0 };
        of_mean = 1.0 / (1.0 - pow(beta1, t));
        of_change = beta2 / (1.0 - pow(beta2, t));
        inv_bias3_sqrt = 1.0 / sqrt(1.0 - pow(beta3, t));
        step_size = lr;
        before = if no_prox != 0.0 { 1.0 - lr * weight_decay } else { 1.0 };
        after = if no_prox != 0.0 { 1.0 } else { 1.0 / (1.0 + lr * weight_decay) };
    }

    /// Adan (arXiv:2208.06677): `c = g - prev`, 0 at step 1; `m = beta1*m + (1-beta1)*g; d = beta2*d + (1-beta2)*c;
    /// n = beta3*n + (1-beta3)*(g + beta2*c)^2; prev = g;
    /// p = (p - lr * (m/bc1 + beta2*d/bc2) / (sqrt(n)/sqrt(bc3) + eps)) / (1 + lr*wd)`; with `no_prox` the parameter is
    /// multiplied by `1 - lr*wd` before the step instead.
    adan {
        element m, d, nonnegative n, prev;
        pass(p, g) {
            let change = select(later != 0.0, g - prev, 0.0);
            m = fma(beta1, m, one_minus_beta1 * g);
            d = fma(beta2, d, one_minus_beta2 * change);
            let ahead = fma(beta2, change, g);
            n = fma(beta3, n, one_minus_beta3 * ahead * ahead);
            prev = g;
            let u = fma(of_mean, m, of_change * d) / fma(sqrt(n), inv_bias3_sqrt, eps);
            p = fma(-step_size, u, p * before) * after;
        }
    }

    /// Adan in which the mean acts only on elements where it agrees with the sign of the gradient (arXiv:2411.16085),
    /// `1/max(share, 0.001)` or `n/(count + 1)` times as much; `count` of the `n` elements are such, `share = count/n`.
    adan_cautious {
        element m, d, nonnegative n, prev;
        pass(g) {
            let change = select(later != 0.0, g - prev, 0.0);
            m = fma(beta1, m, one_minus_beta1 * g);
            d = fma(beta2, d, one_minus_beta2 * change);
            let ahead = fma(beta2, change, g);
            n = fma(beta3, n, one_minus_beta3 * ahead * ahead);
            prev = g;
            let moves = agreeing(m, g);
            mean array { share = moves; }
            sum array { count = moves; }
        }
        array {
            of_moving = of_mean * growth(share, count);
        }
        pass(p, g) {
            let u = fma(of_moving, agreeing(m, g) * m, of_change * d) / fma(sqrt(n), inv_bias3_sqrt, eps);
            p = fma(-step_size, u, p * before) * after;
        }
    }
}
