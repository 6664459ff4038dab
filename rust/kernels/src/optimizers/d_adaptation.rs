//! D-Adaptation: Adam and SGD that estimate their learning rate. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // bias_correction and decoupled are 0 or 1.
    hyper(beta1, beta2, eps, weight_decay, bias_correction, decoupled, d0, growth_rate);
    each_step(lr, t) {
        let bias = sqrt(1.0 - pow(beta2, t)) / (1.0 - pow(beta1, t));
        rate = lr * if bias_correction != 0.0 { bias } else { 1.0 };
        coupled = if decoupled != 0.0 { 0.0 } else { weight_decay };
        uncoupled = if decoupled != 0.0 { weight_decay } else { 0.0 };
    }

    /// D-Adaptation of Adam (arXiv:2301.07733): with `w = d*lr`, `q = sqrt(beta2)` and the old `s` and `v` in the product,
    /// `num = q*num + (1-q)*w*<g, s/(sqrt(v) + eps)>; s = q*s + (1-q)*w*g`, the distance `d = max(d, num/((1-q)*sum(abs(s))))`,
    /// and Adam's step with `w` in the average: `m = beta1*m + (1-beta1)*w*g; p -= m/(sqrt(v) + eps)`.
    dadaptadam {
        element m, nonnegative v, s;
        all d = d0, num;
        def gradient(g, p) {
            select(coupled != 0.0, fma(coupled, p, g), g)
        }
        all {
            kept = sqrt(beta2);
            weight = d * rate;
            sum_gain = (1.0 - kept) * weight;
            mean_gain = (1.0 - beta1) * weight;
            square_gain = 1.0 - beta2;
        }
        pass(p, g) {
            let h = gradient(g, p);
            // A group whose learning rate is 0 does not change, and does not enter the estimate.
            let seen = select(rate != 0.0, h, 0.0);
            let along = select(rate != 0.0, s / (sqrt(v) + eps), 0.0);
            s = select(rate != 0.0, fma(kept, s, sum_gain * h), s);
            let size = select(rate != 0.0, abs(s), 0.0);
            sum all { dot = seen * along; den = size; }
        }
        all {
            let found = fma(kept, num, (1.0 - kept) * weight * dot);
            moves = select(den != 0.0, 1.0, 0.0);
            num = select(moves != 0.0, found, num);
            let estimate = num / ((1.0 - kept) * den);
            let largest = d * growth_rate;
            // A NaN is not larger than d, which then stays.
            let grown = select(largest < estimate, largest, estimate);
            shrink = 1.0 - uncoupled * weight;
            d = select(moves != 0.0 && grown > d, grown, d);
        }
        pass(p, g) {
            let h = gradient(g, p);
            m = select(rate != 0.0, fma(beta1, m, mean_gain * h), m);
            v = select(rate != 0.0, fma(beta2, v, square_gain * h * h), v);
            let moved = fma(p, shrink, -m / (sqrt(v) + eps));
            p = select(moves != 0.0 && rate != 0.0, moved, p);
        }
    }
}

rules! {
    hyper(momentum, d0, growth_rate);
    each_step(lr, t) {
        rate = lr;
        fresh = 1.0 - momentum;
    }

    /// D-Adaptation of SGD (arXiv:2301.07733): with `w = d*lr/g0`, `num += w*<g, s>; s += w*g`, the distance
    /// `d = max(d, 2*num/|s|)`, and `p = momentum*p + (1-momentum)*(x0 - s)`; `g0` is the norm of all first gradients.
    dadaptsgd {
        element s, exact x0 = p;
        all d = d0, num, g0;
        pass(g) {
            // A group whose learning rate is 0 does not change, and does not enter the estimate.
            let h = select(rate != 0.0, g, 0.0);
            sum all { gg = h * h; }
        }
        all {
            g0 = select(g0 == 0.0, sqrt(gg), g0);
            moves = select(rate != 0.0 && g0 != 0.0, 1.0, 0.0);
            weight = select(moves != 0.0, d * rate / g0, 0.0);
            root = sqrt(weight);
        }
        pass(p, g) {
            let h = select(moves != 0.0, g, 0.0);
            let before = s;
            // In two factors: where gradients are tiny, one would be infinite in float32, and a NaN times 0.
            s = fma(root, root * h, s);
            let z = x0 - s;
            let moved = select(momentum != 0.0, fma(momentum, p, fresh * z), fresh * z);
            p = select(moves != 0.0, moved, p);
            let size = select(moves != 0.0, s, 0.0);
            sum all { dot = h * before; ss = size * size; }
        }
        all {
            num = fma(weight, dot, num);
            let estimate = 2.0 * num / sqrt(ss);
            let largest = d * growth_rate;
            // A NaN is not larger than d, which then stays.
            let grown = select(largest < estimate, largest, estimate);
            d = select(ss != 0.0 && grown > d, grown, d);
        }
    }
}
