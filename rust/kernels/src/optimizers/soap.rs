//! SOAP's averages and step; the rotations between them are not here. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // correct_bias is 0 or 1.
    hyper(beta1, beta2, eps, weight_decay, correct_bias);
    each_step(lr, t) {
        // The first step only begins the statistics.
        moves = if t == 1.0 { 0.0 } else { 1.0 };
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        let bias1 = if correct_bias != 0.0 { 1.0 - pow(beta1, t - 1.0) } else { 1.0 };
        let bias2 = if correct_bias != 0.0 { 1.0 - pow(beta2, t - 1.0) } else { 1.0 };
        step_size = if t == 1.0 { 0.0 } else { lr * sqrt(bias2) / bias1 };
        shrink = 1.0 - lr * weight_decay;
    }
    def momentum(m, g) {
        fma(beta1, m, one_minus_beta1 * g)
    }
    def squares(v, x) {
        fma(beta2, v, one_minus_beta2 * x * x)
    }

    /// SOAP (arXiv:2409.11321): Adam in the eigenbasis of Shampoo's statistics. `x` is the gradient, which NumPy rotates, `u` the
    /// rotated momentum; divided by the root of `v`, it is rotated back.
    soap {
        element m, nonnegative v, scratch x, scratch u;
        gather {
            pass(g) {
                x = g;
                u = momentum(m, g);
            }
        }
        scale {
            pass(p) {
                u = u / (sqrt(squares(v, x)) + eps);
            }
        }
        pass(p, g) {
            m = select(moves != 0.0, momentum(m, g), m);
            v = select(moves != 0.0, squares(v, x), v);
            p = select(moves != 0.0, fma(-step_size, u, p) * shrink, p);
        }
    }
}
