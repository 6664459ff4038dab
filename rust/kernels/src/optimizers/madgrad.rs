//! MADGRAD. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // Here weight_decay is the decoupled one.
    hyper(momentum, eps, weight_decay);
    each_step(lr, t) {
        // A rate of 0 changes neither v nor s.
        let rate = if lr == 0.0 { 0.0 } else { lr + eps };
        weight = rate * sqrt(t);
        kept = momentum - rate * weight_decay;
        fresh = 1.0 - momentum;
    }

    /// MADGRAD (arXiv:2101.11075): with `l = (lr + eps)*sqrt(t)`, `v += l*g^2; s += l*g; z = x0 - s/(cbrt(v) + eps);
    /// p = momentum*p + (1-momentum)*z`. A gradient that has always been 0 moves nothing, also without an eps.
    madgrad {
        element nonnegative v, s, exact x0 = p;
        pass(p, g) {
            let weighted = weight * g;
            v = fma(weighted, g, v);
            s += weighted;
            let denominator = cbrt(v) + eps;
            let z = x0 - select(denominator == 0.0, 0.0, s / denominator);
            p = select(kept != 0.0, fma(kept, p, fresh * z), fresh * z);
        }
    }
}
