"""Adam-mini."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np

from schuss._arrays import checks, formats
from schuss._arrays.layout import Matrix, of_outputs
from schuss._core import validate
from schuss._core.hyperparameters import Betas, Rate, WeightDecay
from schuss._core.optimizer import Optimizer


def _blocks(place: str, value: Any) -> Any:
    """The check of `blocks`: a name, or a number of blocks."""
    if isinstance(value, str) and value in ("rows", "cols", "array"):
        return value
    try:
        return validate.whole_number(place, value, 1)
    except (TypeError, ValueError):
        raise ValueError(f"{place} must be 'rows', 'cols', 'array' or a whole number >= 1, got {value!r}") from None


class AdamMini(Optimizer):
    r"""Adam-mini: `AdamW` with one second moment for each block of an array instead of one for each element.

    .. math::

       & m \leftarrow \beta_1 m + (1 - \beta_1) g \\
       & v_{block} \leftarrow \beta_2 v_{block} + (1 - \beta_2) \operatorname{mean}_{block}(g^2) \\
       & p \leftarrow (1 - \eta \lambda) p
         - \frac{\eta}{1 - \beta_1^t} \frac{m}{\sqrt{v_{block}} / \sqrt{1 - \beta_2^t} + \epsilon}

    The authors give a block to each output of embeddings, output layers and most matrices, and to each head of the
    matrices that make queries and keys: put these into a group with ``blocks`` set to the number of heads.

    Parameters
    ----------
    weight_decay : float or callable, default 0.0
        :math:`\lambda` >= 0, decoupled.
    blocks : {"rows", "cols", "array"} or int, default "rows"
        What has one second moment: ``"rows"``, each index of the first axis, for weights of shape ``(out, in, ...)``;
        ``"cols"``, each index of the last axis, for ``(..., in, out)``; the whole array, as is also each array of fewer
        than two dimensions; or so many contiguous pieces of equal size, which must be possible. Fixed once the
        optimizer is made.

    References
    ----------
    Zhang et al., "Adam-mini: use fewer learning rates to gain more", arXiv:2406.16793.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.zeros((2, 2))
    >>> opt = schuss.AdamMini(w, lr=0.1, eps=0.0)
    >>> opt.step(np.array([[1.0, 7.0], [2.0, 2.0]]))
    True
    >>> w
    array([[-0.02, -0.14],
           [-0.1 , -0.1 ]])
    """

    lr: Rate = 1e-3
    betas: Betas = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.0
    blocks: Annotated[Literal["rows", "cols", "array"] | int, _blocks] = "rows"

    _decay_form = "decoupled"
    _int8 = True
    _by_rows = True

    @classmethod
    def _takes_rows(cls, hypers: Mapping[str, Any], array: np.ndarray) -> bool:
        return hypers["blocks"] == "rows" and array.ndim > 1

    @classmethod
    def _array_states(cls, hypers: Mapping[str, Any], array: np.ndarray) -> tuple[formats.State, ...]:
        blocks, ones = hypers["blocks"], (1,) * (array.ndim - 1)
        if isinstance(blocks, int):
            shape: tuple[int, ...] = (blocks,)
        elif array.ndim < 2 or blocks == "array":
            shape = ()
        else:
            shape = (array.shape[0], *ones) if blocks == "rows" else (*ones, array.shape[-1])
        m, v = super()._array_states(hypers, array)
        return m, v._replace(own_shape=shape)

    @classmethod
    def _array_rule(cls, hypers: Mapping[str, Any], array: np.ndarray) -> str:
        blocks = hypers["blocks"]
        if isinstance(blocks, int):
            if array.size % blocks:
                raise ValueError(
                    f"blocks={blocks} does not divide the {array.size} elements of an array of shape {array.shape}"
                )
            if blocks > 1 and checks.order(array) != "C":
                raise ValueError(
                    f"blocks={blocks} needs arrays in C order, and one of shape {array.shape} is in Fortran order"
                )
        return cls._rule(hypers)

    @classmethod
    def _matrix(cls, hypers: Mapping[str, Any], array: np.ndarray) -> Matrix:
        blocks = hypers["blocks"]
        if isinstance(blocks, int):
            return 1, blocks, array.size // blocks, False, 1
        if array.ndim < 2 or blocks == "array":
            return 1, 1, array.size, False, 1
        return of_outputs(array, "out_in" if blocks == "rows" else "in_out")
