//! FTRL-Proximal. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // lambda1 and lambda2 are the strengths of the penalties; exponent is minus Keras's learning_rate_power, and not negative.
    hyper(exponent, initial_accumulator_value, lambda1, lambda2, shrinkage, beta);
    each_step(lr, t) {
        live = if lr != 0.0 { 1.0 } else { 0.0 };
        inv_rate = if lr != 0.0 { 1.0 / lr } else { 0.0 };
        twice_shrinkage = 2.0 * shrinkage;
    }

    /// FTRL-Proximal (McMahan et al., KDD 2013): `s = ((n + g^2)^k - n^k)/lr; n += g^2; z += g + 2*shrinkage*p - s*p`, and `p`
    /// becomes the minimum of `z*p + lambda1*abs(p) + ((n^k + beta)/lr + lambda2)/2 * p^2`, with the exponent as `k`. A learning
    /// rate of 0 changes nothing.
    ftrl {
        element nonnegative n = initial_accumulator_value, z;
        pass(p, g) {
            let sum = fma(g, g, n);
            let grown = pow(sum, exponent);
            let sigma = (grown - pow(n, exponent)) * inv_rate;
            let pull = select(twice_shrinkage != 0.0, fma(twice_shrinkage, p, g), g);
            z = select(live != 0.0, z + fma(-sigma, p, pull), z);
            n = select(live != 0.0, sum, n);
            let curvature = fma(grown + beta, inv_rate, lambda2);
            // Without curvature, as where the square of the first gradient is 0, nothing has a minimum; a NaN stays.
            let pulled = sign(z) * lambda1 - z;
            let away = select(curvature == 0.0, 0.0 * pulled, pulled / curvature);
            let minimum = select(abs(z) <= lambda1, 0.0, away);
            p = select(live != 0.0, minimum, p);
        }
    }
}
