//! Functions that the cautious updates of several families share (arXiv:2411.16085). Knows no rule.

/// `rules!` with these functions. Their rules have a hyperparameter `plus_one`, which is 0 or 1.
macro_rules! cautious_rules {
    (hyper $hypers:tt; $($family:tt)*) => {
        schuss_macros::rules! {
            hyper $hypers;
            // 1 where an update in the direction `u` agrees with the sign of the gradient, else 0: these elements move.
            def agreeing(u, g) {
                select((u > 0.0 && g > 0.0) || (u < 0.0 && g < 0.0), 1.0, 0.0)
            }
            // How many times as far they move: `1/max(share, 0.001)` or `n/(count + 1)`. Of the `n` elements `count` move, and
            // `share` is `count/n`.
            def growth(share, count) {
                if plus_one == 0.0 {
                    1.0 / max(share, 1e-3)
                } else if count == 0.0 {
                    1.0
                } else {
                    count / share / (count + 1.0)
                }
            }
            $($family)*
        }
    };
}

pub(super) use cautious_rules;
