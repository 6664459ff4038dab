//! NAdam. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    // nadamw and damped are 0 or 1: which form, and whether the momentum grows from half of beta1 on.
    hyper(beta1, beta2, eps, momentum_decay, nadamw, damped);
    each_step(lr, t) {
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        mu = if damped != 0.0 { beta1 * (1.0 - 0.5 * pow(0.96, t * momentum_decay)) } else { beta1 };
        next_mu = if damped != 0.0 { beta1 * (1.0 - 0.5 * pow(0.96, (t + 1.0) * momentum_decay)) } else { beta1 };
        bias1 = 1.0 - pow(beta1, t);
        inv_bias2_sqrt = 1.0 / sqrt(1.0 - pow(beta2, t));
        step_size = lr;
    }

    /// NAdam (Dozat 2016): `m = beta1*m + (1-beta1)*g; v = beta2*v + (1-beta2)*g^2; mu_product *= mu;
    /// p -= lr * ((1-mu)/(1-mu_product)*g + next_mu/(1-mu_product*next_mu)*m) / (sqrt(v/bc2) + eps)` with
    /// `mu = beta1*(1 - 0.96^(t*momentum_decay)/2)`. NAdamW's form is
    /// `p -= lr/bc1 * (beta1*m + (1-beta1)*g) / (sqrt(v/bc2) + eps)`.
    nadam {
        element m, nonnegative v;
        array nonnegative mu_product = 1.0;
        array {
            mu_product *= mu;
            let nesterov = (1.0 - mu) / (1.0 - mu_product);
            let ahead = next_mu / (1.0 - mu_product * next_mu);
            of_gradient = if nadamw != 0.0 { (1.0 - beta1) / bias1 } else { nesterov };
            of_mean = if nadamw != 0.0 { beta1 / bias1 } else { ahead };
        }
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            let u = fma(of_mean, m, of_gradient * g);
            p = fma(-step_size, u / fma(sqrt(v), inv_bias2_sqrt, eps), p);
        }
    }
}
