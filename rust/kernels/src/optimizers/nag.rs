//! Nesterov's accelerated gradient with an explicit look-ahead point. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // ema and automatic are 0 or 1; lookahead is the look-ahead distance if it is not automatic.
    hyper(momentum, ema, lookahead, automatic);
    each_step(lr, t) {
        step_size = lr;
        mu = if ema == 0.0 && t == 1.0 { 0.0 } else { momentum };
        gain = if ema != 0.0 { 1.0 - momentum } else { 1.0 };
        ahead = if automatic == 0.0 {
            lookahead
        } else if ema != 0.0 {
            lr
        } else {
            lr * momentum
        };
    }

    /// Nesterov's accelerated gradient (1983): the gradient is taken at `p - c*b`; then `b = mu*b + g; p -= lr*b`, or
    /// `b = mu*b + (1-mu)*g` for the EMA. `c` is `lr*mu`, or `lr` for the EMA, if it is not given.
    nag {
        element b;
        backup before;
        pass(p restore before, g) {
            let fresh = gain * g;
            b = select(mu != 0.0, fma(mu, b, fresh), fresh);
            p -= step_size * b;
        }
        look_ahead {
            pass(p save before) {
                p -= ahead * b;
            }
        }
    }
}
