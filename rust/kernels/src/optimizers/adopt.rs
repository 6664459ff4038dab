//! ADOPT. Knows no kernel, driver or device.

use super::cautious::cautious_rules;

cautious_rules! {
    // unclipped is 1, or infinity if there is no bound; plus_one is 0 or 1.
    hyper(beta1, beta2, eps, clip_exp, unclipped, plus_one);
    each_step(lr, t) {
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        step_size = lr;
        later = if t == 1.0 { 0.0 } else { 1.0 };
        bound = unclipped * pow(max(t - 1.0, 1.0), clip_exp);
        // The first step does not change the parameter.
        decay = if t == 1.0 { 1.0 } else { decay };
    }
    def next_m(g, m, v) {
        let n = min(max(g / max(sqrt(v), eps), -bound), bound);
        select(later != 0.0, fma(beta1, m, one_minus_beta1 * n), m)
    }
    def next_v(g, v) {
        let square = g * g;
        select(later != 0.0, fma(beta2, v, one_minus_beta2 * square), square)
    }

    /// ADOPT (arXiv:2411.02853): step 1 only sets `v = g^2`; later `n = clip(g/max(sqrt(v), eps), -c, c)` with the old `v`
    /// and `c = (t-1)^clip_exp`, `m = beta1*m + (1-beta1)*n; p -= lr*m; v = beta2*v + (1-beta2)*g^2`.
    adopt {
        element m, nonnegative v;
        pass(p, g) {
            m = next_m(g, m, v);
            p = select(later != 0.0, fma(-step_size, m, p), p);
            v = next_v(g, v);
        }
    }

    /// ADOPT in which only elements move whose step agrees with the sign of the gradient (arXiv:2411.16085),
    /// `1/max(share, 0.001)` or `n/(count + 1)` times as far; `count` of the `n` elements move, `share = count/n`.
    adopt_cautious {
        element m, nonnegative v;
        pass(p, g) {
            m = next_m(g, m, v);
            v = next_v(g, v);
            let moves = agreeing(m, g);
            mean array { share = moves; }
            sum array { count = moves; }
        }
        array {
            scaled_step = step_size * growth(share, count);
        }
        pass(p, g) {
            p = select(later != 0.0, fma(-scaled_step, agreeing(m, g) * m, p), p);
        }
    }
}
