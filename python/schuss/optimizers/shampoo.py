"""Shampoo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from schuss import _schuss
from schuss._arrays import formats, matrices
from schuss._arrays.linalg import check_memory
from schuss._core.hyperparameters import ClosedFraction, Fraction, Layout, Momentum, Rate, WeightDecay
from schuss._core.optimizer import Optimizer

#: What keeps the ratio of a grafted step's lengths finite.
_TINY = 1e-16


class Shampoo(Optimizer):
    r"""Shampoo: a preconditioner for each side of a matrix, with grafting and blocks.

    .. math::

       & L \leftarrow L + G G^T, \qquad R \leftarrow R + G^T G \\
       & p \leftarrow p - \eta \, (L + \epsilon I)^{-1/4} \, G \, (R + \epsilon I)^{-1/4}

    An array of fewer than two axes has one side, and :math:`(L + \epsilon I)^{-1/2}`. Arrays of more than two axes, as
    of convolutions, are matrices with the weights of an output in a row: see `layout`. Weight decay acts before the
    statistics. Each `update_freq`-th step computes the roots anew, with eigenvalues and eigenvectors in float64.

    With `grafting`, a step has the direction of Shampoo and, over the whole array, the length of another method's. That
    method's own steps come before the first roots.

    NumPy's BLAS and LAPACK compute the products and eigenvectors, with their own number of threads: the bits are the
    same for the same library, its number of threads, and CPU. Beside its state, the optimizer keeps an array of the
    size of each parameter for what is between the gradient and the step; a second one with momentum, and a third one
    with the last three forms of grafting.

    Parameters
    ----------
    momentum : float or callable, default 0.0
        :math:`\mu` in [0, 1).
    momentum_form : {"heavy_ball", "ema", "feedback"}, default "heavy_ball"
        With the preconditioned gradient :math:`u`, :math:`b \leftarrow \mu b + u` and
        :math:`p \leftarrow p - \eta b`. With ``"ema"`` the average of gradients
        :math:`b \leftarrow \mu b + (1 - \mu) G`, divided by :math:`1 - \mu^t`, is preconditioned in the place of
        :math:`G`: the first beta of Meta's package. With ``"feedback"``, as in pytorch_optimizer, :math:`G` is
        :math:`(1 - \mu) g + \mu u` with the :math:`u` of the last step, from step 2 on.
    eps : float, default 1e-6
        :math:`\epsilon` >= 0; 0 counts as the rounding error of the largest eigenvalue.
    beta2 : float, default 1.0
        With :math:`\beta` < 1, :math:`L \leftarrow \beta L + (1 - \beta) G G^T`, which is divided by
        :math:`1 - \beta^t` before :math:`\epsilon` is added; 1 is the sum above.
    update_freq : int, default 1
        Steps from one computation of the roots to the next, >= 1.
    start_preconditioning_step : int, default 1
        The first step that may compute roots, >= 1; they are those of steps that `update_freq` divides.
    before_first_root : {"step", "wait"}, default "step"
        Before there are roots, take steps of the other method, or along the gradient without one; or move nothing, as
        pytorch_optimizer does.
    order : int, default 2
        The exponent is :math:`-1/2k` for :math:`k` sides with a preconditioner, in general :math:`-1/(\mathrm{order}
        \cdot k)`; >= 1.
    grafting : {"sgd", "adagrad", "rmsprop", "adam"}, optional
        The other method: with :math:`G`, or its average, divided by nothing; by :math:`\sqrt{v} + \epsilon_g`, where
        :math:`v` is the sum of squares; by the same where it is their average; or where that is divided by
        :math:`1 - \beta_g^t`.
    grafting_beta2 : float, default 0.999
        :math:`\beta_g` in [0, 1) of the average of squares.
    grafting_eps : float, default 1e-8
        :math:`\epsilon_g` >= 0.
    max_preconditioner_dim : int, default 1024
        Longer sides are divided into blocks of this length, and each block of the matrix has its own statistics.
    blocking : bool, default True
        ``False``: longer sides have no preconditioner.
    layout : {"out_in", "in_out"}, default "out_in"
        Which axis of an array of more than two has the outputs: the first of ``(out, in, k...)``, or the last of
        ``(...k, in, out)``; all other axes together are the other side of the matrix.

    References
    ----------
    Gupta et al., "Shampoo: preconditioned stochastic tensor optimization", arXiv:1802.09568; Shi et al., "A distributed
    data-parallel PyTorch implementation of the distributed Shampoo optimizer", arXiv:2309.06497. torch_optimizer's
    class takes the roots :math:`-1/k`, and the statistics of the second side after the first has been applied.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> opt = schuss.Shampoo(w, lr=0.1)
    >>> opt.step(np.array([[2.0, 0.0], [0.0, 4.0]]))
    True
    >>> w.round(3)
    array([[0.9, 0. ],
           [0. , 0.9]])
    """

    lr: Rate = 1e-2
    momentum: Momentum = 0.0
    momentum_form: Literal["heavy_ball", "ema", "feedback"] = "heavy_ball"
    eps: float = 1e-6
    weight_decay: WeightDecay = 0.0
    decoupled_weight_decay: bool = False
    beta2: ClosedFraction = 1.0
    update_freq: int = 1
    start_preconditioning_step: int = 1
    before_first_root: Literal["step", "wait"] = "step"
    order: int = 2
    grafting: Literal["sgd", "adagrad", "rmsprop", "adam"] | None = None
    grafting_beta2: Fraction = 0.999
    grafting_eps: float = 1e-8
    max_preconditioner_dim: int = 1024
    blocking: bool = True
    layout: Layout = "out_in"

    _single_rule = False
    _on_gpu = False
    _shareable = False

    @classmethod
    def _rule(cls, hypers: Mapping[str, Any]) -> str:
        if hypers["grafting"] not in (None, "sgd"):
            return "shampoo_grafted"
        return "shampoo_averaged" if hypers["momentum"] > 0 else "shampoo"

    @classmethod
    def _rule_values(cls, hypers: Mapping[str, Any]) -> Mapping[str, float]:
        form, grafting = hypers["momentum_form"], hypers["grafting"]
        return {
            "momentum": hypers["momentum"],
            "ema": form == "ema",
            "feedback": form == "feedback",
            "beta2": hypers["grafting_beta2"],
            "adds": grafting == "adagrad",
            "debias": grafting == "adam",
            "eps": hypers["grafting_eps"],
        }

    @classmethod
    def _array_states(cls, hypers: Mapping[str, Any], array: np.ndarray) -> tuple[formats.State, ...]:
        own = [
            formats.State(name, "own", True, own_shape=side.shape)
            for side in _sides(hypers, array)
            for name in (side.name, f"{side.name}_root")
        ]
        return (*super()._array_states(hypers, array), *own)

    def _matrix_work(self, program: str, steps: Sequence[tuple[int, int]]) -> _schuss.Changes | None:
        found: list[tuple[np.ndarray, np.ndarray]] = []
        with np.errstate(all="ignore"):
            for i, t in steps:
                group, param = self._groups[self._suffixes[i][0]], self._params[i]
                if param.size:
                    states = dict(zip(self._state_names(i), self._states[i], strict=True))
                    work = _Work(group.initial_hypers, param, states)  # nothing here may have a schedule
                    found += work.precondition(self._step_scratch[i], t)
        return self._backend.changes(copies=found)


class _Side(NamedTuple):
    """A side of an array's matrix that has preconditioners, with the blocks of the matrix as seen from there."""

    name: str
    rows: list[slice]
    columns: list[slice]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its statistics: a row of blocks, in a row of their own for each of several columns of blocks."""
        square = self.rows[-1].stop, self.rows[0].stop
        return square if len(self.columns) == 1 else (len(self.columns), *square)

    def seen(self, matrix: np.ndarray) -> np.ndarray:
        """The matrix with this side's length first."""
        return matrix.T if self.name == "right" else matrix

    def blocks(self, statistics: np.ndarray) -> Iterator[tuple[np.ndarray, slice, slice]]:
        """Views of the statistics, with the rows and columns of the block of the matrix that each belongs to."""
        stacked = statistics.reshape(len(self.columns), *self.shape[-2:])
        for row, columns in zip(stacked, self.columns, strict=True):
            for rows in self.rows:
                yield row[rows, : rows.stop - rows.start], rows, columns


def _sides(hypers: Mapping[str, Any], array: np.ndarray) -> list[_Side]:
    if array.size == 0:
        return []
    lengths = matrices.as_matrix(array, hypers["layout"]).shape
    most = hypers["max_preconditioner_dim"]
    has_one = [hypers["blocking"] or length <= most for length in lengths]
    left, right = (
        [slice(k, min(k + most, length)) for k in range(0, length, most)] if divided else [slice(0, length)]
        for length, divided in zip(lengths, has_one, strict=True)
    )
    sides = [_Side("left", left, right), _Side("right", right, left)][: max(array.ndim, 1)]
    return [side for side, own in zip(sides, has_one, strict=False) if own]


class _Work:
    """What one array needs of NumPy in one step."""

    def __init__(self, hypers: Mapping[str, Any], param: np.ndarray, states: Mapping[str, np.ndarray]) -> None:
        self._hypers, self._states = hypers, states
        self._sides = _sides(hypers, param)

    def precondition(self, scratch: Sequence[np.ndarray], t: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Replaces what the rule left in scratch by the step's direction; returns the new states."""
        # Without momentum, the gradient and what is preconditioned are one array.
        x, u, w = scratch[0], scratch[:2][-1], scratch[2] if len(scratch) > 2 else None
        gradient = matrices.in_c_order(x, self._hypers["layout"])
        statistics = [self._statistics(side, gradient) for side in self._sides]
        found = [(self._states[side.name], new) for side, new in zip(self._sides, statistics, strict=True)]
        roots = [self._states[f"{side.name}_root"] for side in self._sides]
        if t % self._hypers["update_freq"] == 0 and t >= self._hypers["start_preconditioning_step"]:
            old, roots = roots, [self._roots(side, new, t) for side, new in zip(self._sides, statistics, strict=True)]
            found += zip(old, roots, strict=True)
        if self._sides and roots[0].flat[0] != 0:  # a root has no zero in its diagonal
            length = None if self._hypers["grafting"] is None else matrices.norm(u if w is None else w)
            matrix = matrices.in_c_order(u, self._hypers["layout"])
            for side, root in zip(self._sides, roots, strict=True):
                matrix = self._applied(side, root, matrix)
            u[...] = matrix.reshape(u.shape)
            if length is not None:
                u *= u.dtype.type(length / (matrices.norm(u) + _TINY))
        elif self._sides and self._hypers["before_first_root"] == "wait":
            u.fill(0)
        elif w is not None:
            np.copyto(u, w)
        return found

    def _statistics(self, side: _Side, gradient: np.ndarray) -> np.ndarray:
        beta2, old = self._hypers["beta2"], self._states[side.name]
        result, seen = np.zeros_like(old, order="C"), side.seen(gradient)
        for block, rows, columns in side.blocks(result):
            block[...] = matrices.gram(seen[rows, columns])
        if beta2 < 1:
            result *= result.dtype.type(1 - beta2)
        result += old if beta2 == 1 else old * old.dtype.type(beta2)
        return result

    def _roots(self, side: _Side, statistics: np.ndarray, t: int) -> np.ndarray:
        hypers, result = self._hypers, np.zeros_like(statistics)
        bias = 1 - hypers["beta2"] ** t if hypers["beta2"] < 1 else 1.0
        power = 1 / (hypers["order"] * len(self._sides))
        for (block, _, _), (root, _, _) in zip(side.blocks(statistics), side.blocks(result), strict=True):
            root[...] = matrices.inverse_root(block, bias, hypers["eps"], power)
        return result

    @staticmethod
    def _applied(side: _Side, roots: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """The matrix multiplied by the roots of one side."""
        result = np.empty_like(matrix)
        check_memory(result)
        seen, product = side.seen(matrix), side.seen(result)
        for root, rows, columns in side.blocks(np.ascontiguousarray(roots)):
            np.matmul(root, seen[rows, columns], out=product[rows, columns])
        return result
