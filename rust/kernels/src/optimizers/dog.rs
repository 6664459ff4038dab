//! DoG and LDoG: gradient descent with the distance over the gradients as learning rate. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // init_eta is 0 for none.
    hyper(reps_rel, eps, init_eta);
    each_step(lr, t) {
        rate = lr;
    }
    def distance(rbar, total, far, pp) {
        select(total == 0.0, reps_rel * (1.0 + sqrt(pp)), max(rbar, sqrt(far)))
    }
    def step_of(rbar, total, starts) {
        select(starts != 0.0 && init_eta != 0.0, init_eta, rate * rbar / sqrt(total))
    }

    /// DoG (arXiv:2302.12022): `p -= lr * rbar/sqrt(total) * g` with the largest distance from the initial parameters,
    /// `rbar = max(rbar, |p - x0|)`, at first `reps_rel*(1 + |p|)`, and the sum of squared gradients, `total += |g|^2`, at first
    /// `|g|^2 + eps`; norms over all arrays.
    dog {
        element exact x0 = p;
        all rbar, total;
        pass(p, g) {
            let gone = p - x0;
            sum all { far = gone * gone; gg = g * g; pp = p * p; }
        }
        all {
            let starts = select(total == 0.0, 1.0, 0.0);
            rbar = distance(rbar, total, far, pp);
            total += select(starts != 0.0, gg + eps, gg);
            eta = step_of(rbar, total, starts);
        }
        pass(p, g) {
            p = fma(-eta, g, p);
        }
    }

    /// LDoG: DoG with norms of each array.
    dog_layerwise {
        element exact x0 = p;
        array nonnegative rbar, nonnegative total;
        pass(p, g) {
            let gone = p - x0;
            sum array { far = gone * gone; gg = g * g; pp = p * p; }
        }
        array {
            let starts = select(total == 0.0, 1.0, 0.0);
            rbar = distance(rbar, total, far, pp);
            total += select(starts != 0.0, gg + eps, gg);
            eta = step_of(rbar, total, starts);
        }
        pass(p, g) {
            p = fma(-eta, g, p);
        }
    }
}
