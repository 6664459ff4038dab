//! SM3: squares of gradients in one number for each row and column. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper(momentum, beta, eps);
    each_step(lr, t) {
        rate = lr;
        fresh = 1.0 - momentum;
        // Without a beta the squares are summed.
        kept = if beta != 0.0 { beta } else { 1.0 };
        gain = if beta != 0.0 { 1.0 - beta } else { 1.0 };
    }
    def accumulated(least, g) {
        fma(kept, least, gain * g * g)
    }
    def direction(nu, g) {
        select(nu == 0.0, 0.0, g / sqrt(nu + eps))
    }
    def largest(old, new) {
        select(beta != 0.0, max(old, new), new)
    }

    /// SM3-II (arXiv:1901.11150) for matrices, the last two axes of an array: with `r` of an element's row and `c` of its column,
    /// `nu = min(r, c) + g^2; p -= lr*g/sqrt(nu + eps)`; `r` and `c` become the largest `nu` of the row and of the column.
    sm3 {
        row nonnegative r;
        col nonnegative c;
        pass(p, g) {
            let nu = accumulated(min(r, c), g);
            p = fma(-rate, direction(nu, g), p);
            max row { of_row = nu; }
            max col { of_col = nu; }
        }
        row {
            r = largest(r, of_row);
        }
        col {
            c = largest(c, of_col);
        }
    }

    /// SM3 with momentum: `m = momentum*m + (1-momentum)*g/sqrt(nu + eps); p -= lr*m`.
    sm3_momentum {
        element m;
        row nonnegative r;
        col nonnegative c;
        pass(p, g) {
            let nu = accumulated(min(r, c), g);
            m = fma(momentum, m, fresh * direction(nu, g));
            p = fma(-rate, m, p);
            max row { of_row = nu; }
            max col { of_col = nu; }
        }
        row {
            r = largest(r, of_row);
        }
        col {
            c = largest(c, of_col);
        }
    }

    /// SM3 for arrays of one dimension, which keep the number of each element.
    sm3_vector {
        element nonnegative v;
        pass(p, g) {
            let nu = accumulated(v, g);
            v = largest(v, nu);
            p = fma(-rate, direction(nu, g), p);
        }
    }

    /// SM3 with momentum for arrays of one dimension.
    sm3_vector_momentum {
        element m, nonnegative v;
        pass(p, g) {
            let nu = accumulated(v, g);
            v = largest(v, nu);
            m = fma(momentum, m, fresh * direction(nu, g));
            p = fma(-rate, m, p);
        }
    }
}
