//! Sophia, with Gauss-Newton or Hutchinson estimates of the Hessian's diagonal. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // Of G, scale is rho times the batch size; H has clip in its place.
    hyper(beta1, beta2, scale, clip, eps);
    each_step(lr, t) {
        step_size = lr;
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
    }

    /// Sophia-G (arXiv:2305.14342): `m = beta1*m + (1-beta1)*g; p -= lr*sign(m)*min(abs(m)/(rho*bs*h + eps), 1)`; an update of
    /// the Hessian's diagonal is `h = beta2*h + (1-beta2)*estimate`.
    sophiag {
        element m, h;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            p = fma(-step_size, sign(m) * min(abs(m) / fma(scale, h, eps), 1.0), p);
        }
        update_hessian {
            pass(raw g) {
                h = fma(beta2, h, one_minus_beta2 * g);
            }
        }
    }

    /// Sophia-H: the same with `p -= lr*min(max(m/max(h, eps), -clip), clip)`.
    sophiah {
        element m, h;
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            p = fma(-step_size, min(max(m / max(h, eps), -clip), clip), p);
        }
        update_hessian {
            pass(raw g) {
                h = fma(beta2, h, one_minus_beta2 * g);
            }
        }
    }
}
