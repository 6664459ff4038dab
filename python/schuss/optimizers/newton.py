"""Newton's method."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from schuss import _schuss
from schuss._arrays import checks, linalg, trees
from schuss._backends.protocol import Change, Limits
from schuss._core.descent import Descent
from schuss._core.hyperparameters import Rate


class Newton(Descent):
    r"""Newton's method, damped if necessary: :math:`p \leftarrow p - \eta (H + \delta I)^{-1} g`.

    :math:`H` is the symmetric Hessian over all parameters, raveled in C order and concatenated. The system is solved in
    float64 by Cholesky factorization; the Hessian is not inverted. On a quadratic function the first step reaches the
    minimum.

    NumPy's BLAS and LAPACK solve the system and choose their own number of threads, which `schuss.set_num_threads` does
    not change. So the last bits of the solution may depend on that library, on the CPU and on its number of threads.

    Parameters
    ----------
    damping : float, default 0.0
        :math:`\delta` >= 0; for all groups.
    fallback : {"damp", "error"}, default "damp"
        If :math:`H + \delta I` is not positive definite: increase the damping by factors of ten, from a millionth of
        the largest diagonal element, until it is; or raise. `last_damping` is the damping used.
    maximize : bool, default False
        Ascend instead of descend; :math:`-H` must then be positive definite.

    References
    ----------
    Nocedal and Wright, "Numerical optimization", 2nd edition, section 3.4.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> w = np.array([6.0, 6.0])
    >>> hessian = np.array([[4.0, 1.0], [1.0, 3.0]])
    >>> opt = schuss.Newton(w)
    >>> opt.step(hessian @ w, hessian)  # of w @ hessian @ w / 2
    True
    >>> w.round(12), opt.last_damping
    (array([0., 0.]), 0.0)
    """

    lr: Rate = 1.0
    damping: float = 0.0
    fallback: Literal["damp", "error"] = "damp"

    _single_rule = False
    _shareable = False
    _on_gpu = False

    def _setup(self, params: Any, hypers: dict[str, Any], whole: dict[str, Any]) -> None:
        super()._setup(params, hypers, whole)
        self._last_damping: float | None = None
        self._last_norms: tuple[float | None, float | None] = None, None

    @property
    def last_damping(self) -> float | None:
        """The damping of the last step, or None before the first."""
        return self._last_damping

    def _norms_of_step(self) -> tuple[float | None, float | None]:
        return self._last_norms

    def step(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride] - no partial gradients
        self, grads: Any = None, hessian: Any = None, *, grad_scale: float = 1.0, zero_grads: bool = False
    ) -> bool:
        """Takes one step.

        Parameters
        ----------
        grads : structure of arrays, or callable
            The gradients in the structure of the parameters; or a closure that returns them and the Hessian.
        hessian : array of shape (n, n)
            Symmetric, for n parameter elements in total; only one triangle is read.
        grad_scale : float, default 1.0
            Gradients and the Hessian are divided by this first.
        zero_grads : bool, default False
            Set the gradients to zero once they have been used.

        Returns
        -------
        bool
            Whether the step was taken; False if ``nonfinite="skip"`` and a gradient has a NaN or an infinity.

        Raises
        ------
        TypeError, ValueError
            Gradients or Hessian do not fit, or the Hessian is not positive definite and ``fallback="error"``; nothing
            has changed.
        FloatingPointError
            A gradient has a NaN or an infinity and ``nonfinite="error"``; nothing has changed.
        """
        scale, zero_grads, _ = self._step_options(grad_scale, zero_grads, None)
        with self._exclusive():
            return self._take(grads, hessian, scale, zero_grads)

    def _take(self, grads: Any, hessian: Any, grad_scale: float, zero_grads: bool) -> bool:
        if callable(grads):
            both = grads()
            if not isinstance(both, (tuple, list)) or len(both) != 2:
                raise TypeError(f"the closure must return the gradients and the Hessian, got {trees.kind(both)}")
            grads, hessian = both
        elif grads is None:
            grads = self._own_grads()
        self._explain_structure(grads, False)
        leaves = {i: leaf for i, _, leaf in trees.leaves(self._root(), grads, "grads", "params")}
        rows = list(leaves)  # the Hessian has them in the structure's own order
        given = [leaves[i] for i in range(len(rows))]
        usable = [self._usable(i, gradient, zero_grads) for i, gradient in enumerate(given)]
        matrix = self._dense(hessian, sum(array.size for array in usable))
        for i in range(len(given) if zero_grads else 0):  # a conversion may have run any code
            checks.check_zeroable(self._place("grads", *self._suffixes[i]), given[i])
        zeroed = [(gradient, 0.0) for gradient in given] if zero_grads else []
        norm, factor = None, 1.0 / grad_scale
        bound = self.max_grad_norm
        if bound is not None or self.track_grad_norm:
            norm, clipped = _schuss.clip_factor(
                _schuss.sum_of_squares(usable), grad_scale, math.inf if bound is None else bound
            )
            factor = factor if bound is None else clipped
        if self.nonfinite != "propagate" and not all(np.isfinite(array).all() for array in usable):
            if self.nonfinite == "error":
                i = next(i for i, array in enumerate(usable) if not np.isfinite(array).all())
                self._explain_nonfinite(i, int(np.flatnonzero(~np.isfinite(usable[i].ravel(order="K")))[0]))
            counters = self._read_counters()
            skipped = counters._replace(skipped=counters.skipped + 1)
            self._backend.changes([*self._counted(skipped), (self, "_last_norms", (norm, None))], fills=zeroed).make()
            return False
        sign = -1.0 if self._agreed("maximize") else 1.0
        factor *= sign
        with np.errstate(all="ignore"):  # one multiplication in the parameter's compute dtype, as in all optimizers
            scaled = [array * array.dtype.type(factor) for array in usable]
        vector = np.concatenate([scaled[i].ravel() for i in rows], dtype=np.float64)
        solution, used = self._solve(matrix if sign == grad_scale else matrix * (sign / grad_scale), vector)
        # The core then takes a plain SGD step along the solution, which `sign` makes ascend for `maximize`.
        direction, at = {}, 0
        for i in rows:
            param = self._params[i]
            direction[i] = (sign * solution[at : at + param.size]).reshape(param.shape)
            at += param.size
        changes = self._backend.changes(
            [(self, "_last_damping", used), (self, "_last_norms", (norm, bound))], fills=zeroed
        )
        with _schuss.AfterStep(self, changes):
            return super().step(trees.build(self._root(), direction.__getitem__))

    def _usable(self, i: int, gradient: Any, zero_grads: bool) -> np.ndarray:
        if gradient is None:
            place = self._place("grads", *self._suffixes[i])
            raise TypeError(f"{place} is None, but Newton solves one system over all arrays; leave out what is frozen")
        usable = self._gradient(i, gradient, False, zero_grads)
        with np.errstate(over="ignore"):  # an overflow to infinity is left to the `nonfinite` check
            return usable.astype(checks.compute_dtype(self._params[i].dtype), copy=False)

    def _dense(self, hessian: Any, n: int) -> np.ndarray:
        if hessian is None:
            raise TypeError("Newton needs the Hessian: step(..., hessian=...)")
        checks.refuse_masked("hessian", hessian)
        matrix = np.asarray(hessian)
        if matrix.dtype.kind not in "fiu" and not checks.known_dtype(matrix.dtype):
            raise TypeError(f"hessian has dtype {matrix.dtype}; it must be real numbers")
        if matrix.shape != (n, n):
            raise ValueError(f"hessian has shape {matrix.shape}, but there are {n} parameters: it must be ({n}, {n})")
        if not np.isfinite(matrix).all():
            raise ValueError("hessian has a NaN or infinity; nothing was updated")
        return np.require(matrix, np.float64, ["C", "A"])

    def _solve(self, matrix: np.ndarray, vector: np.ndarray) -> tuple[np.ndarray, float]:
        """Returns the solution and the damping used."""
        damping, fallback = self._agreed("damping"), self._agreed("fallback")
        try:
            return linalg.solve_damped(matrix, vector, damping, raise_damping=fallback == "damp")
        except linalg.NotPositiveDefiniteError as error:
            advice = 'use fallback="damp", or more damping' if fallback == "error" else "is it the Hessian?"
            what = f"hessian + damping*I is not positive definite (leading minor {error.minor}, damping {damping:g})"
            raise ValueError(f"{what}: {advice}") from None

    def _agreed(self, name: str) -> Any:
        """A hyperparameter that must be equal in all groups, since they share one system."""
        values = {group[name] for group in self.param_groups}
        if len(values) > 1:
            raise ValueError(f"all groups must have the same {name}, since there is one system to solve")
        return values.pop()

    def _limits_changed(self, limits: Limits) -> list[Change]:
        """None: clipping and the NaN check apply to the gradients, but the core gets the solution."""
        return []
