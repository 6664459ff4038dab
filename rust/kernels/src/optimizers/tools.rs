//! Array operations other than optimizing, on the same drivers: each is a rule. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // Gradients are divided by `unit` before they are squared. It is 1 but for float64 numbers whose squares overflow or vanish.
    hyper(grad_scale, max_norm, unit);
    each_step(lr, t) {
        per_unit = 1.0 / unit;
    }

    /// The global norm of gradients that are divided by `grad_scale`, and the factor that bounds it: what clipping is for every
    /// optimizer, on every device.
    clip_norm {
        pass(raw g) {
            // For float32 numbers, `per_unit` may be 0 or infinite.
            let x = select(g - g == 0.0 && g != 0.0, g * per_unit, g);
            sum all { gg = x * x; }
        }
        all {
            let root = sqrt(gg) / grad_scale;
            norm = root * unit;
            let coefficient = max_norm / unit / (root + 1e-6 / unit);
            // A NaN fails the comparison and is kept.
            factor = select(coefficient >= 1.0, 1.0, coefficient) / grad_scale;
        }
    }
}

rules! {
    hyper(factor);
    each_step(lr, t) {}

    /// Multiplies an array: `p *= factor`.
    scale {
        pass(p) {
            p *= factor;
        }
    }

    /// An average of parameters: `average += factor*(p - average)`, or a copy if the factor is 1.
    average {
        element average = p;
        sync {
            pass(p) {
                average = select(factor == 1.0, p, fma(factor, p - average, average));
            }
        }
    }

    /// Lookahead's synchronization (arXiv:1907.08610): `slow += factor*(p - slow); p = slow`.
    lookahead {
        element slow = p;
        sync {
            pass(p) {
                slow = fma(factor, p - slow, slow);
                p = slow;
            }
        }
    }
}

rules! {
    // adaptive is 0 or 1.
    hyper(rho, adaptive, eps, eta);
    each_step(lr, t) {}
    def size(p) {
        select(adaptive != 0.0, abs(p) + eta, 1.0)
    }

    /// The ascent of SAM (arXiv:2010.01412) and ASAM (arXiv:2102.11600): `p += rho * T^2*g / (|T*g| + eps)`, with the norm over
    /// all arrays, and `T` 1 or `|p| + eta`.
    ascend {
        pass(p, g) {
            let x = size(p) * g;
            sum all { gg = x * x; }
        }
        all {
            along = rho / (sqrt(gg) + eps);
        }
        pass(p, g) {
            p = fma(along * size(p) * size(p), g, p);
        }
    }
}

rules! {
    hyper(clipping, eps);
    each_step(lr, t) {}

    /// Adaptive gradient clipping (arXiv:2102.06171): bounds the norm of each row by `clipping * max(|w|, eps)`. The array is a
    /// gradient, and its parameter `w` takes the place of the gradient.
    clip_adaptively {
        pass(p, g) {
            sum row { gg = p * p; ww = g * g; }
        }
        row {
            let norm = sqrt(gg);
            let most = clipping * max(sqrt(ww), eps);
            shrink = select(norm >= most, most / max(norm, 1e-6), 1.0);
        }
        pass(p) {
            p *= shrink;
        }
    }
}

rules! {
    hyper(threshold);
    each_step(lr, t) {}

    /// Bounds the root mean square of an array: `p /= max(1, rms(p) / threshold)`.
    clip_rms {
        pass(p) {
            mean array { pp = p * p; }
        }
        array {
            shrink = 1.0 / max(1.0, sqrt(pp) / threshold);
        }
        pass(p) {
            p *= shrink;
        }
    }

    /// Sets NaN to 0.
    zero_nans {
        pass(p) {
            p = select(p == p, p, 0.0);
        }
    }
}

rules! {
    hyper(bound);
    each_step(lr, t) {}

    /// Clips each element: `p = min(max(p, -bound), bound)`; NaN stays.
    clamp {
        pass(p) {
            p = min(max(p, -bound), bound);
        }
    }
}

rules! {
    hyper();
    each_step(lr, t) {}

    /// Gradient centralization (arXiv:2004.01461): takes the mean of each row off an array.
    centralize {
        pass(p) {
            mean row { center = p; }
        }
        pass(p) {
            p -= center;
        }
    }

    /// Copies the gradient into the parameter, as numbers of its type.
    copy {
        pass(p, g) {
            p = g;
        }
    }

    /// Copies the gradient into the parameter like `copy`; `found` becomes 1 if the gradient has a NaN, and 0 otherwise.
    copy_finding_nan {
        array found;
        pass(p, g) {
            p = g;
            max array { most = select(g == g, 0.0, 1.0); }
        }
        array {
            // Of no elements, the largest is minus infinity.
            found = max(most, 0.0);
        }
    }
}

rules! {
    hyper(kept, factor);
    each_step(lr, t) {}
    def combined(p, g) {
        fma(factor, g, select(kept != 0.0, kept * p, 0.0))
    }

    /// The sum of multiples of two vectors, `p = kept*p + factor*g`, and in the same pass its product with a third, `w`. Where
    /// `kept` is 0, the old `p` does not matter.
    combine_along {
        element w;
        array product;
        pass(p, g) {
            let sum = combined(p, g);
            p = sum;
            sum array { along = sum * w; }
        }
        array {
            product = along;
        }
    }

    /// What `combine_along` computes, and the sum's square and its largest absolute value.
    combine {
        element w;
        array product, square, largest;
        pass(p, g) {
            let sum = combined(p, g);
            p = sum;
            sum array { along = sum * w; itself = sum * sum; }
            max array { most = abs(sum); }
        }
        array {
            product = along;
            square = itself;
            largest = most;
        }
    }
}
