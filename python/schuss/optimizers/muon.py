"""Muon."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np

from schuss import _schuss
from schuss._arrays import matrices
from schuss._core import validate
from schuss._core.hyperparameters import Betas, Layout, Momentum, Rate, WeightDecay
from schuss._core.optimizer import Optimizer

_LARGEST = float(np.finfo(np.float32).max)

#: Three numbers for all iterations, or three for each.
Coefficients = tuple[float, float, float] | tuple[tuple[float, float, float], ...]


def _coefficients(place: str, value: Any) -> Coefficients:
    """The check of `ns_coefficients`."""
    if not isinstance(value, (tuple, list, np.ndarray)) or len(value) == 0:
        raise TypeError(f"{place} must be three numbers, or a list of three for each of ns_steps, got {value!r}")

    def number(place: str, entry: Any) -> float:
        return validate.number(place, entry, -_LARGEST, _LARGEST)

    def three(place: str, entry: Any) -> Any:
        return validate.several(place, entry, "three numbers", [number] * 3)

    if np.ndim(value[0]) == 0:
        return three(place, value)  # type: ignore[no-any-return]
    return tuple(three(f"{place}[{k}]", entry) for k, entry in enumerate(value))


class Muon(Optimizer):
    r"""Muon: momentum whose matrices are made nearly orthogonal, and AdamW for all arrays that are no matrices.

    .. math::

       & b \leftarrow \mu b + (1 - \mu) g, \qquad u = \mu b + (1 - \mu) g \\
       & X_0 = u / \max(\lVert u \rVert, \epsilon), \qquad
         X \leftarrow a X + b' (X X^T) X + c (X X^T)^2 X \quad n \text{ times} \\
       & p \leftarrow (1 - \eta \lambda) p - \eta f X

    with three coefficients :math:`a, b', c` and a factor :math:`f` that depends on the shape: `adjust_lr_fn`. Arrays of
    fewer than two axes, and groups with ``fallback=True``, take steps of `AdamW` with the same ``lr`` and
    ``weight_decay``; embeddings and the last layer usually belong into such a group. Arrays of more than two axes, as
    of convolutions, are matrices with the weights of an output in a row: see `layout`.

    The iterations are computed in the dtype of the update, float32 or float64; PyTorch's are in bfloat16 always, so its
    results differ by some hundredths of a step. NumPy's BLAS computes the products and chooses its own number of
    threads, which `schuss.set_num_threads` does not change: the bits are the same for the same BLAS, its number of
    threads, and CPU. Beside its state, the optimizer keeps one array of the size of each matrix for what is between
    momentum and step.

    Parameters
    ----------
    momentum : float or callable, default 0.95
        :math:`\mu` in [0, 1).
    nesterov : bool, default True
        Orthogonalize :math:`\mu b + (1 - \mu) g`; ``False``: :math:`b`.
    ns_coefficients : three floats, or a list of such, default (3.4445, -4.775, 2.0315)
        :math:`a, b', c`, for all iterations or for each of `ns_steps`, as in Polar Express (arXiv:2505.16932).
    ns_steps : int, default 5
        :math:`n`, the number of iterations, >= 1.
    eps : float, default 1e-7
        :math:`\epsilon` >= 0.
    eps_form : {"max", "add"}, default "max"
        Divide by :math:`\max(\lVert u \rVert, \epsilon)`, as PyTorch does, or by
        :math:`\lVert u \rVert + \epsilon`, as Jordan's code, Keras and Optax do.
    weight_decay : float or callable, default 0.1
        :math:`\lambda` >= 0, decoupled.
    adjust_lr_fn : {"original", "match_rms_adamw", "spectral_unclamped"} or None, default "original"
        :math:`f` for :math:`m` outputs and :math:`n` inputs: :math:`\sqrt{\max(1, m/n)}` of Jordan's code;
        :math:`0.2 \sqrt{\max(m, n)}`, with which a step has the size of one of AdamW; :math:`\sqrt{m/n}`;
        or for None 1. PyTorch's None is ``"original"``.
    momentum_form : {"ema", "heavy_ball"}, default "ema"
        With ``"heavy_ball"`` :math:`b \leftarrow \mu b + g` and :math:`u = \mu b + g`, as in Keras.
    bias_correction : bool, default False
        Optax's :math:`u = \mu b / (1 - \mu^{t+1}) + (1 - \mu) g / (1 - \mu^t)`.
    layout : {"out_in", "in_out"}, default "out_in"
        Which axis has the outputs: the first of ``(out, in, k...)``, as in PyTorch, or the last of ``(...k, in, out)``;
        all other axes together are the inputs.
    fallback : bool, default False
        Take steps of AdamW for all arrays of the group.
    betas : pair of float or callable, default (0.9, 0.999)
        AdamW's :math:`\beta_1, \beta_2` in [0, 1).
    adam_eps : float, default 1e-8
        AdamW's :math:`\epsilon` >= 0.

    References
    ----------
    Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; Liu et al., "Muon is scalable for
    LLM training", arXiv:2502.16982. PyTorch's ``Muon``, which has no fallback and takes matrices only.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> params = {"weight": np.zeros((2, 2)), "bias": np.zeros(2)}
    >>> opt = schuss.Muon(params, lr=0.1, weight_decay=0.0)
    >>> opt.step({"weight": np.array([[3.0, 0.0], [0.0, -1.0]]), "bias": np.array([2.0, -2.0])})
    True
    >>> params["weight"].round(3), params["bias"].round(3)
    (array([[-0.075,  0.   ],
           [ 0.   ,  0.113]]), array([-0.1,  0.1]))
    """

    lr: Rate = 1e-3
    momentum: Momentum = 0.95
    nesterov: bool = True
    ns_coefficients: Annotated[Coefficients, _coefficients] = (3.4445, -4.775, 2.0315)
    ns_steps: int = 5
    eps: float = 1e-7
    eps_form: Literal["max", "add"] = "max"
    weight_decay: WeightDecay = 0.1
    adjust_lr_fn: Literal["original", "match_rms_adamw", "spectral_unclamped"] | None = "original"
    momentum_form: Literal["ema", "heavy_ball"] = "ema"
    bias_correction: bool = False
    layout: Layout = "out_in"
    fallback: bool = False
    betas: Betas = (0.9, 0.999)
    adam_eps: float = 1e-8

    _single_rule = False
    _on_gpu = False
    _shareable = False
    _decay_form = "decoupled"

    @classmethod
    def _array_rule(cls, hypers: Mapping[str, Any], array: np.ndarray) -> str:
        return "adam" if array.ndim < 2 or hypers["fallback"] else cls._rule(hypers)

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        beta1, beta2 = hypers["betas"]
        adam = {"beta1": beta1, "beta2": beta2, "eps": hypers["adam_eps"], "bias_correction": True}
        off = dict.fromkeys(("keras_eps", "cautious", "plus_one", "by_rms"), False)
        return {
            **adam,
            **off,
            "momentum": hypers["momentum"],
            "ema": hypers["momentum_form"] == "ema",
            "nesterov": hypers["nesterov"],
            "debias": hypers["bias_correction"],
        }

    @classmethod
    def _check(cls, hypers: Mapping[str, Any]) -> None:
        given = hypers["ns_coefficients"]
        if isinstance(given[0], tuple) and len(given) != hypers["ns_steps"]:
            raise ValueError(f"ns_coefficients has {len(given)} entries, but ns_steps={hypers['ns_steps']}")

    def _matrix_work(self, program: str, steps: Sequence[tuple[int, int]]) -> _schuss.Changes | None:
        with np.errstate(all="ignore"):
            for i, _ in steps:
                for u in self._step_scratch[i]:  # none where AdamW takes the step
                    self._orthogonalize(u, self._groups[self._suffixes[i][0]].initial_hypers)
        return None

    @staticmethod
    def _orthogonalize(u: np.ndarray, hypers: Mapping[str, Any]) -> None:
        """Replaces what the momentum gave by the direction of the step."""
        if u.size == 0:
            return
        matrix, eps, smallest = matrices.as_matrix(u, hypers["layout"]), hypers["eps"], float(np.finfo(u.dtype).tiny)
        length, factor = matrices.norm(u), _factor(matrix, hypers)
        given = hypers["ns_coefficients"]
        *first, last = given if isinstance(given[0], tuple) else [given] * hypers["ns_steps"]
        # The last iteration multiplies by the factor too.
        coefficients = [*first, tuple(factor * one for one in last)]
        divisor = max(length, eps) if hypers["eps_form"] == "max" else length + eps
        u[...] = matrices.orthogonalized(matrix, max(divisor, smallest), coefficients).reshape(u.shape)


def _factor(matrix: np.ndarray, hypers: Mapping[str, Any]) -> float:
    """What the learning rate of a matrix is multiplied by."""
    outputs, inputs = matrix.shape if hypers["layout"] == "out_in" else matrix.shape[::-1]
    form = hypers["adjust_lr_fn"]
    if form == "match_rms_adamw":
        return 0.2 * math.sqrt(max(outputs, inputs))
    ratio = outputs / inputs
    return math.sqrt(max(1.0, ratio) if form == "original" else ratio) if form else 1.0
