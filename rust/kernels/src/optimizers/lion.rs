//! Lion. Knows no kernel, driver or device.

use super::cautious::cautious_rules;

cautious_rules! {
    hyper(beta1, beta2, plus_one);
    each_step(lr, t) {
        step_size = lr;
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
    }

    /// Lion (arXiv:2302.06675): `p -= lr * sign(beta1*m + (1-beta1)*g); m = beta2*m + (1-beta2)*g`.
    lion {
        element m;
        pass(p, g) {
            p = fma(-step_size, sign(fma(beta1, m, one_minus_beta1 * g)), p);
            m = fma(beta2, m, one_minus_beta2 * g);
        }
    }

    /// Lion in which only elements move whose step agrees with the sign of the gradient (arXiv:2411.16085),
    /// `1/max(share, 0.001)` or `n/(count + 1)` times as far; `count` of the `n` elements move, `share = count/n`.
    lion_cautious {
        element m;
        pass(g) {
            let moves = agreeing(fma(beta1, m, one_minus_beta1 * g), g);
            mean array { share = moves; }
            sum array { count = moves; }
        }
        array {
            scaled_step = step_size * growth(share, count);
        }
        pass(p, g) {
            let u = fma(beta1, m, one_minus_beta1 * g);
            p = fma(-scaled_step, agreeing(u, g) * sign(u), p);
            m = fma(beta2, m, one_minus_beta2 * g);
        }
    }
}
