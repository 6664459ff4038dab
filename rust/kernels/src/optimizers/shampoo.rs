//! Shampoo's averages, grafting and step; the preconditioners are not here. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // ema, feedback, adds and debias are 0 or 1; heavy ball is neither ema nor feedback.
    hyper(momentum, ema, feedback, beta2, adds, debias, eps);
    each_step(lr, t) {
        step_size = lr;
        fed = if feedback != 0.0 && t > 1.0 { momentum } else { 0.0 };
        own = 1.0 - fed;
        carried = if feedback != 0.0 { 0.0 } else { momentum };
        averages = ema;
        fresh = 1.0 - momentum;
        inv_bias1 = 1.0 / (1.0 - pow(momentum, t));
        kept = if adds != 0.0 { 1.0 } else { beta2 };
        gain = if adds != 0.0 { 1.0 } else { 1.0 - beta2 };
        inv_bias2 = if debias != 0.0 { 1.0 / (1.0 - pow(beta2, t)) } else { 1.0 };
    }
    def mixed(b, g) {
        select(fed != 0.0, fma(fed, b, own * g), g)
    }
    def averaged(b, x) {
        select(averages != 0.0, inv_bias1 * fma(momentum, b, fresh * x), x)
    }
    def buffer(b, x, u) {
        let added = select(averages != 0.0, fresh * x, u);
        select(carried != 0.0, fma(carried, b, added), added)
    }
    def squares(v, x) {
        fma(kept, v, gain * x * x)
    }

    /// Shampoo (arXiv:1802.09568): `u` is the gradient, which NumPy multiplies by the preconditioners; `p -= lr*u`.
    shampoo {
        element scratch u;
        gather {
            pass(p, g) {
                u = g;
            }
        }
        pass(p, g) {
            p = fma(-step_size, u, p);
        }
    }

    /// Shampoo with momentum. NumPy computes the statistics of `x` and multiplies `u`. Its forms are
    ///
    /// - heavy ball: `x = u = g; b = mu*b + u; p -= lr*b`;
    /// - EMA: `x = g; b = mu*b + (1-mu)*g; u = b/(1-mu^t); p -= lr*u`;
    /// - feedback: `x = u = (1-mu)*g + mu*b`, or `g` in the first step; `b = u; p -= lr*u`.
    shampoo_averaged {
        element b, scratch x, scratch u;
        gather {
            pass(p, g) {
                x = mixed(b, g);
                u = averaged(b, x);
            }
        }
        pass(p, g) {
            b = buffer(b, mixed(b, g), u);
            p = fma(-step_size, select(averages != 0.0, u, b), p);
        }
    }

    /// Shampoo with momentum and grafting (arXiv:2309.06497): NumPy gives `u` the length of `w`, the step that Adagrad, RMSprop or Adam would
    /// take: `u/(sqrt(v) + eps)` with `v = beta2*v + (1-beta2)*x^2`, or the sum of squares.
    shampoo_grafted {
        element b, nonnegative v, scratch x, scratch u, scratch w;
        gather {
            pass(p, g) {
                x = mixed(b, g);
                u = averaged(b, x);
                w = u / (sqrt(squares(v, x) * inv_bias2) + eps);
            }
        }
        pass(p, g) {
            let from = mixed(b, g);
            v = squares(v, from);
            b = buffer(b, from, u);
            p = fma(-step_size, select(averages != 0.0, u, b), p);
        }
    }
}
