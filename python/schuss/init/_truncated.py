"""Truncated normal values, exactly distributed for any bounds."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from schuss._core import validate
from schuss.init._draw import Seed, Shape, as_shape, fill


def truncated_normal(
    shape: Shape,
    *,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    rng: Seed = None,
    dtype: npt.DTypeLike = np.float32,
    out: np.ndarray | None = None,
) -> np.ndarray:
    r"""Values from a normal distribution, truncated to bounds.

    .. math:: p(w) \propto \exp \left( -\frac{(w - \mu)^2}{2 \sigma^2} \right), \qquad a \le w \le b

    The bounds are absolute, as in PyTorch, and rounded to the dtype. Keras's truncated initializers have ``a=-2 * std``
    and ``b=2 * std``, and a `std` larger by 1/0.8796, so that the standard deviation after truncation is the one asked
    for. Rejection sampling makes the distribution exact for any bounds; for :math:`a \ge \mu` or :math:`b \le \mu`
    proposals come from an exponential or a uniform distribution.

    Parameters
    ----------
    shape : int or tuple of int
        Any number of dimensions.
    mean : float, default 0.0
        The mean :math:`\mu` before truncation.
    std : float, default 1.0
        The standard deviation :math:`\sigma` > 0 before truncation.
    a : float, default -2.0
        The lower bound; may be minus infinity.
    b : float, default 2.0
        The upper bound, above `a`; may be infinity.
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
    Robert, "Simulation of truncated normal variables", Statistics and Computing 5, 1995 (arXiv:0907.4010).

    Examples
    --------
    >>> from schuss import init
    >>> w = init.truncated_normal((300, 100), std=0.02, a=-0.04, b=0.04, rng=0)
    >>> bool(abs(w).max() <= 0.04)
    True
    """
    sizes = as_shape(shape)
    center, width = validate.real("mean", mean), validate.number("std", std, open_low=True)
    low, high = validate.real("a", a, finite=False), validate.real("b", b, finite=False)
    if not low < high:
        raise ValueError(f"a must be less than b, got a={a!r} and b={b!r}")
    lowest, highest = (low - center) / width, (high - center) / width
    if lowest == math.inf or highest == -math.inf:
        raise ValueError(f"a and b are too far from mean={mean!r} for std={std!r}, got a={a!r} and b={b!r}")
    if lowest == highest:
        raise ValueError(f"a and b are too close for mean={mean!r} and std={std!r}, got a={a!r} and b={b!r}")

    def draw(source: np.random.Generator, count: int) -> np.ndarray:
        return np.clip(center + width * _truncated(source, count, lowest, highest), low, high)

    return fill(sizes, draw, rng, dtype, out)


def _truncated(source: np.random.Generator, count: int, low: float, high: float) -> np.ndarray:
    """Standard normal values in [low, high] by rejection sampling with a high acceptance rate."""
    if high <= 0:
        return -_truncated(source, count, -high, -low)
    propose = _proposal(source, low, high)
    result, filled = np.empty(count), 0
    while filled < count:
        accepted = propose(count - filled)
        result[filled : filled + len(accepted)] = accepted
        filled += len(accepted)
    return result


def _proposal(source: np.random.Generator, low: float, high: float) -> Callable[[int], np.ndarray]:
    """A sampler with a high acceptance rate, which returns accepted proposals only; `high` is above 0."""
    top = max(low, 0.0)  # where the density is highest
    rate = low / 2.0 + math.hypot(low, 2.0) / 2.0

    def normal(count: int) -> np.ndarray:
        values = source.standard_normal(count)
        return values[(values >= low) & (values <= high)]

    def uniform(count: int) -> np.ndarray:
        values = source.uniform(low, high, count)
        return values[source.random(count) <= np.exp(-0.5 * (values - top) * (values + top))]

    def exponential(count: int) -> np.ndarray:
        values = low + source.standard_exponential(count) / rate
        return values[(values <= high) & (source.random(count) <= np.exp(-0.5 * (values - rate) ** 2))]

    if low < 0:
        return normal if high - low > math.sqrt(2.0 * math.pi) else uniform
    # Robert's bound: in a shorter interval, the exponential's tail beyond `high` wastes more proposals.
    short = math.exp(0.5 + low * (low - math.hypot(low, 2.0)) / 4.0) / rate
    return uniform if high - low <= short else exponential
