"""Dense linear algebra with NumPy alone: solves a symmetric positive definite system by Cholesky factorization.

It knows float64 arrays and no optimizer.

NumPy has no triangular solve, and factorizing a whole matrix takes memory for two more. So this is a blocked algorithm:
LAPACK factorizes diagonal blocks of `BLOCK` columns, and matrix products do the rest in place.
"""

from __future__ import annotations

import sys

import numpy as np

BLOCK = 64
_BUFFER = 5 << 20  # float64 numbers


class NotPositiveDefiniteError(Exception):
    """A matrix has no Cholesky factorization; `minor` is its first non-positive leading minor, counted from 1."""

    def __init__(self, minor: int) -> None:
        super().__init__(f"leading minor {minor} is not positive")
        self.minor = minor


def solve_damped(
    matrix: np.ndarray, rhs: np.ndarray, damping: float, *, raise_damping: bool
) -> tuple[np.ndarray, float]:
    """Solves ``(matrix + damping*I) x = rhs``; returns x and the damping used.

    `matrix` is symmetric and C-contiguous; only its upper triangle is read. If the sum is not positive definite,
    `raise_damping` multiplies the damping by ten until it is, starting at a millionth of the largest diagonal element.

    Raises
    ------
    NotPositiveDefiniteError
        The sum is not positive definite, and `raise_damping` is off or no finite damping is enough.
    """
    copy = np.empty_like(matrix)
    diagonal = copy.reshape(-1)[:: len(copy) + 1]
    scale = float(abs(matrix.diagonal()).max(initial=0.0))
    least = max(1e-6 * scale, sys.float_info.min) if scale > 0.0 else 1e-6
    with np.errstate(all="ignore"):  # an overflow shows up as a pivot that is not positive
        while True:
            np.copyto(copy, matrix)
            diagonal += damping
            lower = copy.T
            try:
                inverses = _factorize(lower)
            except NotPositiveDefiniteError:
                damping = max(10.0 * damping, least)
                if not raise_damping or damping == np.inf:
                    raise
            else:
                return _solve_factorized(lower, inverses, rhs), damping


def _factorize(a: np.ndarray) -> list[np.ndarray]:
    """Overwrites the lower triangle with its Cholesky factor; returns the inverses of the factor's diagonal blocks."""
    inverses = []
    check_memory(a[:BLOCK, :BLOCK])
    for k in range(0, len(a), BLOCK):
        panel = a[k:, k : k + BLOCK]
        panel -= a[k:, :k] @ a[k : k + BLOCK, :k].T
        block, below = panel[:BLOCK], panel[BLOCK:]
        factor = _cholesky(block)
        if factor is None:
            smaller = (m for m in range(1, len(block)) if _cholesky(block[:m, :m]) is None)
            raise NotPositiveDefiniteError(k + next(smaller, len(block)))
        block[...] = factor
        inverses.append(_invert_lower(factor))
        below[...] = _solve_block(factor, inverses[-1], below.T).T
    return inverses


def _solve_factorized(lower: np.ndarray, inverses: list[np.ndarray], rhs: np.ndarray) -> np.ndarray:
    """Solves ``lower @ lower.T @ x = rhs``; does not read above the diagonal blocks of `lower`."""
    x = np.array(rhs)
    blocks = [(slice(i * BLOCK, (i + 1) * BLOCK), inverse) for i, inverse in enumerate(inverses)]
    for at, inverse in blocks:
        x[at] -= lower[at, : at.start] @ x[: at.start]
        x[at] = _solve_block(lower[at, at], inverse, x[at])
    for at, inverse in reversed(blocks):
        x[at] -= x[at.stop :] @ lower[at.stop :, at]
        x[at] = _solve_block(lower[at, at].T, inverse.T, x[at])
    return x


def _solve_block(block: np.ndarray, inverse: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """Solves ``block @ x = rhs`` for a triangular block."""
    x: np.ndarray = inverse @ rhs
    # Multiplying by an inverse is less accurate than substitution; one step of iterative refinement compensates.
    x += inverse @ (rhs - block @ x)
    return x


def _cholesky(block: np.ndarray) -> np.ndarray | None:
    """The factor of one block, or None if the block is not positive definite."""
    check_memory(block)
    try:
        factor = np.linalg.cholesky(block)
    except np.linalg.LinAlgError:
        return None
    # LAPACK may not report NaN and infinities. In any row they propagate to its diagonal element.
    return factor if np.isfinite(factor.diagonal()).all() else None


def _invert_lower(block: np.ndarray) -> np.ndarray:
    check_memory(block)
    # Reversed, the block is upper triangular, so the LU factorization in `inv` leaves it unchanged.
    return np.linalg.inv(block[::-1, ::-1])[::-1, ::-1]


def check_memory(block: np.ndarray) -> None:
    """Raises MemoryError unless there is memory for LAPACK's copies of a block, its result, and a buffer of OpenBLAS.

    NumPy 1 returns uninitialized memory if allocating the copies fails; NumPy 2 raises by itself. OpenBLAS ends the
    process if it has no memory for a buffer of 32 MiB, which it takes at its first product in each thread.
    """
    np.empty(4 * block.size + _BUFFER)
