//! MARS. Knows no kernel, driver or device.

use super::cautious::cautious_rules;

cautious_rules! {
    // Vectors have rates, betas and weight decay of their own; own_rate and plus_one are 0 or 1.
    hyper(
        beta1, beta2, eps, gamma, weight_decay, vector_beta1, vector_beta2, vector_decay, vector_rate, own_rate, initial_lr,
        plus_one
    );
    each_step(lr, t) {
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        step_size = lr;
        adam_step = lr / (1.0 - pow(beta1, t));
        inv_bias2_sqrt = 1.0 / sqrt(1.0 - pow(beta2, t));
        of_change = if t == 1.0 { 0.0 } else { gamma * beta1 / (1.0 - beta1) };
        kept = 1.0 - lr * weight_decay;
        let rate = if own_rate != 0.0 { lr / initial_lr * vector_rate } else { lr };
        one_minus_vector_beta1 = 1.0 - vector_beta1;
        one_minus_vector_beta2 = 1.0 - vector_beta2;
        vector_step = rate / (1.0 - pow(vector_beta1, t));
        inv_vector_bias2_sqrt = 1.0 / sqrt(1.0 - pow(vector_beta2, t));
        vector_kept = 1.0 - rate * vector_decay;
    }
    def corrected(g, prev) {
        select(of_change != 0.0, fma(of_change, g - prev, g), g)
    }

    /// MARS (arXiv:2411.10438): for each array `c = g + gamma*beta1/(1-beta1)*(g - prev)`, at step 1 `g`, divided by
    /// `max(1, |c|)`; `prev = g`, and AdamW with `c` for the gradient.
    mars {
        element m, nonnegative v, prev;
        pass(g) {
            let c = corrected(g, prev);
            fast sum array { cc = c * c; }
        }
        array {
            shrink = 1.0 / max(1.0, sqrt(cc));
        }
        pass(p, g) {
            let c = shrink * corrected(g, prev);
            m = fma(beta1, m, one_minus_beta1 * c);
            v = fma(beta2, v, one_minus_beta2 * c * c);
            prev = g;
            p = fma(-adam_step, m / fma(sqrt(v), inv_bias2_sqrt, eps), p * kept);
        }
    }

    /// MARS in which only elements move whose step agrees with the sign of the gradient (arXiv:2411.16085),
    /// `1/max(share, 0.001)` or `n/(count + 1)` times as far; `count` of the `n` elements move, `share = count/n`.
    mars_cautious {
        element m, nonnegative v, prev;
        pass(g) {
            let c = corrected(g, prev);
            fast sum array { cc = c * c; }
        }
        array {
            shrink = 1.0 / max(1.0, sqrt(cc));
        }
        pass(g) {
            let c = shrink * corrected(g, prev);
            m = fma(beta1, m, one_minus_beta1 * c);
            v = fma(beta2, v, one_minus_beta2 * c * c);
            prev = g;
            let moves = agreeing(m, g);
            mean array { share = moves; }
            sum array { count = moves; }
        }
        array {
            scaled_step = adam_step * growth(share, count);
        }
        pass(p, g) {
            p = fma(-scaled_step, agreeing(m, g) * (m / fma(sqrt(v), inv_bias2_sqrt, eps)), p * kept);
        }
    }

    /// MARS in Lion's form: `p -= lr * sign(m)`.
    mars_lion {
        element m, prev;
        pass(g) {
            let c = corrected(g, prev);
            fast sum array { cc = c * c; }
        }
        array {
            shrink = 1.0 / max(1.0, sqrt(cc));
        }
        pass(p, g) {
            let c = shrink * corrected(g, prev);
            m = fma(beta1, m, one_minus_beta1 * c);
            prev = g;
            p = fma(-step_size, sign(m), p * kept);
        }
    }

    /// MARS in Lion's form, in which only elements move whose step agrees with the sign of the gradient (arXiv:2411.16085),
    /// `1/max(share, 0.001)` or `n/(count + 1)` times as far; `count` of the `n` elements move, `share = count/n`.
    mars_lion_cautious {
        element m, prev;
        pass(g) {
            let c = corrected(g, prev);
            fast sum array { cc = c * c; }
        }
        array {
            shrink = 1.0 / max(1.0, sqrt(cc));
        }
        pass(g) {
            m = fma(beta1, m, one_minus_beta1 * (shrink * corrected(g, prev)));
            prev = g;
            let moves = agreeing(m, g);
            mean array { share = moves; }
            sum array { count = moves; }
        }
        array {
            scaled_step = step_size * growth(share, count);
        }
        pass(p, g) {
            p = fma(-scaled_step, agreeing(m, g) * sign(m), p * kept);
        }
    }

    /// MARS for arrays of one dimension: AdamW.
    mars_vector {
        element m, nonnegative v;
        pass(p, g) {
            m = fma(vector_beta1, m, one_minus_vector_beta1 * g);
            v = fma(vector_beta2, v, one_minus_vector_beta2 * g * g);
            p = fma(-vector_step, m / fma(sqrt(v), inv_vector_bias2_sqrt, eps), p * vector_kept);
        }
    }

    /// MARS for arrays of one dimension, with cautious updates.
    mars_vector_cautious {
        element m, nonnegative v;
        pass(g) {
            m = fma(vector_beta1, m, one_minus_vector_beta1 * g);
            v = fma(vector_beta2, v, one_minus_vector_beta2 * g * g);
            let moves = agreeing(m, g);
            mean array { share = moves; }
            sum array { count = moves; }
        }
        array {
            scaled_step = vector_step * growth(share, count);
        }
        pass(p, g) {
            let u = m / fma(sqrt(v), inv_vector_bias2_sqrt, eps);
            p = fma(-scaled_step, agreeing(m, g) * u, p * vector_kept);
        }
    }
}
