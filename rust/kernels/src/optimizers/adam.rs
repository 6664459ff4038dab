//! Adam and AMSGrad; with decoupled weight decay they are AdamW. Also AdamW whose steps are scaled for each array. Knows no
//! kernel, driver or device.

use super::cautious::cautious_rules;

cautious_rules! {
    // bias_correction, keras_eps, cautious, plus_one and by_rms are 0 or 1.
    hyper(beta1, beta2, eps, bias_correction, keras_eps, cautious, plus_one, by_rms);
    each_step(lr, t) {
        now = t;
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        let bias1 = if bias_correction != 0.0 { 1.0 - pow(beta1, t) } else { 1.0 };
        let bias2_sqrt = if bias_correction != 0.0 { sqrt(1.0 - pow(beta2, t)) } else { 1.0 };
        step_size = lr / bias1 * if keras_eps != 0.0 { bias2_sqrt } else { 1.0 };
        inv_bias2_sqrt = if keras_eps != 0.0 { 1.0 } else { 1.0 / bias2_sqrt };
    }

    /// Adam (arXiv:1412.6980): `m = beta1*m + (1-beta1)*g; v = beta2*v + (1-beta2)*g^2;
    /// p -= lr/bc1 * m/(sqrt(v)/sqrt(bc2) + eps)` with `bc = 1 - beta^t`; AdamW (arXiv:1711.05101) decays `p` first.
    adam {
        element m, nonnegative v;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            p = fma(-step_size, m / fma(sqrt(v), inv_bias2_sqrt, eps), p);
        }
    }

    /// AMSGrad (Reddi, Kale and Kumar, ICLR 2018): Adam with the largest raw `v` so far in the denominator.
    amsgrad {
        element m, nonnegative v, nonnegative vmax;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            vmax = max(vmax, v);
            p = fma(-step_size, m / fma(sqrt(vmax), inv_bias2_sqrt, eps), p);
        }
    }

    /// Adam for steps over some rows: a row's moments first decay as often as the row has missed steps since its last one.
    adam_catching_up {
        element m, nonnegative v;
        row nonnegative last;
        row {
            // From step 2^24 on, float32 numbers of steps are rounded.
            let missed = max(now - 1.0 - last, 0.0);
            kept1 = pow(beta1, missed);
            kept2 = pow(beta2, missed);
            last = now;
        }
        pass(p, g) {
            m = fma(beta1, kept1 * m, one_minus_beta1 * g);
            v = fma(beta2, kept2 * v, one_minus_beta2 * g * g);
            p = fma(-step_size, m / fma(sqrt(v), inv_bias2_sqrt, eps), p);
        }
    }

    /// AdamW whose learning rate is scaled for each array. Cautious (arXiv:2411.16085): only elements move whose step agrees with
    /// the sign of the gradient, `1/max(share, 0.001)` or `n/(count + 1)` times as far; `count` of the `n` elements move,
    /// `share = count/n`. By rms (nanoT5): `max(0.001, rms(p))` times as far. Weight decay has the learning rate itself.
    adam_scaled {
        element m, nonnegative v;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            let moves = select(cautious == 0.0, 1.0, agreeing(m, g));
            mean array { share = moves; pp = p * p; }
            sum array { count = moves; }
        }
        array {
            let grown = if cautious == 0.0 { step_size } else { step_size * growth(share, count) };
            scaled_step = grown * if by_rms != 0.0 { max(sqrt(pp), 1e-3) } else { 1.0 };
        }
        pass(p, g) {
            let moves = select(cautious == 0.0, 1.0, agreeing(m, g));
            p = fma(-scaled_step, moves * (m / fma(sqrt(v), inv_bias2_sqrt, eps)), p);
        }
    }
}
