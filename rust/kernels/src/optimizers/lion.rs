//! Lion. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper(beta1, beta2);
    each_step(lr, t) {
        step_size = lr;
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
    }

    /// Lion (arXiv:2302.06675): `p -= lr * sign(beta1*m + (1-beta1)*g); m = beta2*m + (1-beta2)*g`.
    lion {
        element m;
        pass(p, g) {
            p = fma(-step_size, sign(fma(beta1, m, one_minus_beta1 * g)), p);
            m = fma(beta2, m, one_minus_beta2 * g);
        }
    }
}
