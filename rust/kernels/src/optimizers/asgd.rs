//! Averaged stochastic gradient descent. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper(lambd, alpha, t0);
    each_step(lr, t) {
        step_size = lr;
        first = if t == 1.0 { 1.0 } else { 0.0 };
        next_rate = lr / pow(1.0 + lambd * lr * t, alpha);
        mu = 1.0 / max(1.0, t - 1.0 - t0);
    }

    /// ASGD (Polyak and Juditsky 1992, as in PyTorch): `p = p*(1 - lambd*eta) - eta*g; ax += mu*(p - ax);
    /// eta = lr/(1 + lambd*lr*t)^alpha`, which is `lr` in step 1; `mu = 1/max(1, t - 1 - t0)`.
    asgd {
        element exact ax = p;
        array nonnegative eta;
        array {
            rate = if first != 0.0 { step_size } else { eta };
            shrink = 1.0 - lambd * rate;
            eta = next_rate;
        }
        pass(p, g) {
            p = fma(-rate, g, p * shrink);
            ax = select(mu == 1.0, p, fma(mu, p - ax, ax));
        }
    }
}
