"""Orthogonal initialization."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from schuss._core import validate
from schuss.init._draw import Layout, Seed, Shape, as_shape, as_target, fans, generator


def orthogonal(
    shape: Shape,
    *,
    gain: float = 1.0,
    layout: Layout = "in_out",
    rng: Seed = None,
    dtype: npt.DTypeLike = np.float32,
    out: np.ndarray | None = None,
) -> np.ndarray:
    r"""A random orthogonal matrix times a gain: a layer that preserves norms.

    .. math:: W = g \, Q, \qquad Q^T Q = I \text{ or } Q Q^T = I

    A convolution is the matrix from ``k... * in`` to ``out``. If the matrix is not square, its rows or columns are
    orthonormal, whichever are fewer. :math:`Q` is uniformly distributed (Haar): it comes from the QR decomposition of
    normal values, with the signs of :math:`R`'s diagonal moved into :math:`Q`.

    Parameters
    ----------
    shape : tuple of int
        At least two dimensions.
    gain : float, default 1.0
        The factor :math:`g` > 0; see :func:`gain`.
    layout : {"in_out", "out_in"}, default "in_out"
        Which dimensions are inputs and outputs: ``(...k, in, out)`` or ``(out, in, k...)``.
    rng : int or numpy.random.Generator, optional
        A seed or a generator. By default each call is different.
    dtype : {numpy.float32, numpy.float64}, default numpy.float32
        The dtype of a new array; ignored with `out`.
    out : array, optional
        A writable array of that shape, float32 or float64, to fill instead of a new one.

    Returns
    -------
    array
        The new array, or `out`.

    Raises
    ------
    TypeError, ValueError
        An argument cannot be used; the message says why.

    References
    ----------
    Saxe, McClelland and Ganguli, arXiv:1312.6120. The signs: Mezzadri, arXiv:math-ph/0609050.

    Examples
    --------
    >>> import numpy as np
    >>> from schuss import init
    >>> w = init.orthogonal((5, 3), rng=0, dtype=np.float64)
    >>> bool(np.allclose(w.T @ w, np.eye(3)))
    True
    """
    sizes = as_shape(shape)
    fans(sizes, layout)
    factor = validate.number("gain", gain, open_low=True)
    source, target = generator(rng), as_target(sizes, dtype, out)
    if target.size:
        rows = sizes[0] if layout == "out_in" else math.prod(sizes[:-1])
        columns = target.size // rows
        normal = source.standard_normal((max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(normal)
        q *= np.copysign(factor, np.diagonal(r))
        values = (q if rows >= columns else q.T).reshape(sizes).astype(target.dtype)  # a warning may be an exception
        target[...] = values
    return target
