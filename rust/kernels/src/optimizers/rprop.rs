//! Rprop. Knows no kernel, driver or device.

use schuss_macros::rules;

rules! {
    hyper(eta1, eta2, step_size1, step_size2);
    each_step(lr, t) {
        first = if t == 1.0 { 1.0 } else { 0.0 };
        start = lr;
    }

    /// iRprop- (Igel and Hüsken 2000; Riedmiller and Braun 1993): where the gradient has its former sign, `size` grows by
    /// `eta2`, where it has the other, it shrinks by `eta1` and the gradient becomes 0; `p -= sign(g)*size; prev = g`.
    rprop {
        element prev, nonnegative size;
        pass(p, g) {
            let agree = sign(g) * sign(prev);
            let factor = select(agree > 0.0, eta2, select(agree < 0.0, eta1, 1.0));
            size = min(max(select(first != 0.0, start, size) * factor, step_size1), step_size2);
            let kept = select(agree < 0.0, 0.0, g);
            p = fma(-size, sign(kept), p);
            prev = kept;
        }
    }
}
