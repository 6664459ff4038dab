"""SOAP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from schuss import _schuss
from schuss._arrays import formats, matrices
from schuss._core.hyperparameters import Betas, Layout, Range, Rate, WeightDecay
from schuss._core.optimizer import Optimizer

_SIDES = ("left", "right")


class SOAP(Optimizer):
    r"""SOAP: Adam in the eigenbasis of Shampoo's statistics.

    .. math::

       & L \leftarrow \beta L + (1 - \beta) G G^T, \qquad R \leftarrow \beta R + (1 - \beta) G^T G \\
       & m \leftarrow \beta_1 m + (1 - \beta_1) G, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) (Q_L^T G Q_R)^2 \\
       & p \leftarrow (1 - \eta \lambda) \left(p - \eta \frac{\sqrt{1 - \beta_2^{t-1}}}{1 - \beta_1^{t-1}} \,
         Q_L \frac{Q_L^T m Q_R}{\sqrt{v} + \epsilon} Q_R^T\right)

    where the columns of :math:`Q_L, Q_R` are the eigenvectors of :math:`L, R`. The first step begins :math:`L` and
    :math:`R` and their eigenvectors, and moves nothing. From then on, each `precondition_frequency`-th step refines the
    eigenvectors by one step of the power method, :math:`Q \leftarrow \operatorname{qr}(L Q)`, with its columns ordered
    by the eigenvalues that they estimate; they go back to the places that they had, where authors' code permutes
    :math:`v`.

    Arrays of fewer than two axes are not rotated, except with `precondition_1d`. Arrays of more than two axes, as of
    convolutions, are matrices with the weights of an output in a row: see `layout`.

    NumPy's BLAS and LAPACK compute the products, eigenvectors and factorizations, with their own number of threads: the
    bits are the same for the same library, its number of threads, and CPU. Where a gradient has not the full rank, as
    at first with `precondition_1d`, its null space has no eigenvectors of its own, and those that another library finds
    may differ. Beside its state, the optimizer keeps two arrays of the size of each parameter for what is between the
    gradient and the step.

    Parameters
    ----------
    betas : pair of float or callable, default (0.95, 0.95)
        :math:`\beta_1, \beta_2` in [0, 1).
    shampoo_beta : float, optional
        :math:`\beta` in [0, 1); by default :math:`\beta_2`.
    weight_decay : float or callable, default 0.01
        :math:`\lambda` >= 0, decoupled; it comes after the step.
    precondition_frequency : int, default 10
        Steps from one refinement of the eigenvectors to the next, >= 1.
    correct_bias : bool, default True
        ``False`` leaves out the fraction of :math:`\beta_1, \beta_2`.
    precondition_1d : bool, default False
        Rotate vectors too.
    normalize_gradient : bool, default False
        Divide what is multiplied by :math:`\eta` by its root mean square.
    max_precondition_dim : int, default 10000
        Longer sides have no eigenvectors, and are not rotated.
    layout : {"out_in", "in_out"}, default "out_in"
        Which axis of an array of more than two has the outputs: the first of ``(out, in, k...)``, or the last of
        ``(...k, in, out)``; all other axes together are the other side of the matrix.

    References
    ----------
    Vyas et al., "SOAP: improving and stabilizing Shampoo using Adam", arXiv:2409.11321.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> opt = schuss.SOAP(w, lr=0.1, weight_decay=0.0)
    >>> for _ in range(2):
    ...     taken = opt.step(np.array([[2.0, 0.0], [0.0, 4.0]]))  # the first step moves nothing
    >>> w.round(3)
    array([[0.9, 0. ],
           [0. , 0.9]])
    """

    lr: Rate = 3e-3
    betas: Betas = (0.95, 0.95)
    shampoo_beta: Annotated[float | None, Range(high=1.0)] = None
    eps: float = 1e-8
    weight_decay: WeightDecay = 0.01
    precondition_frequency: int = 10
    correct_bias: bool = True
    precondition_1d: bool = False
    normalize_gradient: bool = False
    max_precondition_dim: int = 10000
    layout: Layout = "out_in"

    _single_rule = False
    _on_gpu = False
    _shareable = False
    _decay_form = "own"

    @classmethod
    def _array_states(cls, hypers: Mapping[str, Any], array: np.ndarray) -> tuple[formats.State, ...]:
        statistics = []
        for k, n in _rotated(hypers, array):
            for name in (_SIDES[k], f"{_SIDES[k]}_basis"):
                statistics.append(formats.State(name, "own", True, own_shape=(n, n)))
        return (*super()._array_states(hypers, array), *statistics)

    def _setup(self, params: Any, hypers: dict[str, Any], whole: dict[str, Any]) -> None:
        super()._setup(params, hypers, whole)
        #: New statistics and eigenvectors, until the end of the step.
        self._found: list[tuple[np.ndarray, np.ndarray]] = []

    def _matrix_work(self, program: str, steps: Sequence[tuple[int, int]]) -> _schuss.Changes | None:
        if program == "gather":
            self._found = []
        with np.errstate(all="ignore"):
            for i, t in steps:
                if self._params[i].size:
                    _Work(self, i, self._hypers_of(i)).do(program, t, self._found)
        if program == "gather":
            return None
        found, self._found = self._found, []
        return self._backend.changes(copies=found)

    def _hypers_of(self, i: int) -> Mapping[str, Any]:
        """What the products of an array need of the hyperparameters in this step: only betas may have a schedule."""
        group = self._groups[self._suffixes[i][0]]
        if not callable(group["betas"]):
            return group.initial_hypers
        return {**group.initial_hypers, "betas": group.current("betas")}


def _rotated(hypers: Mapping[str, Any], array: np.ndarray) -> list[tuple[int, int]]:
    """The sides of an array's matrix that have eigenvectors, 0 for the left one, with their lengths."""
    if array.ndim < (1 if hypers["precondition_1d"] else 2) or array.size == 0:
        return []
    shape = matrices.as_matrix(array, hypers["layout"]).shape[: array.ndim]
    return [(k, n) for k, n in enumerate(shape) if n <= hypers["max_precondition_dim"]]


class _Work:
    """The matrix products of one array in one step."""

    def __init__(self, optimizer: SOAP, i: int, hypers: Mapping[str, Any]) -> None:
        self._hypers, param = hypers, optimizer._params[i]
        self._sides = [k for k, _ in _rotated(hypers, param)]
        own = dict(zip(optimizer._state_names(i), optimizer._states[i], strict=True))
        self._statistics = [own[_SIDES[k]] for k in self._sides]
        self._bases = [own[f"{_SIDES[k]}_basis"] for k in self._sides]
        self._x, self._u = optimizer._step_scratch[i]

    def do(self, program: str, t: int, found: list[tuple[np.ndarray, np.ndarray]]) -> None:
        """Rotates what a program has left in scratch; adds the new statistics and their eigenvectors to `found`."""
        if program == "gather":
            self._gather(t, found)
        elif t > 1:
            self._turn(self._u, back=True)
            if self._hypers["normalize_gradient"]:
                rms, tiny = matrices.norm(self._u) / self._u.size**0.5, float(np.finfo(self._u.dtype).tiny)
                self._u *= self._u.dtype.type(1.0 / max(rms + self._hypers["eps"], tiny))

    def _gather(self, t: int, found: list[tuple[np.ndarray, np.ndarray]]) -> None:
        given, every = self._hypers["shampoo_beta"], self._hypers["precondition_frequency"]
        beta = self._hypers["betas"][1] if given is None else given
        gradient = matrices.in_c_order(self._x, self._hypers["layout"])
        for k, old, basis in zip(self._sides, self._statistics, self._bases, strict=True):
            unfolded = gradient if k == 0 else gradient.T
            new = matrices.gram(unfolded)
            new *= new.dtype.type(1.0 - beta)
            if t > 1:
                new += old * new.dtype.type(beta)
            found.append((old, new))
            if t == 1:
                found.append((basis, matrices.eigenvectors(new)))
            elif (t - 1) % every == 0 and np.isfinite(new).all():
                found.append((basis, matrices.refined(new, basis)))
        if t > 1:
            self._turn(self._x)
            self._turn(self._u)

    def _turn(self, array: np.ndarray, back: bool = False) -> None:
        """Rotates an array in place into the eigenbases, or back."""
        if not self._sides:
            return
        matrix = matrices.in_c_order(array, self._hypers["layout"])
        for k, basis in zip(self._sides, self._bases, strict=True):
            own = np.ascontiguousarray(basis)
            own = own if back else own.T
            matrix = own @ matrix if k == 0 else matrix @ own.T
        array[...] = matrix.reshape(array.shape)
