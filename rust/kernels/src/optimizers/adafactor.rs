//! Adafactor: the second moment of a matrix as the product of a row and a column. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // relative_step is 0 or 1.
    hyper(beta2_decay, eps1, eps2, d, relative_step);
    each_step(lr, t) {
        // 0 at the first step: no bias correction is needed.
        beta2 = 1.0 - pow(t, beta2_decay);
        one_minus_beta2 = 1.0 - beta2;
        let largest = if relative_step != 0.0 { 1e-2 } else { lr };
        let slowest = 1.0 / sqrt(t);
        rho = if largest < slowest { largest } else { slowest };
        largest_inverse = 1.0 / eps1;
        eps1_squared = eps1 * eps1;
    }
    def step_of(rms_p, rms_u) {
        rho * max(eps2, rms_p) / max(1.0, rms_u / d)
    }

    /// Adafactor (arXiv:1804.04235) for matrices, the last two axes of an array: the means of `g^2` over rows and columns
    /// are averaged in `r` and `c`, `v = r*c / mean(r)`, `u = g / sqrt(v)`;
    /// `p -= max(eps2, rms(p)) * rho * u / max(1, rms(u)/d)`.
    adafactor {
        row nonnegative r;
        col nonnegative c;
        def direction(g, f, h) {
            let inverse = f * h;
            g * select(largest_inverse < inverse, largest_inverse, inverse)
        }
        pass(p, g) {
            mean row { row_squares = g * g; }
            mean col { col_squares = g * g; }
            mean array { pp = p * p; }
        }
        row {
            r = fma(beta2, r, one_minus_beta2 * row_squares);
            mean matrix { mean_of_rows = r; }
        }
        row {
            f = sqrt(max(mean_of_rows, eps1) / r);
        }
        col {
            c = fma(beta2, c, one_minus_beta2 * col_squares);
            h = sqrt(1.0 / c);
        }
        pass(p, g) {
            let u = direction(g, f, h);
            mean array { uu = u * u; }
        }
        array {
            rate = step_of(sqrt(pp), sqrt(uu));
        }
        pass(p, g) {
            let u = direction(g, f, h);
            p = fma(-rate, u, p);
        }
    }

    /// Adafactor for arrays of one dimension, which keep the second moment of each element.
    adafactor_vector {
        element nonnegative v;
        def direction(g, v) {
            g / sqrt(max(v, eps1_squared))
        }
        pass(p, g) {
            v = fma(beta2, v, one_minus_beta2 * g * g);
            let u = direction(g, v);
            mean array { pp = p * p; uu = u * u; }
        }
        array {
            rate = step_of(sqrt(pp), sqrt(uu));
        }
        pass(p, g) {
            let u = direction(g, v);
            p = fma(-rate, u, p);
        }
    }
}
