"""Matrix functions for optimizers, with NumPy's BLAS and LAPACK alone. It knows arrays and no optimizer.

Products are computed in C order from arrays in any order, so the bits do not depend on the order in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from schuss import _schuss
from schuss._arrays.linalg import check_memory

#: Iterations between two products with a long matrix.
_TOGETHER = 3


def as_matrix(array: np.ndarray, layout: str) -> np.ndarray:
    """An array as a matrix, outputs first or in "in_out" last, a vector as one column; a copy if it must be."""
    if array.ndim < 2:
        return array.reshape(-1, 1)
    return array.reshape((array.shape[0], -1) if layout == "out_in" else (-1, array.shape[-1]))


def in_c_order(array: np.ndarray, layout: str) -> np.ndarray:
    """An array as a matrix, as `as_matrix` returns it, in C order."""
    return np.ascontiguousarray(as_matrix(array, layout))


def norm(array: np.ndarray) -> float:
    """The root of the sum of squares, added up in float64 in a fixed order."""
    squares, unit = _schuss.sum_of_squares([array])
    return math.sqrt(squares) * unit


def orthogonalized(
    matrix: np.ndarray, divisor: float, coefficients: Sequence[tuple[float, float, float]]
) -> np.ndarray:
    """Newton-Schulz iterations ``X = a*X + b*(X X^T) X + c*(X X^T)^2 X``, from `matrix` divided by a number.

    An iteration multiplies ``X`` by a polynomial of ``A = X X^T``, so the next ``A`` is that times the polynomial's
    square. Of a long matrix, three iterations are taken with small products alone before ``X`` and ``A`` are computed;
    with more of them, rounding errors of small singular values would grow.
    """
    transposed = matrix.shape[0] > matrix.shape[1]
    x: np.ndarray = np.divide(matrix.T if transposed else matrix, matrix.dtype.type(divisor), order="C")
    n = len(x)
    gram, square, factor, total, spare = (np.empty((n, n), x.dtype) for _ in range(5))
    check_memory(gram)
    other = np.empty_like(x)
    together = _TOGETHER if x.shape[1] > 2 * n else 1
    for first in range(0, len(coefficients), together):
        # NumPy computes one triangle of the product of an array with its own transpose, and copies it to the other.
        np.matmul(x, x.T, out=gram)
        for k, (a, b, c) in enumerate(coefficients[first : first + together]):
            if k > 0:
                np.matmul(factor, factor.T, out=square)
                np.matmul(gram, square, out=spare)
                gram, spare = spare, gram
            np.matmul(gram, gram.T, out=factor)
            factor *= c
            np.multiply(gram, b, out=square)
            factor += square
            factor.reshape(-1)[:: n + 1] += a
            if k > 0:
                np.matmul(factor, total, out=spare)
                total, spare = spare, total
            else:
                np.copyto(total, factor)
        np.matmul(total, x, out=other)
        x, other = other, x
    return x.T if transposed else x


def gram(matrix: np.ndarray) -> np.ndarray:
    """The product of a matrix with its own transpose."""
    result = np.empty((len(matrix), len(matrix)), matrix.dtype)
    check_memory(result)
    np.matmul(matrix, matrix.T, out=result)
    return result


def eigenvectors(matrix: np.ndarray) -> np.ndarray:
    """The eigenvectors of a symmetric matrix as columns, those of the largest eigenvalues first; of NaN those of I."""
    check_memory(matrix)
    if not np.isfinite(matrix).all():
        return np.eye(len(matrix), dtype=matrix.dtype)
    vectors: np.ndarray = np.linalg.eigh(matrix)[1][:, ::-1].copy()
    # LAPACK leaves the signs open.
    vectors *= np.where(vectors.sum(0) < 0, -1, 1).astype(matrix.dtype)
    return vectors


def refined(matrix: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Estimates of a symmetric matrix's eigenvectors after a step of the power method, each in its place."""
    check_memory(matrix)
    basis = np.ascontiguousarray(basis)
    product = np.matmul(matrix, basis)
    order = np.argsort(-np.einsum("ij,ij->j", basis, product), kind="stable")
    orthogonal, triangular = np.linalg.qr(product[:, order])
    result: np.ndarray = np.empty_like(product)
    # LAPACK leaves the signs open; with these, a basis of eigenvectors stays as it is.
    result[:, order] = orthogonal * np.where(triangular.diagonal() < 0, -1, 1).astype(matrix.dtype)
    return result


def inverse_root(matrix: np.ndarray, divisor: float, eps: float, power: float) -> np.ndarray:
    """``(matrix/divisor + eps*I)^-power`` of a symmetric matrix whose eigenvalues are >= 0; NaN if it is not finite.

    An eps that is 0 in the matrix's dtype counts as the rounding error of the largest eigenvalue.
    """
    if not np.isfinite(matrix).all():
        return np.full_like(matrix, np.nan)
    wide, limits = matrix.astype(np.float64), np.finfo(matrix.dtype)
    check_memory(wide)
    values, vectors = np.linalg.eigh(wide)
    values = np.maximum(values, 0.0) / divisor
    if eps < limits.tiny:
        eps = max(float(limits.eps) * values[-1], float(limits.tiny))
    # The root's own root, so that the product with the transpose is the root, and symmetric.
    vectors *= (values + eps) ** (-power / 2)
    return gram(vectors).astype(matrix.dtype)
