"""A list of gradient transforms before a step. It knows no optimizer class, and of transforms the gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from schuss import _schuss
from schuss._arrays import checks, trees
from schuss._arrays.formats import State
from schuss._backends import tools
from schuss._core import state as _state
from schuss._core import validate
from schuss._core.optimizer import Optimizer
from schuss.transforms import Transform, accumulate, apply_if_finite
from schuss.wrappers.base import Wrapper


def _counts(place: str, value: Any) -> list[int]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{place} must be a list of whole numbers, got {value!r}")
    return [validate.count(f"{place}[{i}]", one, 0) for i, one in enumerate(value)]


class Transformed(Wrapper):
    """An optimizer whose gradients go through a list of transforms first; see `schuss.transforms`.

    Gradients are copied, divided by ``grad_scale``, and changed by each transform in order; then the optimizer takes
    its step, with its own clipping, weight decay and ``maximize``. What transforms remember changes in the same native
    call as the step: after an error or an interrupt, both are as before or both as after.

    Parameters
    ----------
    optimizer : Optimizer
        An optimizer over NumPy arrays whose step takes gradients; from now on step the Transformed instead.
    transforms : sequence of Transform
        At most one `accumulate` and one `apply_if_finite` among them.

    Raises
    ------
    TypeError, ValueError
        An argument is no such thing.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> from schuss import transforms
    >>> w = np.ones(2)
    >>> opt = schuss.Transformed(schuss.SGD(w, lr=0.5), [transforms.clip(1.0), transforms.accumulate(2)])
    >>> opt.step(np.array([4.0, 1.0])), opt.step(np.array([1.0, 0.0]))
    (False, True)
    >>> w
    array([0.5 , 0.75])
    """

    _own_settings = {"counts": _counts}
    _wrapper = "Transformed"

    def __init__(self, optimizer: Optimizer, transforms: Sequence[Transform]) -> None:
        if not isinstance(transforms, (list, tuple)):
            raise TypeError(f"transforms must be a list, such as [schuss.transforms.clip(1.0)], got {transforms!r}")
        for i, transform in enumerate(transforms):
            if not isinstance(transform, Transform):
                raise TypeError(f"transforms[{i}] must be one of schuss.transforms, got {transform!r}")
        for kind in (accumulate, apply_if_finite):
            if sum(isinstance(transform, kind) for transform in transforms) > 1:
                raise ValueError(f"transforms has more than one {kind.__name__}; use one")
        self._refuse_made()
        self._transforms = tuple(transforms)
        self._counts: list[int]
        #: Where gradients are changed; made at the first step.
        self._scratch: dict[int, np.ndarray] = {}
        self._wrap(optimizer, counts=[0] * len(transforms))

    def _check_wrapped(self) -> None:
        inner = self._stepped
        if not self._optimizer._takes_gradients:
            kind = type(self._optimizer).__name__
            raise TypeError(f"Transformed wraps an optimizer whose step takes gradients, not {kind}")
        if inner._params and not isinstance(inner._params[0], np.ndarray):
            raise TypeError("transforms work on NumPy arrays only; the optimizer's are on a GPU")

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """The transforms, in order."""
        return self._transforms

    def _checked(self, name: str, value: Any, place: str | None = None) -> Any:
        checked = super()._checked(name, value, place)
        if name == "counts" and len(checked) != len(self._transforms):
            raise ValueError(
                f"{place or name} has {len(checked)} entries, but there are {len(self._transforms)} transforms; make "
                "the optimizer with the same transforms"
            )
        return checked

    @property
    def _accumulates(self) -> bool:
        return any(isinstance(transform, accumulate) for transform in self._transforms)

    def _new_extra(
        self, param: np.ndarray, states: Sequence[np.ndarray], rule_states: Sequence[State]
    ) -> list[np.ndarray]:
        """The mean of the gradients since the last step, if they are accumulated."""
        mean = np.zeros(param.shape, checks.compute_dtype(param.dtype), checks.order(param))
        return [mean] if self._accumulates else []

    def _extra_names(self, i: int) -> list[str]:
        return ["accumulated"] if self._accumulates else []

    def step(
        self, grads: Any = None, *, grad_scale: float = 1.0, zero_grads: bool = False, partial: bool = False
    ) -> bool:
        """Changes the gradients, then takes the optimizer's step; arguments and errors are those of the optimizer.

        Returns
        -------
        bool
            Whether the step was taken: not between the steps of `accumulate`, nor if a transform or the optimizer skips
            it.
        """
        self._refuse_shown()
        scale, zero, part = self._step_options(grad_scale, zero_grads, partial)
        inner = self._stepped
        with _schuss.ExclusiveLock(self):
            self._refuse_added()
            given = inner._own_grads() if grads is None else grads
            work, leaves = self._copied(given, scale, zero, part)
            fills = [(leaf, 0.0) for leaf in leaves.values()] if zero else []
            counts = list(self._counts)
            for k, transform in enumerate(self._transforms):
                if isinstance(transform, accumulate):
                    taken = self._accumulate(transform, k, work, counts, fills)
                elif isinstance(transform, apply_if_finite):
                    taken = self._pass_finite(transform, k, work, counts, fills)
                else:
                    transform._apply(work, inner._params, self._optimizer.step_count + 1)
                    taken = True
                if not taken:
                    return False
            changes = self._backend.changes([(self, "_counts", counts)], fills=fills)
            with _schuss.AfterStep(inner, changes):
                return self._optimizer.step(trees.build(inner._root(), work.get))

    def _copied(
        self, grads: Any, grad_scale: float, zero_grads: bool, partial: bool
    ) -> tuple[dict[int, np.ndarray], dict[int, Any]]:
        """Copies of the gradients in the compute dtype, divided by the scale, and the gradients that there are."""
        inner = self._stepped
        inner._explain_structure(grads, partial)
        found = {i: g for i, _, g in trees.leaves(inner._root(), grads, "grads", "params", partial=partial)}
        leaves = {i: g for i, g in sorted(found.items()) if g is not None}
        if self._accumulates and len(leaves) < len(inner._params):
            raise TypeError("accumulate needs a gradient for each array; leave out what is frozen")
        work = {}
        for i, leaf in leaves.items():
            usable, param = inner._gradient(i, leaf, False, zero_grads), inner._params[i]
            if i not in self._scratch:
                self._scratch[i] = np.empty(param.shape, checks.compute_dtype(param.dtype), checks.order(param))
            work[i] = self._scratch[i]
            with np.errstate(over="ignore"):  # an overflow to infinity is left to the `nonfinite` check
                np.copyto(work[i], usable, casting="unsafe")
        if grad_scale != 1.0:
            tools.run("scale", list(work.values()), [1.0 / grad_scale])
        return work, leaves

    def _accumulate(
        self, transform: accumulate, k: int, work: dict[int, np.ndarray], counts: list[int], fills: list[Any]
    ) -> bool:
        """Adds to the mean or, for the last time, puts it into the place of the gradients."""
        done, means, arrays = counts[k], [own[0] for own in self._extra], [work[i] for i in sorted(work)]
        counts[k] = (done + 1) % transform.k
        if counts[k] == 0:
            if done:
                share = done / transform.k
                tools.run("average", means, [share], program="sync", states=[[array] for array in arrays])
            return True
        job = self._backend.job("average", arrays, [1 / (done + 1)], program="sync", states=[[mean] for mean in means])
        self._backend.changes([(self, "_counts", counts)], jobs=[job], fills=fills).make()
        return False

    def _pass_finite(
        self, transform: apply_if_finite, k: int, work: dict[int, np.ndarray], counts: list[int], fills: list[Any]
    ) -> bool:
        """Counts errors in a row; whether the step is to be taken."""
        squares, _ = _schuss.sum_of_squares(list(work.values()))
        if np.isfinite(squares):
            counts[k] = 0
            return True
        counts[k] += 1
        if counts[k] > transform.max_consecutive_errors:
            return True
        self._backend.changes([(self, "_counts", counts)], fills=fills).make()
        return False

    def __reduce__(self) -> tuple[Any, ...]:
        self._check_idle()
        return type(self), (self._optimizer, self._transforms), _state.state_dict(self)

    def __repr__(self) -> str:
        listed = ", ".join(map(repr, self._transforms))
        return f"Transformed([{listed}]) around {self._optimizer!r}"
