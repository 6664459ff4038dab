//! NAdam. Knows no kernel, driver or device.

use super::cautious::cautious_rules;

cautious_rules! {
    // nadamw, damped and plus_one are 0 or 1: which form, and whether the momentum grows from half of beta1 on.
    hyper(beta1, beta2, eps, momentum_decay, nadamw, damped, plus_one);
    each_step(lr, t) {
        one_minus_beta1 = 1.0 - beta1;
        one_minus_beta2 = 1.0 - beta2;
        mu = if damped != 0.0 { beta1 * (1.0 - 0.5 * pow(0.96, t * momentum_decay)) } else { beta1 };
        next_mu = if damped != 0.0 { beta1 * (1.0 - 0.5 * pow(0.96, (t + 1.0) * momentum_decay)) } else { beta1 };
        bias1 = 1.0 - pow(beta1, t);
        inv_bias2_sqrt = 1.0 / sqrt(1.0 - pow(beta2, t));
        step_size = lr;
    }
    def gradient_share(product) {
        if nadamw != 0.0 { (1.0 - beta1) / bias1 } else { (1.0 - mu) / (1.0 - product) }
    }
    def mean_share(product) {
        if nadamw != 0.0 { beta1 / bias1 } else { next_mu / (1.0 - product * next_mu) }
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
            of_gradient = gradient_share(mu_product);
            of_mean = mean_share(mu_product);
        }
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            let u = fma(of_mean, m, of_gradient * g);
            p = fma(-step_size, u / fma(sqrt(v), inv_bias2_sqrt, eps), p);
        }
    }

    /// NAdam in which only elements move whose step agrees with the sign of the gradient (arXiv:2411.16085),
    /// `1/max(share, 0.001)` or `n/(count + 1)` times as far; `count` of the `n` elements move, `share = count/n`.
    nadam_cautious {
        element m, nonnegative v;
        array nonnegative mu_product = 1.0;
        array {
            mu_product *= mu;
            of_gradient = gradient_share(mu_product);
            of_mean = mean_share(mu_product);
        }
        pass(p, g) {
            m = fma(beta1, m, one_minus_beta1 * g);
            v = fma(beta2, v, one_minus_beta2 * g * g);
            let moves = agreeing(fma(of_mean, m, of_gradient * g), g);
            mean array { share = moves; }
            sum array { count = moves; }
        }
        array {
            scaled_step = step_size * growth(share, count);
        }
        pass(p, g) {
            let u = fma(of_mean, m, of_gradient * g);
            p = fma(-scaled_step, agreeing(u, g) * (u / fma(sqrt(v), inv_bias2_sqrt, eps)), p);
        }
    }
}
