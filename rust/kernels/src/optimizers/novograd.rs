//! NovoGrad: Adam with one second moment for each array. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // grad_averaging is 0 or 1.
    hyper(beta1, beta2, eps, weight_decay, grad_averaging);
    each_step(lr, t) {
        step_size = lr;
        old = if t == 1.0 { 0.0 } else { beta2 };
        gain = if grad_averaging != 0.0 { 1.0 - beta1 } else { 1.0 };
    }

    /// NovoGrad (arXiv:1905.11286): for each array `v = |g|^2` at step 1, later `v = beta2*v + (1-beta2)*|g|^2`;
    /// `m = beta1*m + g/(sqrt(v) + eps) + wd*p; p -= lr*m`.
    novograd {
        element m;
        array nonnegative v;
        pass(p, g) {
            sum array { gg = g * g; }
        }
        array {
            v = select(old != 0.0, fma(old, v, (1.0 - old) * gg), gg);
            denominator = sqrt(v) + eps;
        }
        pass(p, g) {
            let scaled = g / denominator;
            let u = select(weight_decay != 0.0, fma(weight_decay, p, scaled), scaled);
            m = fma(beta1, m, gain * u);
            p = fma(-step_size, m, p);
        }
    }
}
