//! Adagrad, also with one sum for each row. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper(lr_decay, eps, eps_inside_sqrt, initial_accumulator_value);
    each_step(lr, t) {
        step_size = lr / (1.0 + (t - 1.0) * lr_decay);
        eps_inside = if eps_inside_sqrt != 0.0 { eps } else { 0.0 };
        eps_outside = if eps_inside_sqrt != 0.0 { 0.0 } else { eps };
    }

    /// Adagrad (Duchi, Hazan and Singer, JMLR 12, 2011):
    /// `s += g^2; p -= lr/(1 + (t-1)*lr_decay) * g/(sqrt(s) + eps)`.
    adagrad {
        element nonnegative s = initial_accumulator_value;
        pass(p, g) {
            s = fma(g, g, s);
            p = fma(-step_size, g / (sqrt(s + eps_inside) + eps_outside), p);
        }
    }

    /// Row-wise Adagrad (FBGEMM): Adagrad with one sum for each row, of the mean of its squared gradients. The rows are those of
    /// the array as a matrix.
    adagrad_row_wise {
        row nonnegative s = initial_accumulator_value;
        pass(p, g) {
            mean row { squares = g * g; }
        }
        row {
            s = s + squares;
            root = sqrt(s + eps_inside) + eps_outside;
        }
        pass(p, g) {
            p = fma(-step_size, g / root, p);
        }
    }
}
