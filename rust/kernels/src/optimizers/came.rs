//! CAME: Adafactor with momentum, divided by factored squares of its instability. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper(beta1, beta2, beta3, eps1, eps2, clip_threshold);
    each_step(lr, t) {
        rate = lr;
        fresh1 = 1.0 - beta1;
        fresh2 = 1.0 - beta2;
        fresh3 = 1.0 - beta3;
    }
    def bounded(uu) {
        1.0 / max(1.0, sqrt(uu) / clip_threshold)
    }
    // The root of a quotient; finite where only the quotient overflows, as for a row of zeros beside large gradients.
    def root(a, b) {
        let quotient = a / b;
        select(quotient - quotient == 0.0, sqrt(quotient), sqrt(a) / sqrt(b))
    }

    /// CAME (arXiv:2307.02047) for matrices, the last two axes of an array: `r` and `c` average the means of `g^2 + eps1` over rows
    /// and columns, `u = g / sqrt(r*c / mean(r))`, divided by `max(1, rms(u)/clip_threshold)`; `m` averages `u`, `rr` and `rc` the
    /// means of `(u - m)^2 + eps2`; `p -= lr * m / sqrt(rr*rc / mean(rr))`.
    came {
        element m;
        row nonnegative r, nonnegative rr;
        col nonnegative c, nonnegative rc;
        pass(g) {
            mean row { row_squares = g * g; }
            mean col { col_squares = g * g; }
        }
        row {
            r = fma(beta2, r, fresh2 * (row_squares + eps1));
            mean matrix { mean_of_rows = r; }
        }
        row {
            f = root(mean_of_rows, r);
        }
        col {
            c = fma(beta2, c, fresh2 * (col_squares + eps1));
            h = 1.0 / sqrt(c);
        }
        pass(g) {
            let u = g * (f * h);
            mean array { uu = u * u; }
        }
        array {
            scale = bounded(uu);
        }
        pass(g) {
            let u = scale * (g * (f * h));
            m = fma(beta1, m, fresh1 * u);
            let off = u - m;
            mean row { row_errors = off * off; }
            mean col { col_errors = off * off; }
        }
        row {
            rr = fma(beta3, rr, fresh3 * (row_errors + eps2));
            mean matrix { mean_of_errors = rr; }
        }
        row {
            ff = sqrt(mean_of_errors / rr);
        }
        col {
            rc = fma(beta3, rc, fresh3 * (col_errors + eps2));
            hh = 1.0 / sqrt(rc);
        }
        pass(p) {
            p = fma(-rate, m * (ff * hh), p);
        }
    }

    /// CAME for arrays of one dimension: `p -= lr*m`, with the second moment of each element.
    came_vector {
        element m, nonnegative v;
        pass(g) {
            v = fma(beta2, v, fresh2 * (g * g + eps1));
            let u = g / sqrt(v);
            mean array { uu = u * u; }
        }
        array {
            scale = bounded(uu);
        }
        pass(p, g) {
            m = fma(beta1, m, fresh1 * (scale * (g / sqrt(v))));
            p = fma(-rate, m, p);
        }
    }
}
