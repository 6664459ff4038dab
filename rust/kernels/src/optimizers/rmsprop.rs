//! RMSprop, plain and centered, with and without momentum. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper(alpha, eps, momentum, eps_inside_sqrt, lr_in_momentum, initial_square_avg);
    each_step(lr, t) {
        one_minus_alpha = 1.0 - alpha;
        eps_inside = if eps_inside_sqrt != 0.0 { eps } else { 0.0 };
        eps_outside = if eps_inside_sqrt != 0.0 { 0.0 } else { eps };
        step_size = lr;
        into_buffer = if lr_in_momentum != 0.0 { lr } else { 1.0 };
        of_buffer = if lr_in_momentum != 0.0 { 1.0 } else { lr };
    }

    /// RMSprop (Hinton, lecture 6e): `v = alpha*v + (1-alpha)*g^2; p -= lr * g/(sqrt(v) + eps)`.
    rmsprop {
        element nonnegative v = initial_square_avg;
        pass(p, g) {
            v = fma(alpha, v, one_minus_alpha * g * g);
            p = fma(-step_size, g / (sqrt(v + eps_inside) + eps_outside), p);
        }
    }

    /// RMSprop with momentum: `b = mu*b + g/(sqrt(v) + eps); p -= lr*b`.
    rmsprop_momentum {
        element nonnegative v = initial_square_avg, b;
        pass(p, g) {
            v = fma(alpha, v, one_minus_alpha * g * g);
            b = fma(momentum, b, into_buffer * (g / (sqrt(v + eps_inside) + eps_outside)));
            p = fma(-of_buffer, b, p);
        }
    }

    /// Centered RMSprop (arXiv:1308.0850): the variance `v - a^2`, at least zero, instead of `v`.
    rmsprop_centered {
        element nonnegative v = initial_square_avg, a;
        pass(p, g) {
            v = fma(alpha, v, one_minus_alpha * g * g);
            a = fma(alpha, a, one_minus_alpha * g);
            let d = max(fma(-a, a, v), 0.0);
            p = fma(-step_size, g / (sqrt(d + eps_inside) + eps_outside), p);
        }
    }

    /// Centered RMSprop with momentum.
    rmsprop_centered_momentum {
        element nonnegative v = initial_square_avg, a, b;
        pass(p, g) {
            v = fma(alpha, v, one_minus_alpha * g * g);
            a = fma(alpha, a, one_minus_alpha * g);
            let d = max(fma(-a, a, v), 0.0);
            b = fma(momentum, b, into_buffer * (g / (sqrt(d + eps_inside) + eps_outside)));
            p = fma(-of_buffer, b, p);
        }
    }
}
