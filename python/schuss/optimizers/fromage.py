"""Fromage."""

from __future__ import annotations

from schuss._core.hyperparameters import Rate
from schuss._core.optimizer import Optimizer


class Fromage(Optimizer):
    r"""Fromage: steps whose norm is a fixed fraction of that of the array.

    With the Euclidean norms of the whole array,

    .. math::

       p \leftarrow \frac{1}{\sqrt{1 + \eta^2}} \left(p - \eta \frac{\|p\|}{\|g\|} g\right)

    The ratio is 1 if either norm is 0. Optax takes at least 1e-6 for both norms. There is no state.

    Parameters
    ----------
    lr : float or callable, default 1e-2
        Learning rate :math:`\eta`, >= 0, or a function of the step that returns it; the first step is 0.

    References
    ----------
    Bernstein et al., "On the distance between two neural networks and the stability of learning", arXiv:2002.03432.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([3.0, 4.0])
    >>> schuss.Fromage(w, lr=0.75).step(np.array([0.0, 2.0]))
    True
    >>> w
    array([2.4, 0.2])
    """

    lr: Rate = 1e-2
