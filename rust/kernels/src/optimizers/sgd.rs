//! Stochastic gradient descent and its forms with momentum. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // velocity, ema, nesterov, debias and quasi_hyperbolic are 0 or 1; heavy ball is neither velocity nor ema.
    hyper(momentum, dampening, velocity, ema, nesterov, debias, quasi_hyperbolic, nu);
    each_step(lr, t) {
        step_size = lr;
        mu = if velocity == 0.0 && ema == 0.0 && t == 1.0 { 0.0 } else { momentum };
        gain = if velocity != 0.0 {
            lr
        } else if ema != 0.0 {
            1.0 - momentum
        } else if t == 1.0 {
            1.0
        } else {
            1.0 - dampening
        };
        of_gradient = if nesterov != 0.0 {
            lr
        } else if quasi_hyperbolic != 0.0 {
            lr * (1.0 - nu)
        } else {
            0.0
        };
        let ahead = if nesterov != 0.0 {
            momentum
        } else if quasi_hyperbolic != 0.0 {
            nu
        } else {
            1.0
        };
        let rate = if velocity != 0.0 { 1.0 } else { lr };
        of_buffer = rate * ahead / if debias != 0.0 { 1.0 - pow(momentum, t) } else { 1.0 };
    }

    /// Gradient descent: `p -= lr * g`.
    sgd {
        pass(p, g) {
            p = fma(-step_size, g, p);
        }
    }

    /// Gradient descent with momentum. All forms are `b = mu*b + gain*g; p -= of_gradient*g + of_buffer*b`:
    ///
    /// - heavy ball (Polyak 1964, PyTorch): step 1 copies the gradient, later `b = mu*b + (1-dampening)*g; p -= lr*b`;
    /// - velocity: `b = mu*b + lr*g; p -= b`;
    /// - EMA: `b = mu*b + (1-mu)*g; p -= lr*b`, divided by `1 - mu^t` with `debias`;
    /// - Nesterov: `p -= lr*(g + mu*b)`, or `p -= lr*g + mu*b` for the velocity;
    /// - quasi-hyperbolic (QHM, arXiv:1810.06801): the EMA with `p -= lr*((1-nu)*g + nu*b)`.
    momentum {
        element b;
        pass(p, g) {
            let fresh = gain * g;
            b = select(mu != 0.0, fma(mu, b, fresh), fresh);
            let pulled = of_buffer * b;
            p -= select(of_gradient != 0.0, fma(of_gradient, g, pulled), pulled);
        }
    }
}
