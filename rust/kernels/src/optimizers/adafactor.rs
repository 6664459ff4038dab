//! Adafactor: the second moment of a matrix as the product of a row and a column. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // relative_step, warmup_init, scale_parameter and added are 0 or 1. With `added`, which is Hugging Face's form, eps1 is added
    // to squares and bounds nothing from below, and 1/sqrt(t) only bounds a relative step. own_decay is multiplied by the step.
    hyper(beta2_decay, beta1, eps1, eps2, d, own_decay, relative_step, warmup_init, scale_parameter, added);
    each_step(lr, t) {
        // 0 at the first step: no bias correction is needed.
        beta2 = 1.0 - pow(t, beta2_decay);
        one_minus_beta2 = 1.0 - beta2;
        let relative = if warmup_init != 0.0 { 1e-6 * t } else { 1e-2 };
        let largest = if relative_step != 0.0 { relative } else { lr };
        let slowest = 1.0 / sqrt(t);
        rho = if slowest <= largest && (relative_step != 0.0 || added == 0.0) { slowest } else { largest };
        more = if added != 0.0 { eps1 } else { 0.0 };
        more_squares = one_minus_beta2 * more;
        largest_inverse = 1.0 / eps1;
        eps1_squared = eps1 * eps1;
        fresh = 1.0 - beta1;
    }
    def scaled(rms_p) {
        rho * select(scale_parameter != 0.0, max(eps2, rms_p), 1.0)
    }
    def bounded(rms_u) {
        max(1.0, rms_u / d)
    }
    // The root of a quotient; finite where only the quotient overflows, as for a row of zeros beside large gradients.
    def root(a, b) {
        let quotient = a / b;
        select(quotient - quotient == 0.0, sqrt(quotient), sqrt(a) / sqrt(b))
    }
    def of_matrix(g, f, h) {
        let inverse = f * h;
        g * select(added == 0.0 && largest_inverse < inverse, largest_inverse, inverse)
    }
    def of_elements(g, v) {
        g / sqrt(select(added != 0.0, v, max(v, eps1_squared)))
    }

    /// Adafactor (arXiv:1804.04235) for matrices, the last two axes of an array: the means of `g^2` over rows and columns
    /// are averaged in `r` and `c`, `v = r*c / mean(r)`, `u = g / sqrt(v)`;
    /// `p -= max(eps2, rms(p)) * rho * u / max(1, rms(u)/d)`.
    adafactor {
        row nonnegative r;
        col nonnegative c;
        pass(p, g) {
            mean row { row_squares = g * g; }
            mean col { col_squares = g * g; }
            mean array { pp = p * p; }
        }
        row {
            r = fma(beta2, r, one_minus_beta2 * (row_squares + more));
            mean matrix { mean_of_rows = r; }
        }
        row {
            f = root(select(added != 0.0, mean_of_rows, max(mean_of_rows, eps1)), r);
        }
        col {
            c = fma(beta2, c, one_minus_beta2 * (col_squares + more));
            h = sqrt(1.0 / c);
        }
        pass(p, g) {
            let u = of_matrix(g, f, h);
            mean array { uu = u * u; }
        }
        array {
            let size = scaled(sqrt(pp));
            rate = size / bounded(sqrt(uu));
            kept = 1.0 - size * own_decay;
        }
        pass(p, g) {
            let u = of_matrix(g, f, h);
            p = fma(-rate, u, p * kept);
        }
    }

    /// Adafactor for arrays of one dimension, which keep the second moment of each element.
    adafactor_vector {
        element nonnegative v;
        pass(p, g) {
            v = fma(beta2, v, one_minus_beta2 * g * g + more_squares);
            let u = of_elements(g, v);
            mean array { pp = p * p; uu = u * u; }
        }
        array {
            let size = scaled(sqrt(pp));
            rate = size / bounded(sqrt(uu));
            kept = 1.0 - size * own_decay;
        }
        pass(p, g) {
            let u = of_elements(g, v);
            p = fma(-rate, u, p * kept);
        }
    }

    /// Adafactor with momentum: `m` averages what is subtracted from `p`.
    adafactor_momentum {
        element m;
        row nonnegative r;
        col nonnegative c;
        pass(p, g) {
            mean row { row_squares = g * g; }
            mean col { col_squares = g * g; }
            mean array { pp = p * p; }
        }
        row {
            r = fma(beta2, r, one_minus_beta2 * (row_squares + more));
            mean matrix { mean_of_rows = r; }
        }
        row {
            f = root(select(added != 0.0, mean_of_rows, max(mean_of_rows, eps1)), r);
        }
        col {
            c = fma(beta2, c, one_minus_beta2 * (col_squares + more));
            h = sqrt(1.0 / c);
        }
        pass(p, g) {
            let u = of_matrix(g, f, h);
            mean array { uu = u * u; }
        }
        array {
            let size = scaled(sqrt(pp));
            rate = size / bounded(sqrt(uu));
            kept = 1.0 - size * own_decay;
        }
        pass(p, g) {
            let u = of_matrix(g, f, h);
            m = fma(beta1, m, fresh * rate * u);
            p = fma(p, kept, -m);
        }
    }

    /// Adafactor with momentum for arrays of one dimension.
    adafactor_vector_momentum {
        element m, nonnegative v;
        pass(p, g) {
            v = fma(beta2, v, one_minus_beta2 * g * g + more_squares);
            let u = of_elements(g, v);
            mean array { pp = p * p; uu = u * u; }
        }
        array {
            let size = scaled(sqrt(pp));
            rate = size / bounded(sqrt(uu));
            kept = 1.0 - size * own_decay;
        }
        pass(p, g) {
            let u = of_elements(g, v);
            m = fma(beta1, m, fresh * rate * u);
            p = fma(p, kept, -m);
        }
    }
}
