//! What is done to arrays beside optimizing, in the form of rules so that it runs on the same driver.

use crate::math::{fma, max, min};
use crate::rule::{Rule, rules};

rules! {
    hyper(factor, bound);
    each_step(lr, t) {
        factor = factor;
        bound = bound;
    }

    /// Replaces an array by the gradient: what centering a gradient in place does, and the first phase of LARS, whose
    /// direction is the gradient as it comes out of scaling and clipping.
    replace {
        state();
        update(p, g) {
            p = g;
        }
    }

    /// Multiplies an array: `p *= factor`.
    scale {
        state();
        update(p) {
            p *= factor;
        }
    }

    /// Clips each element: `p = min(max(p, -bound), bound)`; NaN stays.
    clamp {
        state();
        update(p) {
            p = min(max(p, -bound), bound);
        }
    }

    /// Moves an array some way to another, which stands in the gradient's place: `p += factor*(g - p)`.
    interpolate {
        state();
        update(p, g) {
            p = fma(factor, g - p, p);
        }
    }

    /// Moves an array against a momentum: `p -= factor*b`.
    descend {
        aside save;
        reads(b);
        update(p) {
            p -= factor * b;
        }
    }
}

/// All of them.
pub static ALL: &[&Rule] = &[replace(), scale(), clamp(), interpolate(), descend()];
