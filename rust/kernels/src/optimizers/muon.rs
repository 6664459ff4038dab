//! Muon's momentum and step; the matrix products between them are not here. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // ema, nesterov and debias are 0 or 1.
    hyper(momentum, ema, nesterov, debias);
    each_step(lr, t) {
        step_size = lr;
        gain = if ema != 0.0 { 1.0 - momentum } else { 1.0 };
        let now = if debias != 0.0 { 1.0 - pow(momentum, t) } else { 1.0 };
        let next = if debias != 0.0 { 1.0 - pow(momentum, t + 1.0) } else { 1.0 };
        ahead = if nesterov != 0.0 { momentum / next } else { 1.0 / now };
        fresh = if nesterov != 0.0 { gain / now } else { 0.0 };
    }
    def averaged(b, g) {
        fma(momentum, b, gain * g)
    }

    /// Muon (K. Jordan, 2024): `b = mu*b + (1-mu)*g; u = mu*b + (1-mu)*g`, or `u = b` without Nesterov; the heavy ball has `g`
    /// for `(1-mu)*g`. NumPy makes an orthogonal matrix of `u`; then `p -= lr*u`.
    muon {
        element b, scratch u;
        gather {
            pass(g) {
                let new = averaged(b, g);
                u = select(fresh != 0.0, fma(ahead, new, fresh * g), ahead * new);
            }
        }
        pass(p, g) {
            b = averaged(b, g);
            p = fma(-step_size, u, p);
        }
    }
}
