//! AdamP and SGDP: steps without the part that only changes the norm of weights. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // nesterov is 0 or 1. SGDP has beta1 for its momentum, AdamP no dampening.
    hyper(beta1, beta2, eps, weight_decay, dampening, delta, wd_ratio, nesterov);
    each_step(lr, t) {
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        ahead = if nesterov != 0.0 { beta1 } else { 0.0 };
        adam_step = lr / (1.0 - pow(beta1, t));
        inv_bias2_sqrt = 1.0 / sqrt(1.0 - pow(beta2, t));
        adam_decay = lr * weight_decay;
        gain = 1.0 - dampening;
        sgd_step = lr;
        sgd_decay = lr * weight_decay / (1.0 - beta1);
    }
    def adam_direction(g, m, v) {
        select(ahead != 0.0, fma(ahead, m, one_minus_beta1 * g), m) / fma(sqrt(v), inv_bias2_sqrt, eps)
    }
    def sgd_direction(g, b) {
        select(nesterov != 0.0, fma(ahead, b, g), b)
    }
    // The cosine of the angle between weights and gradient.
    def cosine(gp, gg, pp) {
        abs(gp) / (max(sqrt(gg), eps) * max(sqrt(pp), eps))
    }
    // The component of a direction along the weights, as a multiple of these.
    def along(up, pp) {
        let norm = sqrt(pp) + eps;
        up / norm / norm
    }
    def without(u, part, p) {
        select(part != 0.0, fma(-part, p, u), u)
    }

    /// AdamP (arXiv:2006.08217): `p = p*(1 - lr*wd*ratio) - lr/bc1 * u` with Adam's direction `u = m/(sqrt(v)/sqrt(bc2) + eps)`.
    /// If all rows of the gradient are nearly orthogonal to the weights, `abs(cos) < delta/sqrt(length)`, each row of `u` loses
    /// its component along the weights; or else, if the array as one row is, `u` loses the one along the array. In both cases
    /// `ratio` is `wd_ratio`, otherwise 1.
    adamp {
        element m, nonnegative v;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            let u = adam_direction(g, m, v);
            sum row { gp = g * p; gg = g * g; pp = p * p; up = u * p; length = 1.0; }
        }
        row {
            max array { row_cosine = cosine(gp, gg, pp); row_length = length; }
            sum array { all_gp = gp; all_gg = gg; all_pp = pp; all_up = up; count = length; }
        }
        array {
            by_row = if row_cosine < delta / sqrt(row_length) { 1.0 } else { 0.0 };
            let flat = if cosine(all_gp, all_gg, all_pp) < delta / sqrt(count) { 1.0 } else { 0.0 };
            whole = if by_row == 0.0 && flat != 0.0 { along(all_up, all_pp) } else { 0.0 };
            kept = 1.0 - adam_decay * if by_row != 0.0 || flat != 0.0 { wd_ratio } else { 1.0 };
        }
        row {
            part = if by_row != 0.0 { along(up, pp) } else { whole };
        }
        pass(p, g) {
            let u = adam_direction(g, m, v);
            p = fma(-adam_step, without(u, part, p), p * kept);
        }
    }

    /// AdamP for arrays of one dimension: AdamW.
    adamp_vector {
        element m, nonnegative v;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            p = fma(-adam_step, adam_direction(g, m, v), p * (1.0 - adam_decay));
        }
    }

    /// SGDP (arXiv:2006.08217): `b = momentum*b + (1-dampening)*g; u = b`, or `g + momentum*b`, projected as in AdamP; weight
    /// decay is divided by `1 - momentum`.
    sgdp {
        element b;
        pass(p, g) {
            b = fma(beta1, b, gain * g);
            let u = sgd_direction(g, b);
            sum row { gp = g * p; gg = g * g; pp = p * p; up = u * p; length = 1.0; }
        }
        row {
            max array { row_cosine = cosine(gp, gg, pp); row_length = length; }
            sum array { all_gp = gp; all_gg = gg; all_pp = pp; all_up = up; count = length; }
        }
        array {
            by_row = if row_cosine < delta / sqrt(row_length) { 1.0 } else { 0.0 };
            let flat = if cosine(all_gp, all_gg, all_pp) < delta / sqrt(count) { 1.0 } else { 0.0 };
            whole = if by_row == 0.0 && flat != 0.0 { along(all_up, all_pp) } else { 0.0 };
            kept = 1.0 - sgd_decay * if by_row != 0.0 || flat != 0.0 { wd_ratio } else { 1.0 };
        }
        row {
            part = if by_row != 0.0 { along(up, pp) } else { whole };
        }
        pass(p, g) {
            let u = sgd_direction(g, b);
            p = fma(-sgd_step, without(u, part, p), p * kept);
        }
    }

    /// SGDP for arrays of one dimension.
    sgdp_vector {
        element b;
        pass(p, g) {
            b = fma(beta1, b, gain * g);
            p = fma(-sgd_step, sgd_direction(g, b), p * (1.0 - sgd_decay));
        }
    }
}
