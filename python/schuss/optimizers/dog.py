"""DoG and LDoG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from schuss._core.hyperparameters import Positive, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


class DoG(Optimizer):
    r"""DoG: gradient descent with the distance from the start over the norm of all gradients as learning rate.

    .. math::

       & \bar r \leftarrow \max(\bar r, \lVert p - x_0 \rVert),
         \quad \text{at step 1 } \rho (1 + \lVert p \rVert) \\
       & G \leftarrow G + \lVert g \rVert^2, \quad \text{at step 1 } \lVert g \rVert^2 + \epsilon \\
       & p \leftarrow p - \eta \frac{\bar r}{\sqrt G} g

    with :math:`x_0`, the parameters that the optimizer was made with, in the state `x0`, and :math:`\bar r`, :math:`G`
    in `rbar` and `total`. Leave ``lr`` at 1, and use an average of the parameters: the last ones are noisy.

    The norms are over all arrays of all groups that have a gradient in the step, as in Optax, and are under ``shared``
    in ``state_dict()``; all groups must have the same `reps_rel` and `eps`. In step 1 let every array have one: what
    is missing then is missing in the first distance. The authors' package has norms of each group: make an optimizer
    for each. With ``layerwise=True``, which is LDoG, each array has its own.

    Parameters
    ----------
    reps_rel : float, default 1e-6
        :math:`\rho` > 0: the first distance, relative to the norm of the parameters.
    eps : float, default 1e-8
        :math:`\epsilon` >= 0.
    init_eta : float, optional
        The first learning rate, > 0, instead of :math:`\eta \bar r / \sqrt G`.
    layerwise : bool, default False
        LDoG: norms of each array instead of all.

    References
    ----------
    Ivgi, Hinder and Carmon, "DoG is SGD's best friend: a parameter-free dynamic step size schedule", arXiv:2302.12022.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([1.0, -2.0])
    >>> opt = schuss.DoG(w)
    >>> for _ in range(200):
    ...     taken = opt.step(w)  # the gradient of w**2 / 2
    >>> bool(abs(w).max() < 0.1)
    True
    """

    lr: Rate = 1.0
    reps_rel: Positive = 1e-6
    eps: float = 1e-8
    init_eta: Positive | None = None
    weight_decay: WeightDecay = 0.0
    layerwise: bool = False

    _single_rule = False
    _eps_in_square = True

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        return "dog_layerwise" if hypers["layerwise"] else "dog"

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        return {**super()._rule_values(hypers), "init_eta": hypers["init_eta"] or 0.0}

    @classmethod
    def _typed_rule_values(cls, hypers: Mapping[str, Any], dtype: np.dtype[Any]) -> Mapping[str, float]:
        # The sum that eps is added to is the same for parameters of all dtypes.
        return super()._typed_rule_values(hypers, np.dtype(np.float32))
