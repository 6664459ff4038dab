//! Prodigy: Adam that estimates its learning rate. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // bias_correction, safeguard and decoupled are 0 or 1.
    hyper(beta1, beta2, beta3, eps, weight_decay, bias_correction, safeguard, decoupled, d0, d_coef, growth_rate);
    each_step(lr, t) {
        let bias = sqrt(1.0 - pow(beta2, t)) / (1.0 - pow(beta1, t));
        rate = lr * if bias_correction != 0.0 { bias } else { 1.0 };
        coupled = if decoupled != 0.0 { 0.0 } else { weight_decay };
        uncoupled = if decoupled != 0.0 { weight_decay } else { 0.0 };
    }

    /// Prodigy (arXiv:2306.06101): with `w = d*lr`, `num = beta3*num + d/d0*w*<g, p0-p>; s = beta3*s + d/d0*w*g`, the distance
    /// `d = max(d, d_coef*num/sum(abs(s)))`, and Adam's step over `d*g`: `m = beta1*m + (1-beta1)*d*g;
    /// v = beta2*v + (1-beta2)*(d*g)^2; p -= w*m/(sqrt(v) + d*eps)`. Only in `d*eps` is `d` the new one; where `beta1` is 0, so
    /// it is in `d*g`, which then takes the place of `m`.
    prodigy {
        element m, nonnegative v, s, exact p0 = p;
        all d = d0, d_max = d0, num;
        def gradient(g, p) {
            select(coupled != 0.0, fma(coupled, p, g), g)
        }
        all {
            step_size = d * rate;
            weight = d / d0 * step_size;
            gain = d / d0 * select(safeguard != 0.0, d, step_size);
            old_d = d;
        }
        pass(p, g) {
            let h = gradient(g, p);
            // A group whose learning rate is 0 does not change, and does not enter the estimate.
            s = select(rate != 0.0, fma(beta3, s, gain * h), s);
            let seen = select(rate != 0.0, h, 0.0);
            let gone = select(rate != 0.0, p0 - p, 0.0);
            let size = select(rate != 0.0, abs(s), 0.0);
            sum all { dot = seen * gone; den = size; }
        }
        all {
            let found = fma(weight, dot, beta3 * num);
            moves = select(den != 0.0, 1.0, 0.0);
            num = select(moves != 0.0, found, num);
            let estimate = d_coef * num / den;
            let first = select(d == d0 && estimate > d, estimate, d);
            d_max = select(moves != 0.0 && estimate > d_max, estimate, d_max);
            let grown = first * growth_rate;
            d = select(moves != 0.0, select(d_max < grown, d_max, grown), d);
            mean_gain = (1.0 - beta1) * old_d;
            square_gain = (1.0 - beta2) * old_d * old_d;
            d_eps = d * eps;
            shrink = select(moves != 0.0, 1.0 - uncoupled * step_size, 1.0);
            direct = select(beta1 == 0.0, 1.0, 0.0);
        }
        pass(p, g) {
            let h = gradient(g, p);
            m = select(rate != 0.0, fma(beta1, m, mean_gain * h), m);
            v = select(rate != 0.0, fma(beta2, v, square_gain * h * h), v);
            let mean = select(direct != 0.0, d * h, m);
            let moved = fma(-step_size, mean / (sqrt(v) + d_eps), p * shrink);
            p = select(moves != 0.0 && rate != 0.0, moved, p);
        }
    }
}
