//! Dense linear algebra for Newton's method: a Cholesky factorization from faer, and damping when there is none.
//!
//! The one part of the crate whose last bits may depend on the machine: the library chooses its own kernels.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use faer::{MatMut, Par, Spec};

use crate::pool;

/// The Hessian is not positive definite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotPositiveDefinite {
    /// The first leading minor that is not positive, counted from 0.
    pub minor: usize,
}

/// Solves `(hessian + damping*I) x = rhs` in place, and returns the damping used.
///
/// `hessian` is symmetric, `n` by `n` for `n` elements of `rhs`; one triangle of it is read. Where it is not positive
/// definite, `raise` lets the damping grow by factors of ten, from a millionth of the largest diagonal element, until it is.
///
/// # Errors
/// It is not positive definite and `raise` is off, or no finite damping makes it so.
///
/// # Panics
/// `hessian` has not `n * n` elements.
pub fn solve_damped(
    hessian: &[f64],
    rhs: &mut [f64],
    damping: f64,
    raise: bool,
    threads: usize,
) -> Result<f64, NotPositiveDefinite> {
    let n = rhs.len();
    assert_eq!(hessian.len(), n * n, "the Hessian of {n} unknowns");
    let scale = (0..n).map(|i| hessian[i * n + i].abs()).fold(0.0, f64::max);
    let least = if scale > 0.0 { (1e-6 * scale).max(f64::MIN_POSITIVE) } else { 1e-6 };
    let mut factor = Vec::with_capacity(n * n);
    let mut used = damping;
    loop {
        factor.clear();
        factor.extend_from_slice(hessian);
        (0..n).for_each(|i| factor[i * n + i] += used);
        let result = pool::install(threads, || {
            let par = if threads > 1 { Par::rayon(threads) } else { Par::Seq };
            let matrix = MatMut::from_column_major_slice_mut(&mut factor, n, n);
            let memory = llt::factor::cholesky_in_place_scratch::<f64>(n, par, Spec::default());
            let mut memory = MemBuffer::new(memory);
            let stack = MemStack::new(&mut memory);
            llt::factor::cholesky_in_place(matrix, Default::default(), par, stack, Spec::default())?;
            let matrix = MatMut::from_column_major_slice_mut(&mut factor, n, n);
            let rhs = MatMut::from_column_major_slice_mut(rhs, n, 1);
            llt::solve::solve_in_place(
                matrix.as_ref(),
                rhs,
                par,
                MemStack::new(&mut MemBuffer::new(llt::solve::solve_in_place_scratch::<f64>(n, 1, par))),
            );
            Ok(())
        });
        match result {
            Ok(()) => return Ok(used),
            Err(llt::factor::LltError::NonPositivePivot { index }) => {
                used = (10.0 * used).max(least);
                if !raise || !used.is_finite() {
                    return Err(NotPositiveDefinite { minor: index });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definite_system_is_solved_and_an_indefinite_one_damped() {
        let mut x = [1.0, 2.0];
        assert_eq!(solve_damped(&[4.0, 1.0, 1.0, 3.0], &mut x, 0.0, false, 1), Ok(0.0));
        assert!((x[0] - 1.0 / 11.0).abs() < 1e-15 && (x[1] - 7.0 / 11.0).abs() < 1e-15);

        let saddle = [1.0, 0.0, 0.0, -1.0];
        let mut x = [1.0, 1.0];
        assert_eq!(solve_damped(&saddle, &mut x, 0.0, false, 1), Err(NotPositiveDefinite { minor: 1 }));
        assert_eq!(x, [1.0, 1.0]);
        let used = solve_damped(&saddle, &mut x, 0.0, true, 2).unwrap();
        assert!(used > 1.0 && used <= 10.0);
        assert!((x[0] * (1.0 + used) - 1.0).abs() < 1e-14 && (x[1] * (used - 1.0) - 1.0).abs() < 1e-14);

        // A scale whose millionth is zero must not keep the damping at zero for ever.
        assert!(solve_damped(&[1e-320, 0.0, 0.0, -1e-320], &mut [1.0, 1.0], 0.0, true, 1).is_ok());
        assert!(solve_damped(&[f64::NAN, 0.0, 0.0, 1.0], &mut [1.0, 1.0], 0.0, true, 1).is_err());
    }
}
